#!/bin/sh
# postfix_deliver.sh POSTQUEUE CONFIG_DIRECTORY QUEUE_DIRECTORY LOG SECONDS <queue ID
#
# One attempt for this message, now: postqueue -i. Then waits, at most so long, until the attempt has ended: the log says
# "removed", or the queue manager took the file and has put it back. LOG: a file, journald, or none. Prints the log's
# lines about the message since then, and "end".
# shellcheck source=prologue.sh
. "${0%/*}/prologue.sh"
# shellcheck source=fence.sh
. "${0%/*}/fence.sh"
# shellcheck source=log_since.sh
. "${0%/*}/log_since.sh"
postqueue=$1
config=$2
queue=$3
log=$4
seconds=$5
read_fence
read -r id || exit 64
case $id in
'' | *[!0-9A-Za-z]*) exit 64 ;;
esac

mark_log

lines() {
    since_mark | grep -aF "$id: "
}

is_under_way() {
    [ -n "$(find "$queue/incoming" "$queue/active" -name "$id" 2>/dev/null)" ]
}

has_begun() {
    [ "$log" = none ] || lines | grep -aqF '(queue active)'
}

check_fence
"$postqueue" -c "$config" -i "$id" </dev/null || exit
waited=0
sleep 1
while [ "$waited" -lt "$seconds" ]; do
    if [ "$log" != none ] && lines | grep -aq "[^0-9A-Za-z]$id: removed"; then break; fi
    if has_begun && ! is_under_way; then
        sleep 1 # syslog may lag behind the queue
        break
    fi
    sleep 1
    waited=$((waited + 1))
done
lines
echo end
