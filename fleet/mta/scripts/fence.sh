# shellcheck shell=sh
# What every script that changes the host has in it: it is no step of a worker whose place a newer one has taken.
#
# A worker that stood still for a minute has lost its hold on the host without knowing it, and sends its command when it
# wakes up. So the first line of such a script's stdin is "fence N": the number of the hold under which the command was
# sent, microseconds since the epoch by the clock of the service's database, growing; 0 when none is known.
#
#   read_fence    takes that line, before anything else is read from stdin
#   check_fence   ends the script with 75 when this host has seen a higher number. Called after the script's own lock,
#                 where it has one, and before its first change; never in a subshell
#
# Guaranteed, for scripts with a number that run as root: when check_fence lets N pass, every script with a lower number
# has ended or will be refused, and none begins any more. Scripts with the same number run beside each other.
# /run/mxfleet-fence is the highest number seen. /run/mxfleet-fence.lock is locked shared, on descriptor 6, from the check
# to the script's end, and by itself alone while the number is raised, for which lower ones are waited for, 20 s at most.
#
# Not guaranteed: anything about 0, about an account that may not write in /run, and about commands that are no scripts.
# What a script leaves running on purpose closes descriptor 6: an attempt to deliver, a guardian (which has its script's
# own lock). After a restart of the host /run is empty, and the first number that comes is the highest. A mark that is no
# number, or is more than a day ahead of the host's clock, counts as none: no mark locks a host out for longer.

read_fence() {
    IFS= read -r fence || fence=
    case $fence in
    'fence '*) fence=${fence#fence } ;;
    *) fence= ;;
    esac
    case $fence in
    '' | *[!0-9]* | ???????????????????*)
        echo "mxfleet: no fence on stdin" >&2
        exit 64
        ;;
    esac
}

look_at_fence() { # sets fence_seen
    fence_seen=
    { IFS= read -r fence_seen </run/mxfleet-fence; } 2>/dev/null
    case $fence_seen in
    '' | *[!0-9]* | ???????????????????*) fence_seen=0 ;;
    esac
    [ "$fence_seen" -le "$fence" ] || [ "$fence_seen" -le "$(($(date +%s) + 86400))000000" ] || fence_seen=0
}

end_at_fence() { # WORD, and more: the service knows it by the word
    echo "mxfleet: fence: $1; nothing was changed by this command" >&2
    exit 75
}

raise_fence() {
    echo "$fence" >/run/mxfleet-fence.new && mv -f /run/mxfleet-fence.new /run/mxfleet-fence && return
    end_at_fence "unwritable, /run/mxfleet-fence cannot be written"
}

lock_fence() { # -s or -x; a change from one to the other lets go in between
    flock -w 20 "$1" 6 && return
    end_at_fence "busy, an older command still runs on this host"
}

check_fence() {
    [ "$fence" -gt 0 ] && [ -w /run ] || return 0
    # Who can open a file can lock it.
    (umask 077 && : >>/run/mxfleet-fence.lock)
    exec 6>>/run/mxfleet-fence.lock
    while :; do
        lock_fence -s
        look_at_fence
        [ "$fence_seen" -ne "$fence" ] || return 0
        [ "$fence_seen" -lt "$fence" ] || end_at_fence "overtaken, a newer worker has this host"
        lock_fence -x
        look_at_fence
        [ "$fence_seen" -ge "$fence" ] || raise_fence
    done
}
