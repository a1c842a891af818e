#!/bin/sh
# qmail_change.sh ACTION QUEUE SERVICE SVC SVSTAT LOG SECONDS <"JOB\nID SIZE MTIME SENDER\n...end\n"
#
# Changes messages while qmail-send is down, and starts it again. ACTION is one of
#   delete  removes them          hold  moves them to mxfleet-hold/       quarantine  to mxfleet-quarantine/JOB/
#   release, restore  move them back from there, restore-try also makes them due, restore-held to mxfleet-hold/
#   try     makes them due at once          bounce  makes them due and older than queuelifetime
# and, without a stop: erase removes them from mxfleet-quarantine/JOB/, look only tells what lies there ("ID there").
# SENDER: the bytes of the envelope sender, a newline as \001. MTIME: that of the file in mess/, with six decimals.
#
# LOG: a multilog directory, a file or none.
#
# Says "was up" or "was down", "ID done", "ID gone" (no such message now) or "ID left WHY" for each, "stopping" when a
# delivery kept qmail-send from stopping within SECONDS (nothing was changed then), "log INODE SIZE" as it was while
# qmail-send was down, "settled" when it first put right what nobody had lived to finish, "guardian session" (below),
# "now STATUS" and "end". All of it is said when qmail-send runs again, so no reader can delay that.
#
# What makes this safe however it ends:
# - While files move, lock/sendmutex is ours, inherited by every child: no qmail-send can run, whoever starts it.
# - A guardian in a session of its own, and where systemd runs in a scope of its own, waits for the job lock, which is
#   free only when this shell and all its children are gone; it puts right what was cut off and starts qmail-send. Only
#   then is the state file emptied. "guardian session": systemd-run gave it no scope within 2 s, so that systemd may end
#   it with the session (KillUserProcesses in logind.conf).
# - Where the guardian was killed too, the job lock is free and the state file is not empty: whoever comes next, also to
#   look only, does its work. qmail_list.sh tells that it is so.
# - A message moves by rename(2), in an order that lets where mess/ID lies tell where the rest belongs (qmail_move.sh).
#   After a reboot qmail-send runs beside what was cut off then, until the next change puts it right.
# - A part of it that a signal ends, or fails without a word that we know, ends the script with 70 before its next
#   step. What was cut off by that goes back first, and qmail-send is started; what had been done by then is not told.
# shellcheck source=prologue.sh
. "${0%/*}/prologue.sh"
state=
# shellcheck source=fence.sh
. "${0%/*}/fence.sh"
trap '' HUP INT PIPE

# What the guardian, a shell of its own, has too.
common=$(
    cat <<'COMMON'
# shellcheck source=pipe.sh
. "${0%/*}/pipe.sh"
# shellcheck source=qmail_queue.sh
. "${0%/*}/qmail_queue.sh"
# shellcheck source=qmail_move.sh
. "${0%/*}/qmail_move.sh"
# shellcheck source=qmail_finish.sh
. "${0%/*}/qmail_finish.sh"
# end
COMMON
) || exit
# shellcheck source=qmail_choose.sh
. "${0%/*}/qmail_choose.sh"
# shellcheck source=qmail_act.sh
. "${0%/*}/qmail_act.sh"

# What cannot be put right in five tries stays as it is, and mail flows again: no half of a message is ever attempted.
# shellcheck disable=SC2016 # the guardian's shell expands
guardian='
queue=$1 service=$2 svc=$3 svstat=$4
enter "$queue" || exit
echo ready || exit
exec >/dev/null 9>>"$state.lock"
until flock 9; do sleep 1; done
for try in 1 2 3 4 5; do
    ! recover 60 || exit
    sleep 1
done
note stopped "$before"
finish 60
'

fail() {
    echo "qmail_change: $2" >&2
    exit "$1"
}

cut_off() { fail 70 "a part of it was ended by a signal, or failed"; }

tell_wanted() {
    printf '%s\n' "$wanted_lines"
}

ids_of() { # false when the messages are cut off, or one of them is none
    awk '
        has_ended || !/^([1-9][0-9]* [0-9]+ [0-9]*\.[0-9]* |end$)/ { is_bad = 1 }
        $0 == "end" { has_ended = 1; next }
        { print $1 }
        END { exit is_bad || !has_ended }'
}

stop() { # waits until qmail-send is down and its lock ours
    [ "$was" = down ] || "$svc" -d "$service"
    until [ "$(date +%s)" -ge "$((began + seconds))" ]; do
        case $("$svstat" "$service") in
        *": down "*) flock -n 8 && return 0 ;;
        *"want down"*) ;;
        *) [ "$was" = down ] || "$svc" -d "$service" ;; # it was ended before it could say so
        esac
        sleep 0.1
    done
    return 1
}

guard() { # SECONDS WORDS...: starts a guardian by these words; one that is ready later than that goes away again
    limit=$1
    shift
    ready=$(
        {
            setsid "$@" /bin/sh -c "$common
$guardian" "${0%qmail_change.sh}qmail-guardian" "$queue" "$service" "$svc" "$svstat" \
                </dev/null 2>/dev/null 6>&- 7>&- 8>&- 9>&- &
        } | timeout "$limit" head -n 1
    )
    [ "$ready" = ready ]
}

take_job() { # SECONDS: the job lock, which a change holds from its beginning until qmail-send runs again
    exec 9>>"$state.lock" || fail 73 "cannot open $state.lock"
    flock -w "$1" 9 || fail 75 "another change is going on"
}

settle() { # says so when there was something to put right, and it is
    [ -s "$state.state" ] || return 0
    recover 10
    [ -s "$state.state" ] || echo settled
}

look() {
    if [ -d "mxfleet-quarantine/$job/mess" ]; then
        find "mxfleet-quarantine/$job/mess" -type f -name '[1-9]*' -printf '%f there\n'
    fi
}

log_mark() {
    file=$log
    [ ! -d "$log" ] || file=$log/current
    [ "$log" = none ] || [ ! -e "$file" ] || stat -c 'log %i %s' "$file"
}

tell_status() { # waits a little for qmail-send to be up
    waited=0
    while [ "$waited" -lt 50 ]; do
        status=$("$svstat" "$service" 2>&1)
        case $was$status in
        down* | *": up "*) break ;;
        esac
        sleep 0.1
        waited=$((waited + 1))
    done
    echo "now $status"
}

[ $# -eq 7 ] || fail 64 "seven arguments are needed"
case $common in
*'# end') eval "$common" ;;
*) cut_off ;;
esac
action=$1
queue=$2
service=$3
svc=$4
svstat=$5
log=$6
seconds=$7
case $action in
delete | hold | quarantine | release | restore | restore-try | restore-held | try | bounce | erase | look) ;;
*) fail 64 "no such action" ;;
esac
case $seconds in
'' | *[!0-9]*) fail 64 "bad seconds" ;;
esac
[ "$action" = look ] || read_fence
read -r job || fail 64 "no job"
case $job in
'' | *[!0-9A-Za-z-]*) fail 64 "bad job" ;;
esac
wanted_lines=$(cat) || fail 74 "the messages cannot be read"
# shellcheck disable=SC2034 # its parts work on them
ids=$(both tell_wanted ids_of) || fail 64 "the messages were cut off, or one of them is none"
wanted_lines=${wanted_lines%end}
wanted_lines=${wanted_lines%?}
enter "$queue" || fail 66 "no qmail queue in $queue"
[ -f lock/sendmutex ] || fail 66 "no lock/sendmutex in $queue"
if [ "$action" = look ]; then
    take_job "$seconds"
    settle
    look || fail 74 "the quarantine cannot be read"
    echo "now $("$svstat" "$service" 2>&1)"
    echo end
    exit
fi

take_job 20
check_fence
for area in mxfleet-hold mxfleet-delete mxfleet-quarantine "mxfleet-quarantine/$job"; do
    { [ ! -e "$area" ] && [ ! -L "$area" ]; } || is_ours "$area" || fail 77 "$area is not ours"
done
if [ "$action" = erase ]; then
    settle
    erase || cut_off
    echo end
    exit
fi
status=$("$svstat" "$service" 2>&1)
case $status in
*": up "* | *": down "*) ;;
*) fail 69 "$status" ;;
esac
was=down
if is_wanted_up "$status"; then was=up; fi
# A state that nobody cleared: neither the shell that wrote it nor its guardian has lived. It knows what was before.
phase=
before=
[ ! -s "$state.state" ] || read -r phase before <"$state.state"
[ -z "$before" ] || was=$before
exec 8<lock/sendmutex 7>>"$state.acting"
note "${phase:-stopped}" "$was" || fail 73 "cannot write $state.state"
guardian_in=
if [ -d /run/systemd/system ]; then
    if guard 2 systemd-run --scope --quiet; then guardian_in=scope; else guardian_in=session; fi
fi
if [ "$guardian_in" != scope ] && ! guard 20; then
    [ -n "$phase" ] || : >"$state.state"
    fail 73 "no guardian could be started"
fi
settled=${phase:+settled}
began=$(date +%s) || cut_off
verdicts=stopping
mark=
is_cut=
if stop; then
    flock -w 15 7 || fail 75 "somebody reads the queue for too long"
    { verdicts=$(act) && mark=$(log_mark); } || is_cut=1
else
    note stopped "$was"
fi
finish 20 || cut_off
[ -z "$is_cut" ] || cut_off
sync -f . 2>/dev/null || sync || cut_off
echo "was $was"
lines "$verdicts"
lines "$mark"
lines "$settled"
[ "$guardian_in" != session ] || echo "guardian session"
tell_status
echo end
