#!/bin/sh
# sendmail_run.sh ACTION SENDMAIL CONFIG CLIENT_QUEUE QUEUE_DIRECTORY... <"SECONDS\nID ARRIVAL SENDER\n..."
#
# Has Sendmail work on exactly these messages, now and in the foreground: sendmail -v -qI. -qI matches substrings, so an
# ID that occurs inside another message's is refused, and so is one whose queue file has other T and S lines. Held ones
# (hf) are never attempted. After SECONDS in all the runner is ended, as a shutdown ends it.
#
# deliver  prints the whole dialogue; attempt and bounce (Timeout.queuereturn=now) only the lines that name a message or
#          say what became of it
#
# For every ID that is not run "ID WORD": absent, held, other, double, inside; before Sendmail's own lines "run". Last
# "end".
# shellcheck source=prologue.sh
. "${0%/*}/prologue.sh"
# shellcheck source=fence.sh
. "${0%/*}/fence.sh"
# shellcheck source=pipefail.sh
. "${0%/*}/pipefail.sh"
# shellcheck source=sendmail_queues.sh
. "${0%/*}/sendmail_queues.sh"

fail() {
    echo "sendmail_run: $2" >&2
    exit "$1"
}

action=$1
program=$2
config=$3
client=$4
shift 4
case $action in
deliver | attempt | bounce) ;;
*) fail 64 "no such action" ;;
esac
case $program$config in
*[!A-Za-z0-9_./-]*) fail 64 "bad program or configuration" ;;
esac

find_queues "$client" "$@"
[ -n "$found" ] || fail 66 "no queue directory"
work=$(mktemp -d) || fail 73 "no temporary directory"
trap 'rm -rf "$work"' EXIT
trap 'exit 143' HUP INT TERM
read_fence
read -r seconds || fail 64 "no seconds"
case $seconds in
'' | *[!0-9]*) fail 64 "bad seconds" ;;
esac
cat >"$work/wanted" || fail 74 "the input was cut off"
[ "$(sure cut -d ' ' -f 1 "$work/wanted" | grep -vc '^[0-9A-Za-z][0-9A-Za-z]*$')" = 0 ] || fail 64 "bad queue ID"

for directory in $found; do
    kept=$directory
    [ ! -d "$directory/qf" ] || kept=$directory/qf
    sure search -H "$kept" -maxdepth 1 -type f -name '[qh]f*' ! -name '*[!0-9A-Za-z]*' -printf "%f %h $directory\n"
done >"$work/files"

# The IDs of one length cannot contain each other; those of another length are few, or none.
awk -v client="$client" -v main="$work/main" -v other="$work/client" '
    function address(text) { return text ~ /^<.+>$/ ? substr(text, 2, length(text) - 2) : text == "" ? "<>" : text }
    FILENAME == ARGV[1] {
        id = substr($1, 3); files[id]++; letter[id] = substr($1, 1, 1); where[id] = $2; base[id] = $3
        if (!((length(id), id) in known)) { known[length(id), id]; longer[length(id)] = longer[length(id)] " " id }
        next
    }
    {
        id = $1; arrival = $2; sub(/^[^ ]* [^ ]* /, "")
        if (!(id in files)) { print id, "absent"; next }
        if (files[id] > 1) { print id, "double"; next }
        if (letter[id] == "h") { print id, "held"; next }
        for (size in longer) if (size + 0 > length(id) && index(longer[size], id)) { print id, "inside"; next }
        path = where[id] "/qf" id; T = ""; S = "?"
        while ((getline line < path) > 0) {
            code = substr(line, 1, 1)
            if (code == "T" && T == "") T = substr(line, 2)
            else if (code == "S" && S == "?") { S = substr(line, 2); break }
        }
        close(path)
        if (T != arrival || address(S) != $0) { print id, "other"; next }
        print "-qI" id > ((base[id] == client) ? other : main)
    }' "$work/files" "$work/wanted" || fail 74 "the queue files cannot be read"

option=MinQueueAge=0
[ "$action" = bounce ] && option=Timeout.queuereturn=now
filter() {
    if [ "$action" = deliver ]; then
        sure head -c 1000000
    else
        sure seek -aE '^Running |: locked$|\.\.\. Cannot send message for too long'
    fi
}

until=$(($(date +%s) + seconds))
run() { # FILE OPTION...: the messages in FILE, in what is left of the time
    left=$((until - $(date +%s)))
    [ -s "$1" ] && [ "$left" -gt 0 ] || return 0
    ids=$(sure cat "$1")
    shift
    # shellcheck disable=SC2086 # one argument each
    timeout -k 5 "$left" "$program" "$@" -v -O "$option" $ids </dev/null 2>&1 6>&- | filter
}

check_fence
echo run
run "$work/main" -C "$config"
run "$work/client" -Ac
echo end
