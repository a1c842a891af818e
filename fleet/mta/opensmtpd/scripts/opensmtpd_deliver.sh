#!/bin/sh
# opensmtpd_deliver.sh SMTPCTL SPOOL LOG SECONDS <message ID, then " release" when paused envelopes are resumed first
#
# One attempt for this message, now: smtpctl schedule, which would deliver paused envelopes too, so that these are left
# out unless they are released. Then waits, at most so long, until the attempt has ended: nothing
# is in flight, and the log tells of it or the message is gone. LOG: a file, journald, or none. Prints the log's lines
# about the message since then, and "end". Before each look 1 s passes: after a temporary failure a route may rest 30 s.
# Exit status 74: it broke off, and something may have been released or attempted.
# shellcheck source=prologue.sh
. "${0%/*}/prologue.sh"
# shellcheck source=fence.sh
. "${0%/*}/fence.sh"
# shellcheck source=log_since.sh
. "${0%/*}/log_since.sh"
smtpctl=$1
log=$3
seconds=$4
cd "$2/queue" || exit 66
read_fence
read -r id release || exit 64
case $id:$release in
*[!0-9a-f]*: | *[!0-9a-f]*:release) exit 64 ;;
????????: | ????????:release) ;;
*) exit 64 ;;
esac

mark_log

lines() {
    since_mark | grep -aE " evpid=${id}[0-9a-f]{8} "
}

state() { # inflight, pending or nothing
    "$smtpctl" show queue "$id" >"$queue" || exit
    grep -a "^$id" "$queue" | grep -qaE '\|inflight\|-?[0-9]+\|' && echo inflight && return
    ! grep -qa "^$id" "$queue" || echo pending
}

queue=$(mktemp) || exit 73
trap 'rm -f "$queue"' EXIT
trap 'exit 143' HUP INT TERM
check_fence
if [ "$release" = release ]; then
    "$smtpctl" resume envelope "$id" </dev/null >/dev/null || exit
    targets=$id
else
    "$smtpctl" show queue "$id" >"$queue" || exit
    targets=$(grep -a "^$id" "$queue" | awk -F '|' '("," $4 ",") !~ /,suspend,/ { print $1 }')
    [ "$(grep -ac "^$id" "$queue")" -ne "$(printf '%s\n' "$targets" | grep -c .)" ] || targets=$id
fi
for target in $targets; do "$smtpctl" schedule "$target" </dev/null >/dev/null || exit 74; done
waited=0
while [ "$waited" -lt "$seconds" ]; do
    sleep 1
    waited=$((waited + 1))
    now=$(state) || exit 74
    [ "$now" != inflight ] || continue
    if [ -z "$now" ] || { [ "$log" != none ] && lines | grep -qa ' result='; }; then
        sleep 1 # syslog may lag behind the queue
        break
    fi
done
lines
echo end
