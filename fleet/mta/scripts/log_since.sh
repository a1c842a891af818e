# shellcheck shell=sh
# shellcheck disable=SC2154 # $log is the script's: a file, journald, or none
#
#   mark_log    remembers where the log ends
#   since_mark  what was written to it since then

mark_log() {
    case $log in
    journald) mark=$(journalctl -q --no-pager -n 1 --show-cursor | sed -n 's/^-- cursor: //p') ;;
    /*) mark=$(wc -c <"$log") || exit ;;
    esac
}

since_mark() {
    case $log in
    journald) journalctl -q --no-pager -o short-iso --after-cursor="$mark" ;;
    /*)
        # A log that became shorter was rotated: all of the new file is later than the mark.
        [ "$(wc -c <"$log")" -ge "$mark" ] || mark=0
        tail -c "+$((mark + 1))" "$log"
        ;;
    esac
}
