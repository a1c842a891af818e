#!/bin/sh
# exim_attempt.sh EXIM SECONDS <"ID\nID..."
#
# An attempt now for each message of the main queue, eight at a time: a forced queue run from ID to ID (exim -qf ID ID),
# which passes over frozen ones. After SECONDS no further one is begun; those under way go on by themselves. Prints
# "begun ID" for each that Exim says it delivers and does not find locked or frozen, and "end".
# shellcheck source=prologue.sh
. "${0%/*}/prologue.sh"
# shellcheck source=fence.sh
. "${0%/*}/fence.sh"
case $2 in
'' | *[!0-9]*) exit 64 ;;
esac
work=$(mktemp -d) || exit 73
trap 'rm -rf "$work"' EXIT
trap 'exit 143' HUP INT TERM
read_fence
cat >"$work/ids" || exit 74
[ "$(grep -Evc '^[0-9A-Za-z]{6}-([0-9A-Za-z]{6}-[0-9A-Za-z]{2}|[0-9A-Za-z]{11}-[0-9A-Za-z]{4})$' "$work/ids")" = 0 ] || exit 64
[ -x "$1" ] || exit 127
check_fence
# Each process writes to a file of its own: a pipe that ends would kill a delivery that goes on.
# shellcheck disable=SC2016
timeout --foreground "$2" xargs -n 1 -P 8 sh -c 'exec "$0" -v -qf "$2" "$2" >"$1/said.$2" 2>&1' "$1" "$work" \
    <"$work/ids" >/dev/null 2>&1 6>&-
while read -r id; do
    [ -e "$work/said.$id" ] || continue
    if grep -aq "^delivering $id" "$work/said.$id" &&
        [ "$(grep -acE '^  (Message is frozen|Spool file is locked)|is locked' "$work/said.$id")" = 0 ]; then
        echo "begun $id"
    fi
done <"$work/ids"
echo end
