#!/bin/sh
# qmail_content.sh QUEUE <"BUDGET HEADERS BODY\nID\nID..."
#
# Reads messages of a qmail queue, held ones too, many at once, about BUDGET bytes of them. With BODY 0 the headers alone,
# up to HEADERS bytes: "ID 0 LENGTH 0", then the bytes. With BODY the first HEADERS + BODY bytes of each file: "ID SIZE" for
# each, an empty line, then each as head(1) -v shows it, which its size makes unambiguous. "ID absent" for a message that
# is not queued. The last line is "end".
# shellcheck source=prologue.sh
. "${0%/*}/prologue.sh"
# shellcheck source=pipe.sh
. "${0%/*}/pipe.sh"
# shellcheck source=qmail_queue.sh
. "${0%/*}/qmail_queue.sh"

fail() {
    echo "qmail_content: $2" >&2
    exit "$1"
}

unreadable() { fail 74 "a part of reading failed or was ended by a signal"; }

sizes() { # every message has two places; what neither has is absent
    for each_area in . mxfleet-hold; do
        with_files "$each_area" mess 1 stat -c '%n %s' -- 2>/dev/null || return
    done
}

tell_found() {
    printf '%s\n' "$found"
}

tell_found_and_wanted() {
    printf '%s\n.\n%s\n' "$found" "$ids"
}

absent() {
    awk '
        $1 == "." { rest = 1; next }
        !rest { sub("^.*/", "", $1); has[$1]; next }
        $1 != "" && !($1 in has) { print $1, "absent" }'
}

choose() {
    awk -v limit="$limit" -v budget="$budget" '
        $1 == "" || is_full { next }
        { print; is_full = (budget -= ($2 < limit ? $2 : limit) + 64) < 0 }'
}

tell_chosen() {
    printf '%s\n' "$chosen"
}

lots() {
    awk -v lot="$LOT" '$1 != "" { printf "%s%s", $1, NR % lot ? " " : "\n" }'
}

enter "$1" || fail 66 "no queue in $1"
read -r budget headers body || fail 64 "no limits"
case $budget$headers$body in
*[!0-9]*) fail 64 "bad limits" ;;
esac
ids=$(cat) || unreadable
case $ids in
*[!0-9"
"]*) fail 64 "bad queue ID" ;;
esac
found=$(sizes) || unreadable
both tell_found_and_wanted absent || unreadable
if [ "$body" -eq 0 ]; then
    both tell_found headers_of || unreadable
else
    limit=$((headers + body))
    chosen=$(both tell_found choose) || unreadable
    [ -z "$chosen" ] || printf '%s\n' "$chosen"
    echo
    paths=$(both tell_chosen lots) || unreadable
    in_lots "$paths" 1 head -v -c "$limit" -- 2>/dev/null || unreadable
fi
echo end
