# shellcheck shell=sh
# shellcheck disable=SC2154 # variables of who takes it in
# How a change of a qmail queue ends, whoever ends it; needs qmail_move.sh, and $service, $svc and $svstat.
#
#   is_wanted_up STATUS   by svstat(8): "up (pid N) S seconds" or "down S seconds, ... want up"
#   note PHASE BEFORE     writes how far it is (stopped, acting), and whether qmail-send was up before
#   finish SECONDS        the one way out: puts right what was cut off, and starts qmail-send. False when the first
#                         could not be done, and then nothing is. What it cannot start keeps its state, for the next
#   recover SECONDS       finishes what nobody lived to finish, the job lock being ours; true when there is nothing
is_wanted_up() {
    case $1 in
    *": up "*"want down"*) return 1 ;;
    *": up "*) return 0 ;;
    *": down "*"want up"*) return 0 ;;
    esac
    return 1
}

start() { # SECONDS; supervise takes a moment to hear it
    waited=0
    "$svc" -u "$service"
    until is_wanted_up "$("$svstat" "$service" 2>&1)"; do
        [ "$waited" -lt "${1}0" ] || return 1
        sleep 0.1
        "$svc" -u "$service"
        waited=$((waited + 1))
    done
}

note() { # by one write over what is there, never by way of an empty file, which would say "all is well"
    printf '%s %s\n' "$1" "$2" 1<>"$state.state"
}

finish() {
    read -r phase before <"$state.state"
    [ "$phase" != acting ] || { repair && note stopped "$before"; } || return
    exec 8>&- 7>&-
    if [ "$before" != up ] || start "$1"; then : >"$state.state"; fi
}

recover() {
    [ -s "$state.state" ] || return 0
    read -r phase before <"$state.state"
    if [ "$phase" = acting ]; then
        exec 7>>"$state.acting" 8<lock/sendmutex
        flock -w "$1" 7
        [ $? -le 1 ] || return
        flock -w "$1" 8
        case $? in
        0) ;;
        1) note stopped "$before" ;; # a qmail-send runs
        *) return 1 ;;
        esac
    fi
    finish "$1"
}
