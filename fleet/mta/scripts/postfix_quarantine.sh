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

fail() {
    echo "postfix_quarantine: $2" >&2
    exit "$1"
}

move() { # FROM TO: names on stdin; mv -n keeps what is there already, and absent names are told by the listing
    # shellcheck disable=SC2016  # the inner shell expands
    (cd "$1" && xargs sh -c 'mv -n -- "$@" "$0/"' "$2" 2>/dev/null)
    sync "$1" "$2" 2>/dev/null || sync
}

cd "$2" || fail 66 "no queue directory $2"
[ "$1" = look ] || read_fence
read -r job || fail 64 "no job"
case $job in
'' | *[!0-9A-Za-z-]*) fail 64 "bad job" ;;
esac
there=$PWD/mxfleet-quarantine/$job
ids=$(cat) || exit 74
case $ids in
*[!0-9A-Za-z"
"]*) fail 64 "bad queue ID" ;;
esac
[ "$1" = look ] || check_fence

case $1 in
out)
    mkdir -p "$there" || fail 73 "cannot make $there"
    chmod 700 mxfleet-quarantine "$there"
    [ "$(stat -c %d hold)" = "$(stat -c %d "$there")" ] || fail 75 "another file system"
    [ -z "$ids" ] || printf '%s\n' "$ids" | move "$PWD/hold" "$there"
    ;;
back)
    if [ -d "$there" ] && [ -n "$ids" ]; then
        [ "$(stat -c %d hold)" = "$(stat -c %d "$there")" ] || fail 75 "another file system"
        printf '%s\n' "$ids" | move "$there" "$PWD/hold"
    fi
    ;;
erase)
    if [ -d "$there" ] && [ -n "$ids" ]; then
        (cd "$there" && printf '%s\n' "$ids" | xargs rm -f --)
        rmdir "$there" 2>/dev/null
        sync mxfleet-quarantine 2>/dev/null || sync
    fi
    ;;
look) ;;
*) fail 64 "no such action" ;;
esac
[ ! -d "$there" ] || (cd "$there" && find . -type f | sed 's|^\./||')
echo end
