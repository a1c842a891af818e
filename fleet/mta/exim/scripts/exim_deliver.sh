#!/bin/sh
# exim_deliver.sh EXIM SECONDS <ID
#
# One attempt for this message of the main queue, now: exim -v -M, which also thaws it. Waits at most so long; an attempt
# that takes longer goes on by itself. Prints what Exim said so far (the SMTP dialogue, and "LOG: MAIN" before each line
# that it logged), then "ended" when the attempt is over, and "end".
# shellcheck source=prologue.sh
. "${0%/*}/prologue.sh"
# shellcheck source=fence.sh
. "${0%/*}/fence.sh"
case $2 in
'' | *[!0-9]*) exit 64 ;;
esac
read_fence
read -r id || exit 64
printf '%s\n' "$id" |
    grep -Eq '^[0-9A-Za-z]{6}-([0-9A-Za-z]{6}-[0-9A-Za-z]{2}|[0-9A-Za-z]{11}-[0-9A-Za-z]{4})$' || exit 64
[ -x "$1" ] || exit 127
work=$(mktemp -d) || exit 73
trap 'rm -rf "$work"' EXIT
trap 'exit 143' HUP INT TERM
check_fence
# A session of its own: the end of ours must not end a delivery in the middle.
# shellcheck disable=SC2016
setsid sh -c '"$0" -v -M "$1" </dev/null >"$2/said" 2>&1; : >"$2/ended"' "$1" "$id" "$work" >/dev/null 2>&1 6>&- &
waited=0
while [ ! -e "$work/ended" ] && [ "$waited" -lt "$2" ]; do
    sleep 0.5
    waited=$((waited + 1))
    [ "$waited" -lt 4 ] || sleep 0.5
done
cat "$work/said" 2>/dev/null
[ ! -e "$work/ended" ] || printf '\nended\n'
printf '\nend\n'
