#!/bin/sh
# postfix_quarantine.sh ACTION QUEUE_DIRECTORY <"JOB\nID\nID..."
#
# ACTION out: moves queue files from hold/ to mxfleet-quarantine/JOB/, back: the other way, erase: removes them from
# there, look: only tells. Each message moves by rename(2) within one file system, so it is always whole and in exactly
# one of both places, however this ends; run again, it goes on where it was. An existing name is never overwritten.
# Tells the IDs that lie in mxfleet-quarantine/JOB afterwards, back also "ours ID" of those that a restore of ours brought
# to hold/ where nobody has moved them since, then "end".
#
# mxfleet-quarantine/JOB.restored tells that: "ID FROM TO", between which times the file came to hold/ by its ctime, which every
# rename sets. The last line of an ID counts: before the move the time that a run may take, then the very moment. So what
# a restore that was cut off left on hold is told from what somebody else holds.
# shellcheck source=prologue.sh
. "${0%/*}/prologue.sh"
# shellcheck source=fence.sh
. "${0%/*}/fence.sh"
# shellcheck source=enter.sh
. "${0%/*}/enter.sh"
# shellcheck source=pipefail.sh
. "${0%/*}/pipefail.sh"

fail() {
    echo "postfix_quarantine: $2" >&2
    exit "$1"
}

# Through no pipe: a part of this that is ended by a signal has to end the script, or what it left is told as left, and is
# done later by another part.
in_lots() { # FROM COMMAND...: the command with the paths of so many files at once; absent ones are told by the listing
    from=$1
    shift
    lot='' size=0
    for id in $ids; do
        lot="$lot $from/$id" size=$((size + 1))
        [ "$size" -lt 500 ] || { do_lot "$@" && lot='' size=0; }
    done
    do_lot "$@"
}

do_lot() {
    # shellcheck disable=SC2086 # paths without blanks
    [ -z "$lot" ] || "$@" $lot 2>/dev/null || [ $? -lt 126 ] || fail 70 "$1 was ended by a signal"
}

lying() { search . -type f -printf '%P\n'; }
holding() { search ../../hold -maxdepth 1 -type f -printf '%f %C@\n'; }

note_moving() { # of the wanted, which lie here and may be in hold/ from now on
    now=$(date +%s) || fail 70 "date was ended by a signal"
    here=$(sure lying) || exit
    printf '%s\n.\n%s\n' "$ids" "$here" | sure awk -v from=$((now - 1)) -v to=$((now + 180)) '
        $0 == "." { rest = 1; next }
        !rest { wanted[$1]; next }
        $1 != "" && $1 in wanted { print $1, from, to }' >>"$restored" || fail 73 "cannot write $restored"
    sync "$restored" 2>/dev/null || sync
}

note_moved() { # of those that lay $here, when they came to hold/
    left=$(sure lying) || exit
    held=$(sure holding) || exit
    printf '%s\n.\n%s\n.\n%s\n.\n%s\n' "$left" "$here" "$ids" "$held" | sure awk '
        $0 == "." { part++; next }
        part == 0 { left[$1]; next }
        part == 1 { if (!($1 in left)) came[$1]; next }
        part == 2 { wanted[$1]; next }
        $1 != "" && $1 in came && $1 in wanted { print $1, $2, $2 }' >>"$restored" || fail 74 "cannot write $restored"
}

tell_ours() {
    noted=$(sure cat "$restored") || exit
    held=$(sure holding) || exit
    printf '%s\n.\n%s\n.\n%s\n' "$noted" "$ids" "$held" | sure awk '
        $0 == "." { part++; next }
        part == 0 { from[$1] = $2; to[$1] = $3; next }
        part == 1 { wanted[$1]; next }
        $1 != "" && $1 in wanted && $1 in from && $2 >= from[$1] && $2 <= to[$1] { print "ours", $1 }'
}

same_system() { [ "$(sure stat -c %d ../../hold)" = "$(sure stat -c %d .)" ] || fail 75 "another file system"; }

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
[ "$1" = look ] || search .. -maxdepth 1 -name '*.restored' -mtime +30 -exec rm -f -- {} + # nobody goes on with these
case $1 in
out)
    same_system
    in_lots ../../hold mv -n -t . --
    sync ../../hold . 2>/dev/null || sync
    ;;
back)
    same_system
    restored=../$job.restored
    note_moving
    in_lots . mv -n -t ../../hold --
    sync ../../hold . 2>/dev/null || sync
    note_moved
    ;;
erase)
    in_lots . rm -f --
    sync . 2>/dev/null || sync
    ;;
esac
sure lying
[ "$1" != back ] || tell_ours
[ "$1" != erase ] || rmdir "../$job" 2>/dev/null
echo end
