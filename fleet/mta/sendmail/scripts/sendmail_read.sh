#!/bin/sh
# sendmail_read.sh ACTION CLIENT_QUEUE QUEUE_DIRECTORY... (as in the configuration: a * at the end is a wildcard)
#
# Reads queue files (qf, hf; op.me, "Queue file format") and their data files (df). Changes nothing, takes no lock.
# ACTION dirs: the directories, one a line.
# ACTION list: for each message
#     ">ID FILE CLIENT LOCKED ARRIVAL ATTEMPTS LAST HEADER BODY" - FILE q or h, CLIENT and LOCKED 0 or 1, epoch seconds,
#     bytes; then its lines S, q, and M and R as they are. "?ID" for a file that is no whole queue file. Last
#     "end MESSAGES LOST", LOST counts what Sendmail has set aside (Qf).
# ACTION headers: the same, each message followed by its header: "H" before the first line of each field, the bytes that
#     Sendmail uses itself still marked. At least 64 KiB of each; none after 128 MiB altogether.
# ACTION contents <"BUDGET HEADERS BODY\nID\nID...": "ID 0 H B" and so many bytes of header and body, "ID absent" when
#     it is not queued; stops after BUDGET bytes; last "end".
# shellcheck source=prologue.sh
. "${0%/*}/prologue.sh"
# shellcheck source=pipefail.sh
. "${0%/*}/pipefail.sh"
# shellcheck source=sendmail_queues.sh
. "${0%/*}/sendmail_queues.sh"
action=$1
client=$2
shift 2

find_queues "$client" "$@"
if [ "$action" = dirs ]; then
    printf '%s' "$found"
    echo end
    exit 0
fi
[ -n "$found" ] || {
    echo "no queue directory" >&2
    exit 66
}
work=$(mktemp -d) || exit 73
trap 'rm -rf "$work"' EXIT
trap 'exit 143' HUP INT TERM

places= # a queue directory may keep its qf and df files in sub-directories of these names
for directory in $found; do
    places="$places $directory"
    for part in qf df; do [ ! -d "$directory/$part" ] || places="$places $directory/$part"; done
done
# A runner has the queue file open that it works on. /proc/locks does not tell inside a container: the lock is taken by a
# process that leaves it to its child and ends. Only the files found so are asked for their lock, as mailq asks all.
locked() { # the paths of queue files that are locked
    running=$(sure uncut grep -ls '^sendmail' /proc/[0-9]*/comm)
    for command in $running; do
        sure uncut find "${command%comm}fd" -maxdepth 1 -lname '*/[qh]f*' -printf '%l\n' 2>/dev/null
    done >"$work/open"
    sure sort -u "$work/open" | sure seek -E '^/[A-Za-z0-9_./-]+$' >"$work/opened"
    while read -r path; do
        [ -f "$path" ] || continue
        flock -n -s "$path" true && continue
        [ $? -le 123 ] || exit 74
        echo "$path"
    done <"$work/opened"
}

look() { # KINDS FORMAT
    # shellcheck disable=SC2086
    sure search -H $places -maxdepth 1 -type f -name "[$1]f*" ! -name '*[!0-9A-Za-z]*' -printf "$2"
}

# whole(PATH) reads a queue file: 1 whole, 0 not, -1 gone. T, K and N of the file, `text` to tell, `header` in bytes and
# up to `most` bytes of it in `headers`.
queue_file='
    function bytes(text) { return length(text) - (index(text, "\377") ? gsub(/\377[\200-\237\377]/, "", text) : 0) }
    function whole(path,    line, code, at, inside, ended, version, sender) {
        T = K = N = ""; text = headers = ""; sender = header = inside = ended = 0
        while ((at = (getline line < path)) > 0) {
            code = substr(line, 1, 1)
            if (code == "H") {
                if (inside = substr(line, 2, 15) != "?P?Return-Path:") {
                    if (substr(line, 2, 2) == "??") line = substr(line, 4)
                    else sub(/^H(\?[^?]*\?)?/, "", line)
                    header += bytes(line) + 1
                    if (most && length(headers) < most) headers = headers "H" line "\n"
                }
            } else if (code == " " || code == "\t") {
                if (inside) {
                    header += bytes(line) + 1
                    if (most && length(headers) < most) headers = headers line "\n"
                }
            } else {
                inside = 0
                if (code == "S") { text = text line "\n"; sender = 1 }
                else if (code == "R" || code == "M" || code == "q") text = text line "\n"
                else if (code == "T") T = substr(line, 2)
                else if (code == "K") K = substr(line, 2)
                else if (code == "N") N = substr(line, 2)
                else if (code == "V") version = substr(line, 2)
                else if (line == ".") { ended = 1; break }
            }
        }
        close(path)
        if (at < 0) return -1
        return ended && version + 0 >= 2 && version + 0 <= 8 && T ~ /^[0-9]+$/ && K ~ /^[0-9]*$/ && N ~ /^[0-9]*$/ && sender
    }
'

# Queue files from two looks: a file that is renamed during one is in the other. One that is renamed later is read under
# its new name. Data files are looked at in between: a message whose data file is not seen has just arrived when the
# first look does not have it.
list() { # [MOST BUDGET]: bytes of headers of a message, and of all of them
    awk -v client="$client" -v most="${1:-0}" -v budget="${2:-0}" "$queue_file"'
    function other(path,    name) { # a hold or a release has renamed it since; a name that was listed has its own turn
        letter = letter == "q" ? "h" : "q"
        name = place "/" letter "f" id
        return (name in early || name in late) ? -1 : whole(name)
    }
    function tell(path, state) {
        if (state < 0 || (state == 0 && ((path in locked) || size == 0))) return # left, or is being received
        if (state == 0) { print "?" id; return }
        is_client = index(place "/", client "/") == 1
        printf ">%s %s %d %d %s %d %d %d %d\n%s", id, letter, is_client, (path in locked), T, N, K, header, body[id], text
        if (most) { printf "%s", headers; if ((budget -= length(headers)) <= 0) most = 0 }
        told++
    }
    FILENAME == ARGV[1] { locked[$0]; next }
    FILENAME == ARGV[2] { early[$1] = 0; next }
    {
        letter = substr($1, 1, 1); id = substr($1, 3)
        if (letter == "d") { body[id] = $2; next }
        place = $3; size = $2; path = place "/" $1
        if (letter == "Q") { lost++; if (path in early) early[path] = 1; next }
        if (path in early) early[path] = 1
        else {
            late[path]
            if (!(id in body)) next
        }
        state = whole(path)
        if (state < 0) gone[path] = $0; else tell(path, state)
    }
    END {
        for (path in gone) {
            split(gone[path], word, " ")
            letter = substr(word[1], 1, 1); id = substr(word[1], 3); size = word[2]; place = word[3]
            tell(path, other(path))
        }
        for (path in early) if (!early[path] && match(path, /\/[qh]f[^\/]*$/)) {
            id = substr(path, RSTART + 3); letter = substr(path, RSTART + 1, 1); size = 0; place = substr(path, 1, RSTART - 1)
            state = whole(path)
            if (state < 0) state = other(path)
            tell(path, state)
        }
        print "end", told + 0, lost + 0
    }' "$work/locks" "$work/early" "$work/looks"
}

case $action in
list | headers)
    locked >"$work/locks"
    look qhQ '%h/%f\n' >"$work/early"
    look d '%f %s\n' >"$work/looks"
    look qhQ '%f %s %h\n' >>"$work/looks"
    if [ "$action" = headers ]; then list 131072 134217728; else list; fi
    ;;
contents)
    read -r budget header_limit body_limit || exit 64
    case $budget$header_limit$body_limit in
    *[!0-9]*) exit 64 ;;
    esac
    cat >"$work/ids" || exit 74
    [ "$(grep -vc '^[0-9A-Za-z][0-9A-Za-z]*$' "$work/ids")" = 0 ] || exit 64
    look qhdQ '%f %s %h\n' >"$work/looks"
    look qhdQ '%f %s %h\n' >>"$work/looks"
    sure awk 'FILENAME == ARGV[1] { letter = substr($1, 1, 1); id = substr($1, 3)
            if (letter == "d") data[id] = $3 "/" $1 " " $2
            else if (letter != "Q") queue[id] = $3 "/" $1
            next }
        { print $1, ($1 in queue) ? queue[$1] : "-", ($1 in data) ? data[$1] : "- 0" }' "$work/looks" "$work/ids" |
        awk -v budget="$budget" -v limit="$header_limit" -v body="$body_limit" '
        function plain(text,    at, before) { # without the byte that marks bytes which Sendmail uses itself
            before = ""
            while (at = match(text, /\377[\200-\237\377]/)) {
                before = before substr(text, 1, at - 1) substr(text, at + 1, 1)
                text = substr(text, at + 2)
            }
            return before text
        }
        {
            text = ""; skip = 0
            if ($2 == "-" || (getline line < $2) < 0) { print $1, "absent"; next }
            do {
                if (line == ".") break
                code = substr(line, 1, 1)
                if (code == "H") {
                    skip = line ~ /^H\?P\?Return-Path:/
                    sub(/^H(\?[^?]*\?)?/, "", line)
                } else if (code != " " && code != "\t") skip = 1
                if (!skip && length(text) < limit) text = text plain(line) "\n"
            } while ((getline line < $2) > 0)
            close($2)
            text = substr(text, 1, limit)
            size = $4 < body ? $4 : body
            if (size > 0 && (getline line < $3) < 0) { print $1, "absent"; next }
            close($3)
            printf "%s 0 %d %d\n%s", $1, length(text), size, text
            if (size > 0) { fflush(); if (system("exec head -c " size " <" $3)) exit 1 }
            budget -= length(text) + size + 64
            if (budget <= 0) exit
        }' || exit 74
    echo end
    ;;
*) exit 64 ;;
esac
