#!/bin/sh
# postfix_attempt.sh POSTQUEUE CONFIG_DIRECTORY <queue IDs
#
# postqueue -i for each queue ID: one attempt now, of these messages only. Stops at the first that is refused.
# shellcheck source=prologue.sh
. "${0%/*}/prologue.sh"
# shellcheck source=fence.sh
. "${0%/*}/fence.sh"
read_fence
check_fence
while read -r id; do
    case $id in
    '' | *[!0-9A-Za-z]*) exit 64 ;;
    esac
    "$1" -c "$2" -i "$id" </dev/null || exit
done
