#!/bin/sh
# exim_bounce.sh EXIM SECONDS <"ID\nID..."
#
# exim -Mg for each message of the main queue, four at a time: Exim gives it up and tells its sender. Prints
# "cancelled ID" for each that Exim says it cancelled, and "end". After SECONDS no further one is begun.
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
# shellcheck disable=SC2016
timeout --foreground "$2" xargs -n 1 -P 4 sh -c 'exec "$0" -v -Mg "$2" >"$1/said.$2" 2>&1' "$1" "$work" \
    <"$work/ids" >/dev/null 2>&1 6>&-
while read -r id; do
    if [ -e "$work/said.$id" ] && grep -aq '^  cancelled by ' "$work/said.$id"; then echo "cancelled $id"; fi
done <"$work/ids"
echo end
