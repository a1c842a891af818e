#!/bin/sh
# exim_quarantine.sh ACTION EXIM SPOOL_DIRECTORY <"JOB\nID\nID..."
#
# The quarantine is Exim's named queue mxfleet-JOB; JOB has at most 24 characters, because Exim (4.98.2) takes nothing out
# of a queue with a name longer than 32. ACTION out: moves messages there (exim -MG), back: into the main queue,
# erase: removes them from it (exim -Mrm). Exim locks each message, links its files in the other queue, -H last, and then
# removes the old names; so a message is always whole in one of both. Killed between those steps it is in both, or the
# old queue keeps a -D file alone: run again, this first takes away the half that is not needed. Prints what Exim says,
# and "end".
# shellcheck source=prologue.sh
. "${0%/*}/prologue.sh"
# shellcheck source=fence.sh
. "${0%/*}/fence.sh"
# shellcheck source=pipefail.sh
. "${0%/*}/pipefail.sh"
action=$1
exim=$2
read_fence
read -r job || exit 64
case $job in
'' | *[!0-9A-Za-z-]*) exit 64 ;;
esac
[ "${#job}" -le 24 ] || exit 64
queue=mxfleet-$job
ids=$(cat) || exit 74
[ -n "$ids" ] || ids=none
form='^([0-9A-Za-z]{6}-([0-9A-Za-z]{6}-[0-9A-Za-z]{2}|[0-9A-Za-z]{11}-[0-9A-Za-z]{4})|none)$'
[ "$(printf '%s\n' "$ids" | grep -Evc "$form")" = 0 ] || exit 64
cd "$3" || exit 66
[ -x "$exim" ] || exit 127

at() { # QUEUE KIND ID SUFFIX: the path in that queue's flat or split directory, or nothing
    split=${3#?????}
    for path in "$1$2/$3$4" "$1$2/${split%"${split#?}"}/$3$4"; do
        if [ -f "$path" ]; then
            printf '%s\n' "$path"
            return 0
        fi
    done
    return 1
}

is_shared() { # KIND ID SUFFIX: one file with a name in either queue
    # shellcheck disable=SC3013  # dash, bash, ksh and busybox have -ef
    in_main=$(at '' "$1" "$2" "$3") && in_quarantine=$(at "$queue/" "$1" "$2" "$3") && [ "$in_main" -ef "$in_quarantine" ]
}

drop() { # QUEUE KIND NAME: in its flat or split directory; find follows no link that Exim's account puts anywhere there
    top=${1%/}
    sure search "./${top:-$2}" -maxdepth 3 -type f -path "./$1$2/*" -name "$3" -delete
}

drop_from_quarantine() { # ID: -H first, it is what makes a message
    for part in input:-H input:-D msglog:; do drop "$queue/" "${part%%:*}" "$1${part#*:}" || return; done
}

drop_from_main() { # ID without -H there: names that the quarantine has too
    for part in input:-D msglog:; do
        if is_shared "${part%%:*}" "$1" "${part#*:}"; then drop '' "${part%%:*}" "$1${part#*:}" || return; fi
    done
}

tidy() { # ID: what a move that was cut off has left; with -H in the main queue Exim may be delivering it there
    is_shared input "$1" -D || is_shared msglog "$1" '' || return 0
    if at '' input "$1" -H >/dev/null; then
        drop_from_quarantine "$1"
    elif at "$queue/" input "$1" -H >/dev/null; then
        drop_from_main "$1"
    fi
}

names() { # QUEUE: messages with a -D file or a message log
    for part in "$1input" "$1msglog"; do
        [ ! -d "$part" ] || sure search "$part" -type f ! -name '*-[HJ]' -printf '%f\n'
    done | sure sed 's/-D$//' | sure sort -u
}

empty() {
    [ ! -d "$queue" ] || find "$queue" -depth -type d -empty -delete 2>/dev/null
}

case $action in
out | back | erase) ;;
*) exit 64 ;;
esac
check_fence
[ ! -d "$queue" ] || { names '' && names "$queue/"; } | sure sort | sure uniq -d | while read -r id; do tidy "$id"; done
[ "$ids" = none ] || case $action in
out) printf '%s\n' "$ids" | sure uncut xargs -n 500 "$exim" -MG "$queue" 2>&1 ;;
back) printf '%s\n' "$ids" | sure uncut xargs -n 500 "$exim" "-qG$queue" -MG '' 2>&1 ;;
erase) printf '%s\n' "$ids" | sure uncut xargs -n 500 "$exim" "-qG$queue" -Mrm 2>&1 ;;
esac
empty
echo
echo end
