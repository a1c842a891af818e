# shellcheck shell=sh disable=SC2154
# What every installer does. Before this stand, as fleet/installer/script.py writes them: host, account, public_key,
# host_key, known (MTAs), no_rules (why there are none, or ""); behind it unpack, probe, and the call of main.
set -u
PATH=/usr/sbin:/usr/bin:/sbin:/bin:/usr/local/sbin:/usr/local/bin
LC_ALL=C
export LC_ALL PATH
umask 022
unset CDPATH ENV BASH_ENV

helpers=/usr/local/libexec/mxfleet
rules=/etc/sudoers.d/mxfleet
mark='made by the installer of mxfleet'
changed=''

say() { echo "mxfleet: $*"; }

did() {
    changed=yes
    say "$@"
}

fail() { # STATUS WORDS
    status=$1
    shift
    echo "mxfleet: $*" >&2
    exit "$status"
}

usage() {
    cat <<END
usage: sh ${0##*/} [install | uninstall]     as root on $host

install    makes the account $account with mxfleet's public key, puts mxfleet's scripts into $helpers
           and, when mxfleet has discovered the host, its rules into $rules; run again, it brings that up to date
uninstall  takes these away, and nothing else
END
}

main() {
    case ${1-install} in
    install) action=set_up ;;
    uninstall) action=take_away ;;
    -h | --help) usage && exit 0 ;;
    *) usage >&2 && exit 64 ;;
    esac
    must_be_here
    work=$(mktemp -d) || fail 73 "no temporary directory"
    trap 'rm -rf "$work"' EXIT
    trap 'exit 130' HUP INT TERM
    if ! { mkdir "$work/scripts" && unpack; }; then fail 73 "cannot write to $work"; fi
    "$action"
    [ -n "$changed" ] || say "nothing changed"
}

must_be_here() {
    [ "$(id -u)" = 0 ] || fail 77 "only root can do that"
    for tool in awk cmp cut getent mktemp sed stat timeout; do
        command -v "$tool" >/dev/null || fail 69 "$tool is missing here; mxfleet needs it too"
    done
    # In a chroot files and accounts are others than those that sshd uses.
    first=$(stat -L -c '%d %i' /proc/1/root/ 2>/dev/null) || fail 78 "no /proc: this is no running system"
    [ "$first" = "$(stat -L -c '%d %i' /)" ] || fail 78 "this is not the root directory of process 1: leave the chroot"
    is_the_host || fail 78 "this is not $host: none of its host keys is the one that mxfleet knows"
}

key_files() {
    { sshd -T 2>/dev/null | sed -n 's/^hostkey \(.*\)/\1.pub/p' && ls /etc/ssh/ssh_host_*_key.pub 2>/dev/null; } |
        awk '!seen[$0]++'
}

# True as well where nothing says which keys the host has.
is_the_host() {
    [ -n "$host_key" ] || return 0
    key_files | {
        seen=''
        while read -r file; do
            read -r kind key _ <"$file" || continue
            [ "$kind $key" != "$host_key" ] || return 0
            seen=yes
        done 2>/dev/null
        [ -z "$seen" ]
    }
}

set_up() {
    make_account
    directory "$helpers"
    for file in "$work"/scripts/*.sh; do
        place "$file" "$helpers/${file##*/}" 755
    done
    set_rules
    tell_mtas
    [ -n "$host_key" ] || tell_keys
}

entry() { getent passwd "$account"; }

is_ours() { [ "$(entry | cut -d: -f5)" = "$mark" ]; }

make_account() {
    if ! entry >/dev/null; then
        command -v useradd >/dev/null || fail 69 "no useradd here: make the account $account with the shell /bin/sh"
        mkdir "$work/empty"
        useradd -r -m -k "$work/empty" -s /bin/sh -c "$mark" "$account" || fail 70 "useradd failed"
        did "made the account $account"
    fi
    home=$(entry | cut -d: -f6)
    if is_ours; then
        let_in
        return
    fi
    for key in "$public_key" ${next_key:+"$next_key"}; do
        if ! grep -qsF -- "$key" "$home/.ssh/authorized_keys"; then
            say "the account $account was there before, and is left as it is; its authorized_keys need the line"
            line "$key"
        fi
    done
}

line() { echo "restrict,port-forwarding $1 mxfleet"; }

# What lets mxfleet in belongs to root, so that who has the account can let in nobody else.
let_in() {
    for path in "$home" "$home/.ssh" "$home/.ssh/authorized_keys"; do
        [ ! -L "$path" ] || fail 78 "$path is a link"
    done
    # "*": no password is the right one, and sshd without PAM does not take the account as locked.
    [ "$(getent shadow "$account" | cut -d: -f2)" = '*' ] || {
        usermod -p '*' "$account" || fail 70 "usermod failed"
        did "$account has no password"
    }
    directory "$home"
    directory "$home/.ssh"
    for key in "$public_key" ${next_key:+"$next_key"}; do
        line "$key"
    done >"$work/keys"
    place "$work/keys" "$home/.ssh/authorized_keys" 644
    if command -v restorecon >/dev/null; then restorecon -R "$home/.ssh"; fi
}

is_so() { # PATH MODE: root's, with that mode
    [ ! -L "$1" ] && [ "$(stat -c '%u %g %a' "$1" 2>/dev/null)" = "0 0 $2" ]
}

directory() { # PATH
    if [ -d "$1" ] && is_so "$1" 755; then return; fi
    [ ! -L "$1" ] || fail 78 "$1 is a link"
    if ! { mkdir -p "$1" && chown 0:0 "$1" && chmod 755 "$1"; }; then fail 73 "cannot make $1"; fi
    did "$1 is root's"
}

place() { # FILE PATH MODE; sudo reads no file with a dot in its name
    if is_so "$2" "$3" && cmp -s "$1" "$2"; then return; fi
    new=$2.mxfleet-new
    if ! { cp "$1" "$new" && chown 0:0 "$new" && chmod "$3" "$new" && mv -f "$new" "$2"; }; then
        fail 73 "cannot write $2"
    fi
    did "wrote $2"
}

set_rules() {
    if [ -n "$no_rules" ]; then
        say "no rules for sudo: $no_rules"
        return
    fi
    command -v visudo >/dev/null || fail 69 "no sudo here: install it, and run this again"
    visudo -c -f "$work/sudoers" >"$work/said" 2>&1 || {
        cat "$work/said" >&2
        fail 70 "visudo refuses the rules; nothing of sudo's was changed"
    }
    place "$work/sudoers" "$rules" 440
    sudo -n -l -U "$account" 2>/dev/null | grep -q "$helpers" ||
        say "sudo does not read $rules: /etc/sudoers needs the line @includedir /etc/sudoers.d"
}

tell_mtas() {
    found=''
    probe
    say "MTAs here:${found:- none}"
    for mta in $found; do
        case " $known " in
        *" $mta "*) ;;
        *) say "$mta is not known to mxfleet yet: discover $host, then run its installer of that time" ;;
        esac
    done
}

has() { # MTA SCRIPT ARGUMENT...: asked as discovery asks
    mta=$1 script=$2
    shift 2
    if ! said=$(timeout -k 5 60 /bin/sh "$helpers/$script" "$@" </dev/null 2>/dev/null); then
        say "whether $mta is here could not be found out"
    elif [ "$said" != absent ]; then
        found="$found $mta"
    fi
}

tell_keys() {
    say "host keys, to compare with what scan-host-key/ shows:"
    key_files | while read -r file; do ssh-keygen -lf "$file"; done
}

take_away() {
    if [ -e "$rules" ]; then
        rm -f "$rules" && did "removed $rules"
    fi
    for file in "$work"/scripts/*.sh; do
        if [ -e "$helpers/${file##*/}" ]; then rm -f "$helpers/${file##*/}" && did "removed $helpers/${file##*/}"; fi
    done
    [ ! -d "$helpers" ] || rmdir "$helpers" 2>/dev/null || say "$helpers has files that are not from here"
    if ! entry >/dev/null; then return; fi
    if ! is_ours; then
        say "the account $account was not made from here, and stays"
        return
    fi
    home=$(entry | cut -d: -f6)
    rm -f "$home/.ssh/authorized_keys"
    userdel "$account" || fail 75 "$account is logged in: disable $host in mxfleet, and run this again in a minute"
    did "removed the account $account"
    rmdir "$home/.ssh" "$home" 2>/dev/null || say "$home has files that are not from here"
}
