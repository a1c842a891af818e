#!/bin/sh
# postfix_quarantine.sh ACTION QUEUE_DIRECTORY <"JOB\nID\nID..."
#
# ACTION out: moves queue files from hold/ to mxfleet-quarantine/JOB/, back: the other way, erase: removes them from
# there, look: only tells. Each message moves by rename(2) within one file system, so it is always whole and in exactly
# one of both places, however this ends; run again, it goes on where it was. An existing name is never overwritten.
# Tells the IDs that lie in mxfleet-quarantine/JOB afterwards, then "end".
# shellcheck source=prologue.sh
. "${0%/*}/prologue.sh"
# shellcheck source=fence.sh
. "${0%/*}/fence.sh"
# shellcheck source=enter.sh
. "${0%/*}/enter.sh"

fail() {
    echo "postfix_quarantine: $2" >&2
    exit "$1"
}

move() { # FROM TO: names on stdin; mv -n keeps what is there already, and absent names are told by the listing
    sed "s|^|$1/|" | xargs mv -n -t "$2" -- 2>/dev/null
    sync "$1" "$2" 2>/dev/null || sync
}

same_system() { [ "$(stat -c %d ../../hold)" = "$(stat -c %d .)" ] || fail 75 "another file system"; }

case $1 in
out | back | erase | look) ;;
*) fail 64 "no such action" ;;
esac
cd -P -- "$2" || fail 66 "no queue directory $2"
[ "$1" = look ] || read_fence
read -r job || fail 64 "no job"
case $job in
'' | *[!0-9A-Za-z-]*) fail 64 "bad job" ;;
esac
ids=$(cat) || exit 74
case $ids in
*[!0-9A-Za-z"
"]*) fail 64 "bad queue ID" ;;
esac
[ "$1" = look ] || check_fence

if [ "$1" = out ]; then
    make_ours mxfleet-quarantine
    make_ours "$job"
elif [ -d "mxfleet-quarantine/$job" ]; then
    enter mxfleet-quarantine
    enter "$job"
else # nothing of this job
    echo end
    exit
fi
case $1 in
out)
    same_system
    [ -z "$ids" ] || printf '%s\n' "$ids" | move ../../hold .
    ;;
back)
    same_system
    [ -z "$ids" ] || printf '%s\n' "$ids" | move . ../../hold
    ;;
erase)
    [ -z "$ids" ] || printf '%s\n' "$ids" | xargs rm -f --
    sync . 2>/dev/null || sync
    ;;
esac
find . -type f | sed 's|^\./||'
[ "$1" != erase ] || rmdir "../$job" 2>/dev/null
echo end
