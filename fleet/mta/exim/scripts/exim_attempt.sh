#!/bin/sh
# exim_attempt.sh EXIM SECONDS <"ID\nID..."
#
# An attempt now for each message of the main queue, eight at a time: a forced queue run from ID to ID (exim -qf ID ID),
# which passes over frozen ones. After SECONDS no further one is begun; those under way go on by themselves. Prints
# "begun ID" for each that Exim says it delivers and does not find locked or frozen, and "end".
# shellcheck disable=SC2154 # exim_each.sh sets work
# shellcheck source=prologue.sh
. "${0%/*}/prologue.sh"
# shellcheck source=fence.sh
. "${0%/*}/fence.sh"
# shellcheck source=exim_each.sh
. "${0%/*}/exim_each.sh"
# Each process writes to a file of its own: a pipe that ends would kill a delivery that goes on.
# shellcheck disable=SC2016
each_message "$1" "$2" 8 'exec "$0" -v -qf "$2" "$2" >"$1/said.$2" 2>&1'
while read -r id; do
    [ -e "$work/said.$id" ] || continue
    if grep -aq "^delivering $id" "$work/said.$id" &&
        [ "$(grep -acE '^  (Message is frozen|Spool file is locked)|is locked' "$work/said.$id")" = 0 ]; then
        echo "begun $id"
    fi
done <"$work/ids"
echo end
