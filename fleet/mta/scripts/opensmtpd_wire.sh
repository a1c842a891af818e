#!/bin/sh
# Makes smtpd refuse the senders of mxfleet_senders, a table beside its configuration, or takes that back.
#
#   opensmtpd_wire.sh read   SMTPD CONFIG   stdout: "SHA256", and then the configuration
#   opensmtpd_wire.sh wire   SMTPD CONFIG   stdin: "SHA256 LINE": puts our four lines before that line, the first rule
#   opensmtpd_wire.sh unwire SMTPD CONFIG   stdin: "SHA256 0": takes exactly these four lines out
#
# The new configuration is checked by `smtpd -n`, renamed into place, and smtpd is started anew, which is the only way for
# it to read one: it forgets what is paused then, so nothing may be. When it does not come up again, the old configuration
# is put back and smtpd started with that. From the rename on a process of its own does this, whatever ends the caller.
#
# Exit status: 65 smtpd does not take the configuration, 66 not ours to change, 73 could not write, 75 locked or in the
# way, 76 changed meanwhile.
# shellcheck source=prologue.sh
. "${0%/*}/prologue.sh"
# shellcheck source=fence.sh
. "${0%/*}/fence.sh"
smtpd=$2
config=$3

fail() {
    status=$1
    shift
    echo "mxfleet: $*" >&2
    exit "$status"
}

case $config in /*/../* | */.. | *[!A-Za-z0-9/._@+-]*) fail 66 "not a configuration: $config" ;; /*smtpd.conf) ;; *) fail 66 "not a configuration: $config" ;; esac
[ -f "$config" ] && [ ! -L "$config" ] && [ -n "$(find "$config" -prune -user root ! -perm /022)" ] ||
    fail 66 "$config is not root's own file"
case ${smtpd##*/} in smtpd) ;; *) fail 66 "not smtpd: $smtpd" ;; esac
[ -n "$(find -H "$smtpd" -prune -user root ! -perm /022)" ] || fail 66 "$smtpd is not root's own file"
list=${config%/*}/mxfleet_senders

digest() { sha256sum <"$config" | cut -d ' ' -f 1; }

ours() {
    cat <<END
# BEGIN mxfleet
table mxfleet_senders file:$list
match from any mail-from <mxfleet_senders> for any reject
# END mxfleet
END
}

parent() { # the pid of smtpd's first process
    ps -eo pid=,ppid=,comm= | awk '$3 == "smtpd" { is[$1] = $2 } END { for (pid in is) if (!(is[pid] in is)) print pid }'
}

case $1 in
read)
    digest
    cat "$config"
    exit
    ;;
wire | unwire) ;;
*) fail 66 "unknown action $1" ;;
esac

exec 9>/run/mxfleet-opensmtpd-wire.lock || fail 73 "cannot lock"
flock -w 20 9 || fail 75 "another change is running"
read_fence
check_fence
read -r planned line || fail 66 "no header on stdin"
case $line in '' | *[!0-9]*) fail 66 "bad line" ;; esac
[ "$(digest)" = "$planned" ] || fail 76 "$config was changed meanwhile"
new=$config.mxfleet-new
trap 'rm -f "$new"' EXIT
trap 'exit 73' HUP INT TERM
cp -p "$config" "$new" || fail 73 "cannot write beside $config"
if [ "$1" = wire ]; then
    [ -e "$list" ] || fail 66 "$list is not there yet"
    sed -n "${line}p" "$config" | grep -q '^[[:space:]]*match[[:space:]]' || fail 66 "line $line is no rule"
    { head -n "$((line - 1))" "$config" && ours && tail -n "+$line" "$config"; } >"$new" || fail 73 "cannot write $new"
else
    first=$(grep -nxF '# BEGIN mxfleet' "$config" | head -n 1 | cut -d : -f 1)
    [ -n "$first" ] && [ "$(sed -n "$first,$((first + 3))p" "$config")" = "$(ours)" ] || fail 66 "our lines are not as we wrote them"
    sed "$first,$((first + 3))d" "$config" >"$new" || fail 73 "cannot write $new"
fi
sync "$new" || fail 73 "cannot write $new"
said=$("$smtpd" -n -f "$new" 2>&1) || fail 65 "smtpd does not take the configuration: $said"

running=$(parent)
case $running in
'') fail 75 "smtpd is not running" ;;
*[!0-9]*) fail 75 "more than one smtpd is running" ;;
esac
smtpctl show status | grep -qi paused && fail 75 "smtpd is paused in part, and a restart would end that"
paused=$(smtpctl show queue | cut -d '|' -f 4 | grep -cw suspend)
[ "$paused" -eq 0 ] || fail 75 "$paused envelopes are paused, and a restart would release them"
unit=
if [ "$(ps -p 1 -o comm=)" = systemd ]; then
    unit=$(systemctl status "$running" 2>/dev/null | sed -n '1s/^[^a-zA-Z]*\([a-zA-Z@._-]*\.service\).*/\1/p')
    [ -n "$unit" ] || fail 75 "systemd does not know the running smtpd"
fi

# shellcheck disable=SC2016
swap='
    parent() { ps -eo pid=,ppid=,comm= | awk '\''$3 == "smtpd" { is[$1] = $2 } END { for (pid in is) if (!(is[pid] in is)) print pid }'\''; }
    wait_for() { # TRIES COMMAND...
        tries=$1
        shift
        while ! "$@" >/dev/null 2>&1; do
            [ "$tries" -gt 0 ] || return 1
            tries=$((tries - 1))
            sleep 0.2
        done
    }
    is_down() { [ -z "$(parent)" ]; }
    is_up() { [ -n "$(parent)" ] && smtpctl show status; }
    restart() { # the same command line again
        if [ -n "$unit" ]; then
            systemctl restart "$unit" 9>&- 6>&-
        else
            pid=$(parent)
            if [ -n "$pid" ]; then
                kill -TERM "$pid"
                wait_for 100 is_down || return 1
            fi
            tr "\0" "\n" <"$work/cmdline" >"$work/words"
            set --
            while IFS= read -r word; do set -- "$@" "$word"; done <"$work/words"
            shift
            "$smtpd" "$@" 9>&- 6>&- # which would keep the locks
        fi
        wait_for 50 is_up && sleep 1 && is_up
    }
    cp -p "$config" "$work/old" || exit 73
    mv -f "$new" "$config" || exit 73
    sync "$config"
    if restart; then
        echo applied >"$work/result"
        exit
    fi
    cp -p "$work/old" "$config.mxfleet-old" && mv -f "$config.mxfleet-old" "$config"
    restart
    echo failed >"$work/result"
'
work=$(mktemp -d) || fail 73 "no temporary directory"
cp "/proc/$running/cmdline" "$work/cmdline" || fail 73 "cannot read the command line of smtpd"
# shellcheck disable=SC2016
ls -1 "$config".mxfleet-[0-9]* 2>/dev/null | sort | head -n -4 | while IFS= read -r old; do rm -f "$old"; done
cp -p "$config" "$config.mxfleet-$(date -u +%Y%m%d%H%M%S)-$$" || fail 73 "cannot keep a copy of $config"
trap - EXIT
smtpd=$smtpd config=$config new=$new work=$work unit=$unit setsid sh -c "$swap" </dev/null >"$work/log" 2>&1 &
wait $!
result=$(cat "$work/result" 2>/dev/null)
said=$(tail -n 3 "$work/log")
rm -rf "$work"
[ "$result" = applied ] || fail 65 "smtpd did not come up with the new configuration; the old one is back: $said"
echo "applied $(digest)"
