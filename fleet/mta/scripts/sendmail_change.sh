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
# For every ID "ID WORD": done, busy (Sendmail works on it), absent, other (another message), double (two queue files of
# that ID), foreign (another file system), failed. out, back, erase and look tell then "in ID DIRECTORY FILE" for what
# lies in mxfleet-quarantine/JOB, FILE q, h or d. Last "end".
#
# Safe under kill -9 at any moment, and safe to run again. A message is its queue file: out moves that first and the
# data file behind it, back the other way round, so a queue file is never where Sendmail works without its data. hold and
# release exchange the text of the file and rename it: in between it is a qf with a q line, which Sendmail itself turns
# into an hf. An existing name is never overwritten by another file.
# shellcheck source=prologue.sh
. "${0%/*}/prologue.sh"
# shellcheck source=fence.sh
. "${0%/*}/fence.sh"
# shellcheck source=enter.sh
. "${0%/*}/enter.sh"
LOT=200 # locks held at a time

exec 4>&2
work=
fail() { # also from where stderr goes to a file
    [ ! -s "$work/stderr" ] || cat "$work/stderr" >&4
    echo "sendmail_change: $2" >&4
    exit "$1"
}

action=$1
client=$2
[ "$client" = none ] && client=
shift 2
case $action in
hold | release | delete | out | back | erase | look) ;;
*) fail 64 "no such action" ;;
esac

directories() { # every queue directory once
    for pattern in $client "$@"; do
        case $pattern in
        *[!A-Za-z0-9_./*-]* | *..* | *\**/*) exit 64 ;;
        /?*) ;;
        *) exit 64 ;;
        esac
        for directory in $pattern; do
            case $directory in
            *[!A-Za-z0-9_./-]*) ;;
            *) [ ! -d "$directory" ] || echo "$directory" ;;
            esac
        done
    done | awk '!seen[$0]++'
}

part() { # DIRECTORY qf|df: where its files of that kind are
    if [ -d "$1/$2" ]; then echo "$1/$2"; else echo "$1"; fi
}

found=$(directories "$@") || exit
[ -n "$found" ] || fail 66 "no queue directory"
work=$(mktemp -d) || fail 73 "no temporary directory"
trap 'rm -rf "$work" $staged' EXIT
trap 'exit 143' HUP INT TERM
staged=

[ "$action" = look ] || read_fence
read -r job || fail 64 "no job"
case $job in
'' | *[!0-9A-Za-z-]*) fail 64 "bad job" ;;
esac
cat >"$work/wanted" || fail 74 "the input was cut off"
! cut -d ' ' -f 1 "$work/wanted" | grep -qv '^[0-9A-Za-z][0-9A-Za-z]*$' || fail 64 "bad queue ID"

say() { # WORD ID...
    word=$1
    shift
    [ $# -eq 0 ] || printf "%s $word\n" "$@"
}

look_in_queue() { # "ID FILE OWNER MODE QUEUE DATA" of the wanted, sorted so that like stands by like; tells the others
    for directory in $found; do
        # shellcheck disable=SC2046
        find -H $(printf '%s\n' "$(part "$directory" qf)" "$(part "$directory" df)" | sort -u) -maxdepth 1 \
            -ignore_readdir_race -type f -name '[qhd]f*' ! -name '*[!0-9A-Za-z]*' \
            -printf "%f %U:%G %m %h $directory\n"
    done >"$work/files" || fail 74 "the queue cannot be read"
    awk -v told="$work/told" '
        FILENAME == ARGV[1] { if (!($1 in wanted)) name[++count] = $1; wanted[$1]; next }
        { id = substr($1, 3); letter = substr($1, 1, 1) }
        !(id in wanted) { next }
        letter == "d" { data[id] = $4; next }
        { files[id]++; line[id] = letter " " $2 " " $3 " " $4; base[id] = $5 }
        END { for (at = 1; at <= count; at++) {
            id = name[at]
            if (files[id] == 1) print id, line[id], base[id], (id in data) ? data[id] : "-"
            else print id, files[id] ? "double" : "absent" >told
        } }' "$work/wanted" "$work/files" | sort -k 2 >"$work/here"
    [ ! -e "$work/told" ] || cat "$work/told"
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
        # shellcheck disable=SC3013  # dash, bash, ksh and busybox have -ef
        if flock -n 3; then
            if [ "/proc/self/fd/3" -ef "$queue/${letter}f$1" ]; then mine="$mine $1"; else say busy "$1"; fi
        else
            say busy "$1"
        fi
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

moves() { # FROM TO: names on stdin; nothing is overwritten, and what is not there is left out; false when cut off
    while read -r name; do [ ! -e "$1/$name" ] || echo "$1/$name"; done | xargs -r sh -c 'mv -n -- "$@" "$0/"' "$2"
    [ $? -le 123 ] # xargs(1): a command failed, as for a file that went meanwhile
}

removes() { # paths on stdin; false when cut off
    xargs -r rm -f --
    [ $? -le 123 ]
}

cut_off() { fail 70 "a part of it was ended by a signal"; }

change() {
    : >"$work/other"
    [ -n "$mine" ] || return 0
    check >"$work/mine"
    cat "$work/other"
    [ -s "$work/mine" ] || return 0
    change_"$action"
}

change_delete() {
    sed "s|^|$queue/${letter}f|" "$work/mine" | removes || cut_off
    sync "$queue"
    # The data of a queue file that is there still is all that is left of a message.
    [ "$data" = - ] ||
        while read -r id; do [ -e "$queue/${letter}f$id" ] || echo "$data/df$id"; done <"$work/mine" | removes || cut_off
    while read -r id; do
        if [ -e "$queue/${letter}f$id" ]; then say failed "$id"; else say "done" "$id"; fi
    done <"$work/mine"
}

same_system() { # DIRECTORY...
    [ "$(stat -c %d "$@" | sort -u | wc -l)" -eq 1 ]
}

change_out() {
    cd -P -- "$base" || fail 66 "cannot enter $base"
    make_ours mxfleet-quarantine
    make_ours "$job"
    normal=$(part "$base" df)
    [ "$data" != - ] || data=$normal
    if [ "$data" != "$normal" ] || ! same_system "$queue" "$data" .; then
        while read -r id; do say foreign "$id"; done <"$work/mine"
        return
    fi
    sed "s/^/${letter}f/" "$work/mine" | moves "$queue" . || cut_off
    sync "$queue" .
    while read -r id; do [ -e "$queue/${letter}f$id" ] || echo "df$id"; done <"$work/mine" | moves "$data" . || cut_off
    sync "$data" .
    while read -r id; do
        if [ -e "$queue/${letter}f$id" ] || [ -e "$data/df$id" ]; then say failed "$id"; else say "done" "$id"; fi
    done <"$work/mine"
}

rewrite() { # q line, or "" for none: the queue files as they shall be, in $staged, with owner and mode of the old ones
    cd -P -- "$base" || fail 66 "cannot enter $base"
    made=$(mktemp -d ./mxfleet-staged.XXXXXX) || fail 73 "cannot write in $base"
    enter "$made"
    staged=$base/$made
    [ -z "$(ls -A)" ] || fail 77 "$staged is not ours"
    awk -v queue="$queue" -v letter="$letter" -v reason="$1" '
        {
            path = queue "/" letter "f" $1; new = "qf" $1
            if (reason == "") reasoned = 1; else reasoned = 0
            while ((getline line < path) > 0) {
                code = substr(line, 1, 1)
                if (code == "q") continue
                if (code == "S" && !reasoned) { print reason >new; reasoned = 1 }
                print line >new
            }
            close(path)
            if (close(new) != 0) exit 1
        }' "$work/mine" || fail 74 "the new queue files could not be written"
    # A disk that is full shows here at the latest: the last line of every file must be there.
    awk '
        { path = "qf" $1; last = ""; while ((getline line < path) > 0) last = line; close(path); if (last != ".") exit 1 }
        ' "$work/mine" || fail 74 "the new queue files could not be written"
    { chown "$owner" ./qf* && chmod "$mode" ./qf* && sync ./qf*; } || fail 74 "the new queue files could not be written"
}

put_back_text() { mv -f -- qf* "$queue/" || fail 74 "the new queue files could not be moved"; }

clear_staged() {
    cd / || fail 73 "cannot leave $staged"
    rm -rf "$staged"
}

# --no-copy does not exist everywhere; both names are in one directory, so this is rename(2).
rename() { # FROM TO: letters
    while read -r id; do
        if [ -e "$queue/$1f$id" ]; then mv -nT -- "$queue/$1f$id" "$queue/$2f$id"; fi
        if [ -e "$queue/$1f$id" ]; then say failed "$id"; else say "done" "$id"; fi
    done <"$work/mine"
}

change_hold() {
    if [ "$letter" = h ]; then
        while read -r id; do say "done" "$id"; done <"$work/mine"
        return
    fi
    same_system "$queue" "$base" || fail 75 "another file system"
    rewrite "qmxfleet $job"
    put_back_text
    rename q h >"$work/renamed"
    sync "$queue"
    cat "$work/renamed"
    clear_staged
}

change_release() {
    same_system "$queue" "$base" || fail 75 "another file system"
    rewrite ""
    if [ "$letter" = h ]; then rename h q >"$work/renamed"; else sed 's/$/ done/' "$work/mine" >"$work/renamed"; fi
    # What could not be renamed keeps its text.
    awk '$2 != "done" { print "qf" $1 }' "$work/renamed" | xargs -r rm -f --
    [ -z "$(find . -name 'qf*')" ] || put_back_text
    sync "$queue"
    cat "$work/renamed"
    clear_staged
}

act() { # in lots of the same directory, owner and mode
    # shellcheck disable=SC2086  # what a killed run left behind is a copy
    find $found -maxdepth 1 -type d -name 'mxfleet-staged.??????' -mmin +10 -exec rm -rf {} +
    look_in_queue
    awk -v lot="$LOT" -v work="$work" '
        { key = $2 " " $3 " " $4 " " $5 " " $6 " " $7 }
        key != last || count == lot { if (file) close(file); file = sprintf("%s/lot.%06d", work, ++lots); count = 0; last = key; print key >file }
        { print $1 >file; count++ }' "$work/here"
    for lot in "$work"/lot.*; do
        [ -e "$lot" ] || continue
        { read -r letter owner mode queue base data; } <"$lot"
        mine=
        # shellcheck disable=SC2046
        lock $(tail -n +2 "$lot")
    done
    [ ! -s "$work/stderr" ] || grep -v 'No such file' "$work/stderr" >&2
}

quarantined() { # "in ID DIRECTORY FILE"
    for directory in $found; do
        [ ! -d "$directory/mxfleet-quarantine/$job" ] ||
            find "$directory/mxfleet-quarantine/$job" -maxdepth 1 -type f -name '[qhd]f*' ! -name '*[!0-9A-Za-z]*' \
                -printf "in %f $directory\n"
    done | sed 's/^in \([qhd]\)f\([0-9A-Za-z]*\) \(.*\)$/in \2 \3 \1/'
}

go_to_quarantine() { # DIRECTORY
    cd -P -- "$1" && [ -d "mxfleet-quarantine/$job" ] || return
    enter mxfleet-quarantine
    enter "$job"
}

leave_empty() { # DIRECTORY
    cd / && rmdir "$1/mxfleet-quarantine/$job" "$1/mxfleet-quarantine" 2>/dev/null
}

back() { # the data first: it may be in its place already, where `out` or `back` was cut off
    for directory in $found; do
        go_to_quarantine "$directory" || continue
        queue=$(part "$directory" qf)
        data=$(part "$directory" df)
        same_system "$queue" "$data" . || fail 75 "another file system"
        cut -d ' ' -f 1 "$work/wanted" >"$work/mine"
        sed 's/^/df/' "$work/mine" | moves . "$data" || cut_off
        sync "$data" .
        # A queue file whose data was not moved stays where it is: Sendmail would lose it.
        while read -r id; do
            [ -e "./df$id" ] || [ -e "$queue/qf$id" ] || [ -e "$queue/hf$id" ] || printf 'qf%s\nhf%s\n' "$id" "$id"
        done <"$work/mine" | moves . "$queue" || cut_off
        sync "$queue" .
        leave_empty "$directory"
    done
}

erase() {
    for directory in $found; do
        go_to_quarantine "$directory" || continue
        cut -d ' ' -f 1 "$work/wanted" >"$work/mine"
        # Data that was left in the queue directory by a cut-off `out` belongs to the queue file in quarantine.
        data=$(part "$directory" df)
        while read -r id; do
            if [ -e "./qf$id" ] || [ -e "./hf$id" ]; then rm -f -- "$data/df$id"; fi
        done <"$work/mine"
        sed 's/^.*$/df&\nqf&\nhf&/' "$work/mine" | xargs -r rm -f --
        leave_empty "$directory"
        sync "$directory"
    done
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
