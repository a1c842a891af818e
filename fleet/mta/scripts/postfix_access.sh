#!/bin/sh
# Reads or replaces one access map of a Postfix instance; smtpd sees the old map or the new one, never anything between.
#
#   postfix_access.sh read   CONFIG_DIR TYPE FILE    stdout: "SHA256 STATE" and then the file; STATE fits, stale or absent
#   postfix_access.sh apply  CONFIG_DIR TYPE FILE    stdin: SHA256 of the file as planned ("-": absent), number of checks,
#                                                    that many lines "KEY<tab>VALUE" (no value: absent), the new file
#   postfix_access.sh query  CONFIG_DIR TYPE FILE    stdin: keys; stdout: "KEY<tab>VALUE" for those the live map has
#   postfix_access.sh remove CONFIG_DIR TYPE FILE    our own map, once nothing refers to it
#
# Exit status: 65 a check failed, 66 not a map of that instance, 73 could not write, 75 locked, 76 changed meanwhile.
# shellcheck disable=SC3013 # every sh that Debian may have knows -nt, and POSIX has nothing that compares times
# shellcheck source=prologue.sh
. "${0%/*}/prologue.sh"
# shellcheck source=fence.sh
. "${0%/*}/fence.sh"

action=$1 config=$2 type=$3 file=$4
own=$config/mxfleet_senders
new=$file.mxfleet-new
tab=$(printf '\t')

fail() {
    status=$1
    shift
    echo "mxfleet: $*" >&2
    exit "$status"
}

# Run as root by sudo, this must not become a way to write any file: only maps that the instance checks senders with.
known() {
    case $config in /*) ;; *) return 1 ;; esac
    if [ "$config" != "$(postconf -h config_directory)" ]; then
        postconf -xh alternate_config_directories multi_instance_directories | tr ', ' '\n\n' | grep -qxF -- "$config" || return 1
    fi
    [ "$file" = "$own" ] && return 0
    {
        postconf -c "$config" -xh smtpd_sender_restrictions
        postconf -c "$config" -xP '*/*/smtpd_sender_restrictions' | sed 's/^[^=]*= *//'
    } | tr ', {}' '\n\n\n\n' | grep -qxF -- "$type:$file"
}

digest() {
    if [ -e "$file" ]; then sha256sum <"$file" | cut -d ' ' -f 1; else echo -; fi
}

state() {
    if [ ! -e "$file" ]; then
        echo absent
    elif [ -n "$suffix" ] && { [ ! -e "$map" ] || [ "$file" -nt "$map" ]; }; then
        echo stale
    else
        echo fits
    fi
}

verify() {
    [ -n "$checks" ] || return 0
    while IFS=$tab read -r key value; do
        got=$(postmap -c "$config" -q "$key" "$1")
        [ "$got" = "$value" ] || { echo "mxfleet: $1: $key gives '$got', expected '$value'" >&2; return 1; }
    done <<END
$checks
END
}

count() { postmap -c "$config" -s "$1" | wc -l; }

keep_five() {
    cp -p --preserve=all "$file" "$file.mxfleet-$(date -u +%Y%m%d%H%M%S)-$$" || return 1
    ls -1 "$file".mxfleet-[0-9]* | sort | head -n -5 | while IFS= read -r old; do rm -f "$old"; done
}

like_before() {
    [ ! -e "$file" ] || chown --reference="$file" "$new" || return 1
    [ -n "$suffix" ] && [ -e "$map" ] || return 0
    chown --reference="$map" "$new$suffix" && chmod --reference="$map" "$new$suffix"
}

put_back() {
    if [ -e "$new.oldmap" ]; then mv -f "$new.oldmap" "$map"; elif [ -n "$suffix" ]; then rm -f "$map"; fi
    if [ -e "$new.old" ]; then mv -f "$new.old" "$file"; else rm -f "$file"; fi
    tell_texthash
}

# DATABASE_README: a texthash is read once, when a process starts.
tell_texthash() { [ -n "$suffix" ] || [ "$file" = "$own" ] || postfix -c "$config" reload >/dev/null 2>&1 9>&- 6>&-; }

apply() {
    IFS= read -r planned && IFS= read -r number || fail 66 "no header on stdin"
    checks=
    while [ "$number" -gt 0 ] && IFS= read -r line; do
        checks=$checks${checks:+
}$line
        number=$((number - 1))
    done
    [ "$(digest)" = "$planned" ] || fail 76 "$file was changed meanwhile"
    [ "$(state)" != stale ] || fail 76 "$file is newer than its map"
    [ ! -e "$file" ] || cp -p --preserve=all "$file" "$new" || fail 73 "cannot write beside $file"
    cat >"$new" || fail 73 "cannot write $new"
    if [ -n "$suffix" ]; then
        # postmap gives up root for the owner of the source, who may not write in this directory.
        chown 0:0 "$new" && postmap -c "$config" "$type:$new" || fail 73 "cannot build the map beside $map"
        if [ -e "$map" ]; then
            gone=$(printf '%s\n' "$checks" | grep -c "$tab\$")
            [ "$(count "$type:$new")" -ge $(($(count "$type:$file") - gone)) ] || fail 65 "the new map lacks entries"
        fi
    fi
    verify "$type:$new" || fail 65 "the new map is not as it should be"
    like_before && sync "$new" ${suffix:+"$new$suffix"} || fail 73 "cannot write beside $file"
    swap
    verify "$type:$file" || { put_back; fail 65 "the live map is not as it should be; the old one is back"; }
    echo "applied $(digest)"
}

swap() {
    if [ -e "$file" ]; then
        keep_five && ln "$file" "$new.old" || fail 73 "cannot keep a copy of $file"
    fi
    if [ -n "$suffix" ] && [ -e "$map" ]; then ln "$map" "$new.oldmap" || fail 73 "cannot keep a copy of $map"; fi
    [ "$(digest)" = "$planned" ] || fail 76 "$file was changed meanwhile"
    [ -z "$suffix" ] || mv -f "$new$suffix" "$map" || fail 73 "cannot rename $new$suffix"
    mv -f "$new" "$file" || { put_back; fail 73 "cannot rename $new"; }
    sync "$(dirname "$file")"
    tell_texthash
}

remove_own() {
    [ "$file" = "$own" ] || fail 66 "$file is not ours"
    if postconf -c "$config" -n | grep -qF -- "$own" || grep -qF -- "$own" "$config/master.cf"; then
        fail 76 "$file is still referred to"
    fi
    rm -f "$file" "$map" "$file".mxfleet-[0-9]* && echo removed
}

case $type in
    hash | btree) suffix=.db ;;
    lmdb) suffix=.lmdb ;;
    cdb) suffix=.cdb ;;
    texthash) suffix= ;;
    *) fail 66 "maps of type $type are not edited" ;;
esac
map=$file$suffix
known || fail 66 "$type:$file is no map that $config checks senders with"
[ ! -L "$file" ] || fail 66 "$file is a symbolic link"

if [ "$action" = read ]; then
    echo "$(digest) $(state)"
    [ ! -e "$file" ] || cat "$file"
    exit
fi
if [ "$action" = query ]; then
    while IFS= read -r key; do
        value=$(postmap -c "$config" -q "$key" "$type:$file") && printf '%s\t%s\n' "$key" "$value"
    done
    echo end
    exit
fi
exec 9>/run/mxfleet-postfix.lock || fail 73 "cannot lock"
flock -w 20 9 || fail 75 "another change is running"
read_fence
check_fence
rm -f "$new" "$new".*
trap 'rm -f "$new" "$new".*' EXIT
trap 'exit 73' HUP INT TERM
case $action in
    apply) apply ;;
    remove) remove_own ;;
    *) fail 66 "unknown action $action" ;;
esac
