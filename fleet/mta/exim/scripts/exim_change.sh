#!/bin/sh
# exim_change.sh EXIM FLAG <"ID\nID..."
#
# exim -Mf, -Mt or -Mrm for these messages of the main queue, many per process. Prints what Exim says of each, and "end".
# Exim locks a message before it changes it. Its exit status is 1 as soon as one message was not changed.
# shellcheck source=prologue.sh
. "${0%/*}/prologue.sh"
# shellcheck source=fence.sh
. "${0%/*}/fence.sh"
# shellcheck source=pipefail.sh
. "${0%/*}/pipefail.sh"
case $2 in
-Mf | -Mt | -Mrm) ;;
*) exit 64 ;;
esac
read_fence
ids=$(cat) || exit 74
[ "$(printf '%s\n' "$ids" | grep -Evc '^[0-9A-Za-z]{6}-([0-9A-Za-z]{6}-[0-9A-Za-z]{2}|[0-9A-Za-z]{11}-[0-9A-Za-z]{4})$')" = 0 ] ||
    exit 64
[ -x "$1" ] || exit 127
check_fence
# A part that was ended by a signal leaves what another part may do later.
printf '%s\n' "$ids" | sure uncut xargs -n 500 "$1" "$2" 2>&1
echo end
