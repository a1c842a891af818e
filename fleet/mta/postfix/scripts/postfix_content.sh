#!/bin/sh
# postfix_content.sh COMMAND_DIRECTORY CONFIG_DIRECTORY <"BUDGET ENVELOPE HEADERS BODY\nID\nID..."
#
# Reads queued messages with postcat(1), up to so many bytes of each part. Every message is announced by the lengths
# that follow ("ID E H B", then the bytes), so nothing inside a message can pose as the next one. "ID absent" when it is
# not queued. Stops after BUDGET bytes; the last line is "end".
#
# Headers alone are read by one postcat for a lot of messages. A file of our own is named after each message and ends it
# with a mark that is drawn now: no message can contain it, whatever bytes it has. postcat ends at a message that it
# cannot open or read, after a second's sleep: that one is read by itself, and all that follow are left to the next
# command, which looks anew where they are. So a queue that empties meanwhile does not cost a second per message.
# shellcheck source=prologue.sh
. "${0%/*}/prologue.sh"
# shellcheck source=pipefail.sh
. "${0%/*}/pipefail.sh"
work=$(mktemp -d) || exit 73
trap 'rm -rf "$work"' EXIT
trap 'exit 143' HUP INT TERM

part() { # FLAG LIMIT ID
    : >"$work/$1"
    [ "$2" -gt 0 ] || return 0
    sure uncut told_of "$1" "$3" | sure head -c "$2" >"$work/$1"
}

told_of() { # FLAG ID
    "$postcat" -c "$config" "-$1" -q "$2" 2>>"$work/stderr" && return
    status=$?
    echo absent >"$work/status"
    return "$status"
}

read_one() { # ID
    rm -f "$work/status" "$work/stderr"
    part e "$envelope_limit" "$1"
    [ -e "$work/status" ] || part h "$headers_limit" "$1"
    if grep -q 'fatal: open queue file' "$work/stderr" 2>/dev/null; then
        if grep -q 'No such file' "$work/stderr"; then
            printf '%s absent\n' "$1"
            return
        fi
        cat "$work/stderr" >&2
        exit 1
    fi
    part b "$body_limit" "$1"
    envelope=$(wc -c <"$work/e")
    headers=$(wc -c <"$work/h")
    body=$(wc -c <"$work/b")
    budget=$((budget - envelope - headers - body - 64))
    printf '%s %d %d %d\n' "$1" "$envelope" "$headers" "$body"
    cat "$work/e" "$work/h" "$work/b"
}

look() { # FILE of IDs: those that are queued, as "ID PATH", in that order
    # shellcheck disable=SC2086 # names without blanks
    sure search -H $queues -type f -printf '%f %p\n' >"$work/all"
    sure awk 'FILENAME == ARGV[1] { name[++count] = $1; wanted[$1]; next }
        $1 in wanted && $2 ~ /^[a-z]+(\/[0-9A-Za-z])*\/[0-9A-Za-z]+$/ { path[$1] = $2 }
        END { for (at = 1; at <= count; at++) if (name[at] in path) print name[at], path[name[at]] }' "$1" "$work/all"
}

rest() { # FILE FILE: the IDs of the second that the first does not have
    sure awk 'FILENAME == ARGV[1] { has[$1]; next } !($1 in has) { print $1 }' "$1" "$2"
}

locate() { # a message that moves from queue to queue can escape one look, as it can escape postcat -q
    look "$work/ids" >"$work/here"
    rest "$work/here" "$work/ids" >"$work/missing"
    [ -s "$work/missing" ] || return 0
    look "$work/missing" >>"$work/here"
    rest "$work/here" "$work/ids" | sure sed 's/$/ absent/'
}

make_mark() { # a queue file whose header is two lines; queue file format: type, length, data
    mark=$(od -An -N 16 -t x1 /dev/urandom | tr -d ' \n')
    [ ${#mark} -eq 32 ] || exit 74
    export mark
    printf 'M\000N\042%s0:N\042%s1:' "$mark" "$mark" >"$work/mark"
}

# The mark's first line is glued to the last line of a file that breaks off; its second one always stands alone.
# shellcheck disable=SC2016
tell_lot='BEGIN {
        while ((getline line <ENVIRON["lot"]) > 0) { split(line, word, " "); name[++count] = word[1] }
        glued = length(ENVIRON["mark"]) + 3; limit = ENVIRON["limit"] + 0; budget = ENVIRON["left"] + 0; ORS = ""
    }
    $0 == ENVIRON["mark"] "1:" {
        size -= glued; if (size > limit) size = limit
        print name[++told] " 0 " size " 0\n" substr(text, 1, size)
        used += size + 64; size = 0; text = ""
        if (used >= budget) exit
        next
    }
    { size += length($0) + 1; if (length(text) < limit) text = text $0 "\n" }
    END { print told + 0, used + 0, count "\n" >ENVIRON["sum"] }'

read_lot() { # FILE of "ID PATH"; fails when postcat ended too early
    lot=$1
    rm -f "$work/sum"
    sure sed "s,.* \(.*\),\1 $work/mark," "$lot" | xargs -x -n 400 "$postcat" -c "$config" -h 2>/dev/null |
        lot=$lot limit=$headers_limit left=$budget sum=$work/sum awk "$tell_lot"
    read -r told used all <"$work/sum" || exit 74
    budget=$((budget - used))
    [ "$budget" -gt 0 ] && [ "$told" -lt "$all" ] || return 0
    read_one "$(sed -n "$((told + 1))s/ .*//p" "$lot")"
    return 1
}

read_headers() {
    spool=$("$1/postconf" -c "$config" -xh queue_directory) && [ -n "$spool" ] && cd "$spool" || exit 66
    queues=
    for queue in maildrop incoming active deferred hold saved; do
        [ ! -d "$queue" ] || queues="$queues $queue"
    done
    [ -n "$queues" ] || exit 66
    make_mark
    locate
    sure split -l 200 -a 4 "$work/here" "$work/lot."
    for lot in "$work"/lot.*; do
        [ -e "$lot" ] && [ "$budget" -gt 0 ] && read_lot "$lot" || break
    done
}

postcat=$1/postcat
config=$2
read -r budget envelope_limit headers_limit body_limit || exit 64
case $budget$envelope_limit$headers_limit$body_limit in
*[!0-9]*) exit 64 ;;
esac
cat >"$work/ids" || exit 74
[ "$(grep -vc '^[0-9A-Za-z][0-9A-Za-z]*$' "$work/ids")" = 0 ] || exit 64
if [ "$envelope_limit" -eq 0 ] && [ "$body_limit" -eq 0 ]; then
    read_headers "$1"
else
    while read -r id && [ "$budget" -gt 0 ]; do
        read_one "$id"
    done <"$work/ids"
fi
echo end
