#!/bin/sh
# exim_quarantine.sh ACTION EXIM SPOOL_DIRECTORY <"JOB\nID\nID..."
#
# The quarantine is Exim's named queue mxfleet-JOB. ACTION out: moves messages there (exim -MG), back: into the main queue,
# erase: removes them from it (exim -Mrm). Exim locks each message, links its files in the other queue, -H last, and then
# removes the old names; so a message is always whole in one of both. Killed between those steps it is in both, or the
# old queue keeps a -D file alone: run again, this first takes away the half that is not needed. Prints what Exim says,
# and "end".
set -u
LC_ALL=C
export LC_ALL
action=$1
exim=$2
read -r job || exit 64
case $job in
'' | *[!0-9A-Za-z-]*) exit 64 ;;
esac
queue=mxfleet-$job
ids=$(cat) || exit 74
[ -n "$ids" ] || ids=none
! printf '%s\n' "$ids" | grep -Eqv '^([0-9A-Za-z]{6}-([0-9A-Za-z]{6}-[0-9A-Za-z]{2}|[0-9A-Za-z]{11}-[0-9A-Za-z]{4})|none)$' ||
    exit 64
cd "$3" || exit 66
[ -x "$exim" ] || exit 127

at() { # QUEUE KIND ID SUFFIX: the path in that queue's flat or split directory, or nothing
    for path in "$1$2/$3$4" "$1$2/$(printf %s "$3" | cut -c 6)/$3$4"; do
        if [ -f "$path" ]; then
            printf '%s\n' "$path"
            return 0
        fi
    done
    return 1
}

drop() { # QUEUE ID: -H first, it is what makes a message
    for part in input:-H input:-D msglog:; do
        if path=$(at "$1" "${part%%:*}" "$2" "${part#*:}"); then rm -f "$path"; fi
    done
}

tidy() { # FROM TO ID: what a move that was cut off has left
    to_data=$(at "$2" input "$3" -D) || return 0
    from_data=$(at "$1" input "$3" -D) || return 0
    [ "$(stat -c %i "$to_data")" = "$(stat -c %i "$from_data")" ] || return 0
    if ! at "$1" input "$3" -H >/dev/null; then
        at "$2" input "$3" -H >/dev/null && drop "$1" "$3"
    elif [ -z "$1" ] || ! at "$2" input "$3" -H >/dev/null; then
        drop "$2" "$3"
    else
        drop "$1" "$3" # back in the main queue, and perhaps being delivered there
    fi
}

# Only what lies in both queues needs a look, and only after a cut-off.
both() {
    [ ! -d "$queue" ] || find input "$queue/input" -ignore_readdir_race -type f -name '*-D' -printf '%f\n' |
        sed 's/-D$//' | sort | uniq -d
}

empty() {
    [ ! -d "$queue" ] || find "$queue" -depth -type d -empty -delete 2>/dev/null
}

case $action in
out) both | while read -r id; do tidy '' "$queue/" "$id"; done ;;
back | erase) both | while read -r id; do tidy "$queue/" '' "$id"; done ;;
*) exit 64 ;;
esac
[ "$ids" = none ] || case $action in
out) printf '%s\n' "$ids" | xargs -n 500 "$exim" -MG "$queue" 2>&1 ;;
back) printf '%s\n' "$ids" | xargs -n 500 "$exim" "-qG$queue" -MG '' 2>&1 ;;
erase) printf '%s\n' "$ids" | xargs -n 500 "$exim" "-qG$queue" -Mrm 2>&1 ;;
esac
empty
echo
echo end
