#!/bin/sh
# sendmail_change.sh ACTION CLIENT_QUEUE QUEUE_DIRECTORY... <"JOB\nID ARRIVAL SENDER\n..."
#
# Changes queued messages, each under the flock(2) that Sendmail takes on its queue file while it works on a message, and
# only when the file's T and S lines are ARRIVAL and SENDER. JOB and IDs: letters, digits and, in JOB, hyphens.
#
# hold     qf to hf with a q line, as sendmail -Q; release: hf to qf without it
# delete   removes qf and df
# out      moves qf and df to mxfleet-quarantine/JOB of the same queue directory, back: to where they were
# erase    removes them there, look: only tells
#
# For every ID "ID WORD": done, already (held, and not by this job), busy (Sendmail works on it), absent, other (another
# message), double (two queue files of that ID), foreign (another file system), bare (its data file is nowhere, so it is
# not moved), failed; back says only bare. out, back, erase and look tell then "in ID DIRECTORY FILE" for what lies in
# mxfleet-quarantine/JOB, FILE q, h or d. Last "end".
#
# Safe under kill -9 at any moment, and safe to run again. A message is its queue file: out moves that first and the
# data file behind it, back the other way round, and a queue file is removed before its data: so none is ever without its
# data where Sendmail works, and what has lost them is not moved. hold and release exchange the text of the file and
# rename it: in between it is a qf with a q line, which Sendmail itself turns into an hf. An existing name is never
# overwritten by another file.
# shellcheck source=prologue.sh
. "${0%/*}/prologue.sh"
# shellcheck source=fence.sh
. "${0%/*}/fence.sh"
# shellcheck source=enter.sh
. "${0%/*}/enter.sh"
# shellcheck source=pipefail.sh
. "${0%/*}/pipefail.sh"
# shellcheck source=sendmail_queues.sh
. "${0%/*}/sendmail_queues.sh"
# shellcheck source=sendmail_hold.sh
. "${0%/*}/sendmail_hold.sh"
# shellcheck source=sendmail_quarantine.sh
. "${0%/*}/sendmail_quarantine.sh"
LOT=200 # locks held at a time

exec 4>&2
work=
fail() { # also from where stderr goes to a file
    echo "sendmail_change: $2" >&4
    exit "$1"
}

leave() {
    [ $? -eq 0 ] || [ ! -s "$work/stderr" ] || cat "$work/stderr" >&4
    # shellcheck disable=SC2086 # none or one
    rm -rf "$work" $staged
}

action=$1
client=$2
shift 2
case $action in
hold | release | delete | out | back | erase | look) ;;
*) fail 64 "no such action" ;;
esac

find_queues "$client" "$@"
[ -n "$found" ] || fail 66 "no queue directory"
work=$(mktemp -d) || fail 73 "no temporary directory"
staged=
trap leave EXIT
trap 'exit 143' HUP INT TERM

[ "$action" = look ] || read_fence
read -r job || fail 64 "no job"
case $job in
'' | *[!0-9A-Za-z-]*) fail 64 "bad job" ;;
esac
cat >"$work/wanted" || fail 74 "the input was cut off"
[ "$(sure cut -d ' ' -f 1 "$work/wanted" | grep -vc '^[0-9A-Za-z][0-9A-Za-z]*$')" = 0 ] || fail 64 "bad queue ID"

say() { # WORD ID...
    word=$1
    shift
    [ $# -eq 0 ] || printf "%s $word\n" "$@"
}

look_in_queue() { # "ID FILE OWNER MODE QUEUE" of the wanted, sorted so that like stands by like; tells the others
    for directory in $found; do
        open_queue "$directory"
        # shellcheck disable=SC2154 # open_queue sets it
        sure search "$queue" -maxdepth 1 -type f -name '[qh]f*' ! -name '*[!0-9A-Za-z]*' -printf "%f %U:%G %m $directory\n"
    done >"$work/files"
    sure awk -v told="$work/told" '
        FILENAME == ARGV[1] { if (!($1 in wanted)) name[++count] = $1; wanted[$1]; next }
        { id = substr($1, 3) }
        id in wanted { files[id]++; line[id] = substr($1, 1, 1) " " $2 " " $3 " " $4 }
        END { for (at = 1; at <= count; at++) {
            id = name[at]
            if (files[id] == 1) print id, line[id]
            else print id, files[id] ? "double" : "absent" >told
        } }' "$work/wanted" "$work/files" | sure sort -k 2 >"$work/here"
    tell
}

tell() { # what was put into $work/told
    [ ! -e "$work/told" ] || sure cat "$work/told"
    rm -f "$work/told"
}

# The redirection of each level stays open while the deeper ones run: so one shell holds the locks of a whole lot.
lock() { # ID...: then `change`s those that are locked and still in place
    if [ $# -eq 0 ]; then
        opened=1
        change
        return
    fi
    opened=
    {
        opened=1
        flock -n 3
        # shellcheck disable=SC3013  # dash, bash, ksh and busybox have -ef
        case $? in
        0) if [ "/proc/self/fd/3" -ef "$queue/${letter}f$1" ]; then mine="$mine $1"; else say busy "$1"; fi ;;
        1) say busy "$1" ;;
        *) fail 70 "a lock could not be asked for" ;;
        esac
        shift
        lock "$@"
        opened=1
    } 3<"$queue/${letter}f$1" 2>>"$work/stderr"
    [ -n "$opened" ] && return
    say absent "$1"
    shift
    lock "$@"
}

check() { # those of $mine that are the messages that were meant; tells the others
    awk -v queue="$queue" -v letter="$letter" -v names="$mine" -v told="$work/other" '
        function address(text) { return text ~ /^<.+>$/ ? substr(text, 2, length(text) - 2) : text == "" ? "<>" : text }
        { id = $1; arrival[id] = $2; sub(/^[^ ]* [^ ]* /, ""); sender[id] = $0 }
        END {
            count = split(names, name, " ")
            for (at = 1; at <= count; at++) {
                id = name[at]; path = queue "/" letter "f" id; T = ""; S = "?"; ended = 0
                while ((getline line < path) > 0) {
                    code = substr(line, 1, 1)
                    if (code == "T" && T == "") T = substr(line, 2)
                    else if (code == "S" && S == "?") S = substr(line, 2)
                    if (line == ".") ended = 1
                }
                close(path)
                if (ended && T == arrival[id] && address(S) == sender[id]) print id
                else print id, "other" >told
            }
        }' "$work/wanted"
}

change() {
    : >"$work/other"
    [ -n "$mine" ] || return 0
    sure check >"$work/mine"
    sure cat "$work/other"
    [ -s "$work/mine" ] || return 0
    change_"$action"
    tell
}

same_system() { # DIRECTORY...
    system=$(sure stat -c %d "$1")
    for each; do [ "$(sure stat -c %d "$each")" = "$system" ] || return; done
}

act() { # in lots of the same directory, owner and mode
    # shellcheck disable=SC2086  # what a killed run left behind is a copy
    find $found -maxdepth 1 -type d -name 'mxfleet-staged.??????' -mmin +10 -exec rm -rf {} +
    look_in_queue
    sure awk -v lot="$LOT" -v work="$work" '
        { key = $2 " " $3 " " $4 " " $5 }
        key != last || count == lot { if (file) close(file); file = sprintf("%s/lot.%06d", work, ++lots); count = 0; last = key; print key >file }
        { print $1 >file; count++ }' "$work/here"
    for lot in "$work"/lot.*; do
        [ -e "$lot" ] || continue
        # shellcheck disable=SC2034 # sendmail_hold.sh has them
        { read -r letter owner mode directory; } <"$lot"
        open_queue "$directory"
        mine=
        ids=$(sure tail -n +2 "$lot")
        # shellcheck disable=SC2086 # one argument each
        lock $ids
    done
    [ ! -s "$work/stderr" ] || seek -v 'No such file' "$work/stderr" >&2
}

[ "$action" = look ] || check_fence
case $action in
hold | release | delete | out) [ ! -s "$work/wanted" ] || act ;;
back | erase) [ ! -s "$work/wanted" ] || "$action" ;;
esac
case $action in
out | back | erase | look) quarantined ;;
esac
echo end
