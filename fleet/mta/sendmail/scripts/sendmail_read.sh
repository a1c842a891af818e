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

look() { # TESTS...
    # shellcheck disable=SC2086
    sure search -H $places -maxdepth 1 -type f ! -name '*[!0-9A-Za-z]*' \( "$@" \)
}

# whole(PATH) reads a queue file: 1 whole, 0 not, -1 gone. T, K and N of the file, `text` to tell, `headers`, and `header`,
# their bytes. A file is taken apart as one text: a step for each line costs awk more than the reading.
queue_file='
    function contents(path,    part, file, at) { # RS is a byte that a file hardly has
        RS = "\001"
        while ((at = (getline part < path)) > 0) file = file == "" ? part : file RS part
        RS = "\n"
        close(path)
        is_gone = at < 0
        return file
    }
    function begins() { return text ~ /^\nV[2-8]([^0-9\n][^\n]*)?\nT[0-9]+\nK[0-9]*\nN[0-9]*\n/ }
    function is_ordered(    at, end) { # as Sendmail writes it: V, T, K and N, others, S before R, headers, the end
        at = index(text, "\nH")
        end = length(text) - 2
        return at && begins() && !index(text, "\n\n") && match(text, /\n[SR]/) && substr(text, RSTART, 2) == "\nS" &&
            index(text, "\n.\n") == end && match(substr(text, at + 1), /\n[^H \t]/) == end - at
    }
    function order(    line, lines, at, code, last, value, others, fields) {
        lines = split(text, line, "\n")
        for (at = 2; at < lines && line[at] != "."; at++) {
            code = substr(line[at], 1, 1)
            if (code != " " && code != "\t") last = code
            if (last == "H") fields = fields "\n" line[at]
            else if (code == "" || (code == "M" && !("S" in value))) continue # M before S is of no recipient
            else if (index("VTKNS", code)) value[code] = substr(line[at], 2)
            else others = others "\n" line[at]
        }
        if (at >= lines || !("S" in value)) return 0
        text = "\nV" value["V"] "\nT" value["T"] "\nK" value["K"] "\nN" value["N"] "\nS" value["S"]
        text = text others fields "\n.\n"
        return begins()
    }
    function whole(path,    at, rest, line) {
        text = "\n" contents(path)
        if (is_gone) return -1
        is_empty = text == "\n"
        if (!is_ordered() && !order()) return 0
        split(substr(text, 1, 99), line, "\n")
        T = substr(line[3], 2); K = substr(line[4], 2); N = substr(line[5], 2)
        if (!(at = index(text, "\nH"))) at = length(text) - 2
        headers = substr(text, at, length(text) - at - 2)
        text = substr(text, 1, at - 1)
        while (at = index(headers, "\nH?P?Return-Path:")) {
            rest = substr(headers, at + 1)
            headers = substr(headers, 1, at - 1) (match(rest, /\n[^ \t]/) ? substr(rest, RSTART) : "")
        }
        header = -gsub(/\nH(\?[^?\n]*\?)?/, "\nH", headers)
        header += length(headers)
        if (index(headers, "\377")) { rest = headers; header -= gsub(/\377[\200-\237\377]/, "", rest) }
        at = index(text, "\nS")
        rest = substr(text, 1, at - 1)
        text = (match(rest, /\nq[^\n]*/) ? substr(rest, RSTART, RLENGTH) : "") substr(text, at)
        gsub(/\n[^SqRM][^\n]*/, "", text)
        return 1
    }
'

# Queue files from two looks: a file that is renamed during one is in the other. One that is renamed later is read under
# its new name. Data files are looked at in the second: a message whose data file is not seen has just arrived when the
# first look does not have it.
list() { # [MOST BUDGET]: bytes of headers of a message, and of all of them
    awk -v client="$client" -v most="${1:-0}" -v budget="${2:-0}" "$queue_file"'
    function other(path,    name) { # a hold or a release has renamed it since; a name that was listed has its own turn
        letter = letter == "q" ? "h" : "q"
        name = place "/" letter "f" id
        return (name in early || name in late) ? -1 : whole(name)
    }
    function tell(path, state,    is_client) {
        if (state < 0 || (state == 0 && ((path in locked) || is_empty))) return # left, or is being received
        if (state == 0) { print "?" id; return }
        is_client = index(place "/", client "/") == 1
        printf ">%s %s %d %d %s %d %d %d %d", id, letter, is_client, (path in locked), T, N, K, header, body[id]
        print text
        if (most) {
            headers = substr(headers, 2, most)
            if (headers != "") print headers
            if ((budget -= length(headers)) <= 0) most = 0
        }
        told++
    }
    function take_apart(path) {
        match(path, /[^\/]*$/)
        place = substr(path, 1, RSTART - 2); letter = substr(path, RSTART, 1); id = substr(path, RSTART + 2)
    }
    look == "locks" { locked[$0]; next }
    look == "early" { early[$0] = 0; next }
    look == "data" { body[substr($1, 3)] = $2; next }
    {
        letter = substr($1, 1, 1); id = substr($1, 3); place = $2; path = place "/" $1
        if (letter == "Q") lost++
        if (path in early) early[path] = 1
        else {
            late[path]
            if (!(id in body)) next
        }
        if (letter == "Q") next
        state = whole(path)
        if (state < 0) gone[path]; else tell(path, state)
    }
    END {
        for (path in gone) { take_apart(path); tell(path, other(path)) }
        for (path in early) {
            take_apart(path)
            if (early[path] || letter == "Q") continue
            state = whole(path)
            if (state < 0) state = other(path)
            tell(path, state)
        }
        print "end", told + 0, lost + 0
    }' look=locks "$work/locks" look=early "$work/early" look=data "$work/data" look=names "$work/names"
}

case $action in
list | headers)
    locked >"$work/locks"
    look -name '[qhQ]f*' -printf '%h/%f\n' >"$work/early"
    look -name 'df*' -fprintf "$work/data" '%f %s\n' -o -name '[qhQ]f*' -printf '%f %h\n' >"$work/names"
    if [ "$action" = headers ]; then list 131072 134217728; else list; fi
    ;;
contents)
    read -r budget header_limit body_limit || exit 64
    case $budget$header_limit$body_limit in
    *[!0-9]*) exit 64 ;;
    esac
    cat >"$work/ids" || exit 74
    [ "$(grep -vc '^[0-9A-Za-z][0-9A-Za-z]*$' "$work/ids")" = 0 ] || exit 64
    look -name '[qhdQ]f*' -printf '%f %s %h\n' >"$work/looks"
    look -name '[qhdQ]f*' -printf '%f %s %h\n' >>"$work/looks"
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
