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
# What a run left that was cut off is put right first, also by read.
#
# Exit status: 65 smtpd does not take the configuration, 66 not ours to change, 70 a part of this failed, 73 could not
# write, 74 what is left cannot be put right, 75 locked or in the way, 76 changed meanwhile.
# shellcheck source=prologue.sh
. "${0%/*}/prologue.sh"
# shellcheck source=fence.sh
. "${0%/*}/fence.sh"
# shellcheck source=enter.sh
. "${0%/*}/enter.sh"
# shellcheck source=exchange.sh
. "${0%/*}/exchange.sh"
# shellcheck source=place.sh
. "${0%/*}/place.sh"
smtpd=$2
config=$3
# shellcheck disable=SC2034 # place.sh names it
file=$config
name=${config##*/}

fail() {
    status=$1
    shift
    echo "mxfleet: $*" >&2
    exit "$status"
}

case $config in /*/../* | */.. | *[!A-Za-z0-9/._@+-]*) fail 66 "not a configuration: $config" ;; /*smtpd.conf) ;; *) fail 66 "not a configuration: $config" ;; esac
[ -f "$config" ] && [ ! -L "$config" ] && is_rootly "$config" || fail 66 "$config is not root's own file"
case ${smtpd##*/} in smtpd) ;; *) fail 66 "not smtpd: $smtpd" ;; esac
is_rootly "$smtpd" || fail 66 "$smtpd is not root's own file"
list=${config%/*}/mxfleet_senders

ours="# BEGIN mxfleet
table mxfleet_senders file:$list
match from any mail-from <mxfleet_senders> for any reject
# END mxfleet"

parent() { # the pid of smtpd's first process
    { ps -eo pid=,ppid=,comm= && echo whole; } | awk '
        $3 == "smtpd" { is[$1] = $2 }
        END { for (pid in is) if (!(is[pid] in is)) print pid; exit $0 != "whole" }'
}

paused() { # how many envelopes are
    { smtpctl show queue && echo whole; } | awk -F '|' '
        $4 ~ /(^|[^a-z])suspend([^a-z]|$)/ { count++ }
        END { print count + 0; exit $0 != "whole" }'
}

go_to_file "$config"
case $1 in
read)
    put_right opensmtpd-wire
    seen=$(digest) || fail 70 "cannot read $config"
    echo "$seen"
    content
    exit
    ;;
wire | unwire) ;;
*) fail 66 "unknown action $1" ;;
esac

take_lock opensmtpd-wire
read_fence
check_fence
put_right opensmtpd-wire
read -r planned line || fail 66 "no header on stdin"
case $line in '' | *[!0-9]*) fail 66 "bad line" ;; esac
open_work
take_planned "$planned" ''
[ -e was ] && cp -p --preserve=all was new || fail 73 "cannot write beside $config"
if [ "$1" = wire ]; then
    [ -e "$list" ] || fail 66 "$list is not there yet"
    asks awk -v at="$line" 'NR == at + 0 && /^[ \t]*match[ \t]/ { found = 1 } END { exit !found }' was ||
        fail 66 "line $line is no rule"
    { head -n "$((line - 1))" was && printf '%s\n' "$ours" && tail -n "+$line" was; } >new ||
        fail 73 "cannot write beside $config"
else
    first=$(awk '$0 == "# BEGIN mxfleet" { print NR; exit }' was) || fail 70 "cannot read $config"
    [ -n "$first" ] && [ "$(sed -n "$first,$((first + 3))p" was)" = "$ours" ] ||
        fail 66 "our lines are not as we wrote them"
    sed "$first,$((first + 3))d" was >new || fail 73 "cannot write beside $config"
fi
said=$("$smtpd" -n -f new 2>&1) || fail 65 "smtpd does not take the configuration: $said"
wanted=$(sum new) || fail 70 "cannot read the new configuration"
mark ''

running=$(parent) || fail 70 "the processes cannot be listed"
case $running in
'') fail 75 "smtpd is not running" ;;
*[!0-9]*) fail 75 "more than one smtpd is running" ;;
esac
status=$(smtpctl show status) && paused=$(paused) || fail 75 "smtpd does not say what is paused"
case $status in *[Pp]aused* | *PAUSED*) fail 75 "smtpd is paused in part, and a restart would end that" ;; esac
[ "$paused" -eq 0 ] || fail 75 "$paused envelopes are paused, and a restart would release them"
unit=
if [ "$(ps -p 1 -o comm=)" = systemd ]; then
    unit=$(systemctl status "$running" 2>/dev/null | sed -n '1s/^[^a-zA-Z]*\([a-zA-Z@._-]*\.service\).*/\1/p')
    [ -n "$unit" ] || fail 75 "systemd does not know the running smtpd"
fi

# What it includes is put in here where the script travels, and read beside it where it is installed.
restarting=$(
    cat <<'RESTARTING'
# shellcheck source=enter.sh
. "${0%/*}/enter.sh"
# shellcheck source=exchange.sh
. "${0%/*}/exchange.sh"
# shellcheck source=place.sh
. "${0%/*}/place.sh"
fail() {
    echo "mxfleet: $2" >&2
    exit "$1"
}
parent() {
    { ps -eo pid=,ppid=,comm= && echo whole; } | awk '
        $3 == "smtpd" { is[$1] = $2 }
        END { for (pid in is) if (!(is[pid] in is)) print pid; exit $0 != "whole" }'
}
wait_for() { # TRIES COMMAND...
    tries=$1
    shift
    while ! "$@" >/dev/null 2>&1; do
        [ "$tries" -gt 0 ] || return 1
        tries=$((tries - 1))
        sleep 0.2
    done
}
is_down() { pid=$(parent) && [ -z "$pid" ]; }
is_up() { pid=$(parent) && [ -n "$pid" ] && smtpctl show status; }
restart() { # the same command line again
    if [ -n "$unit" ]; then
        systemctl restart "$unit" 9>&- 6>&-
    else
        pid=$(parent) || return
        if [ -n "$pid" ]; then
            kill -TERM "$pid"
            wait_for 100 is_down || return 1
        fi
        tr '\0' '\n' <cmdline >words
        set --
        while IFS= read -r word; do set -- "$@" "$word"; done <words
        shift
        (cd / && umask 022 && trap - HUP INT TERM && exec "$smtpd" "$@" 9>&- 6>&-) # which would keep the locks
    fi
    wait_for 50 is_up && sleep 1 && is_up
}
work=$in
trap close_work EXIT
find_exchange
swap ''
restart && exit
take_back ''
if restart; then told="$told, and smtpd runs"; else told="$told, and smtpd does not run"; fi
fail 65 "smtpd did not come up with the new configuration; $told: $(tail -n 3 "$log")"
RESTARTING
)
cp "/proc/$running/cmdline" cmdline || fail 73 "cannot read the command line of smtpd"
log=$(mktemp) || fail 73 "no temporary file"
in=$work
work= # it is the other's from here on
smtpd=$smtpd file=$file name=$name in=$in log=$log unit=$unit setsid sh -c "$restarting" "$0" </dev/null >"$log" 2>&1 &
cd /
wait $!
status=$?
[ "$status" -eq 0 ] || cat "$log" >&2
rm -f "$log"
[ "$status" -eq 0 ] || exit "$status"
echo "applied $wanted"
