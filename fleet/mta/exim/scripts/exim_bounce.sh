#!/bin/sh
# exim_bounce.sh EXIM SECONDS <"ID\nID..."
#
# exim -Mg for each message of the main queue, four at a time: Exim gives it up and tells its sender. Prints
# "cancelled ID" for each that Exim says it cancelled, and "end". After SECONDS no further one is begun.
# shellcheck disable=SC2154 # exim_each.sh sets work
# shellcheck source=prologue.sh
. "${0%/*}/prologue.sh"
# shellcheck source=fence.sh
. "${0%/*}/fence.sh"
# shellcheck source=exim_each.sh
. "${0%/*}/exim_each.sh"
# shellcheck disable=SC2016
each_message "$1" "$2" 4 'exec "$0" -v -Mg "$2" >"$1/said.$2" 2>&1'
while read -r id; do
    if [ -e "$work/said.$id" ] && grep -aq '^  cancelled by ' "$work/said.$id"; then echo "cancelled $id"; fi
done <"$work/ids"
echo end
