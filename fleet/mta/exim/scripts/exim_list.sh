#!/bin/sh
# exim_list.sh SPOOL_DIRECTORY <"QUEUE\nMOST BUDGET"
#
# Lists a queue from its spool files (Exim's specification, "Format of spool files"): the main queue for an empty line, or
# one of our named queues. Per message "M ID TIME USEC FROZEN SIZE WORD", then "F <sender>", "R recipient" as the -H file
# has it, "N address" for what is done (by the -H and -J files and the message log), "L text" for the last deferral of an
# address in the message log (its last 8 KiB).
# FROZEN: epoch seconds or 0. WORD: delivering when an Exim process holds the lock on the -D file, else frozen or queued.
# With the second line also its header, "H" before each line: at least MOST bytes of it, and none after BUDGET bytes of all.
# "X ID" for a file that is not in the format. Last line: "end COUNT". Changes nothing.
# shellcheck source=prologue.sh
. "${0%/*}/prologue.sh"
# shellcheck source=pipefail.sh
. "${0%/*}/pipefail.sh"
IFS= read -r queue || exit 64
case $queue in
'' | mxfleet-*) ;;
*) exit 64 ;;
esac
case $queue in
*[!0-9A-Za-z-]*) exit 64 ;;
esac
most=0
budget=0
read -r most budget || :
case $most$budget in
*[!0-9]*) exit 64 ;;
esac
cd "$1" || exit 66
if [ -n "$queue" ] && [ ! -d "$queue" ]; then
    echo "end 0"
    exit 0
fi
cd "./$queue" || exit 66
# A queue that never had a message has no directory yet.
if [ ! -e input ]; then
    echo "end 0"
    exit 0
fi
cd input || exit 66

# shellcheck disable=SC2016
tell='
function read_locks(  line, word, part) {
    while ((getline line < "/proc/locks") > 0) {
        split(line, word, " ")
        if (word[2] != "POSIX" || word[4] != "WRITE") continue
        split(word[6], part, ":")
        locker[part[3]] = word[5]
    }
    close("/proc/locks")
}
function is_delivering(inode,  file, name) {
    if (!(inode in locker)) return 0
    file = "/proc/" locker[inode] "/comm"
    name = ""
    getline name < file
    close(file)
    return name == "" || name ~ /^exim/
}
function read_logs(from, to,  at, many, command, line, id, has_text, head) {
    command = "cd ../msglog 2>/dev/null && tail -v -c 8192 --"
    many = 0
    for (at = from; at <= to; at++) if (name[at] in has_log) {
        command = command " " place[name[at]] "/" name[at]
        many++
    }
    command = command " 2>/dev/null; [ $? -le 1 ] && printf \"\\n%s\\n\" " told
    split("", said); split("", heads); split("", succeeded)
    if (!many) return
    has_text = 1
    line = ""
    while ((command | getline line) > 0) {
        if (has_text && line ~ /^==> [.\/0-9A-Za-z-]+ <==$/) {
            id = line; sub(/ <==$/, "", id); sub(/.*\//, "", id)
            has_text = 0
            continue
        }
        has_text = 1
        if (line !~ / defer \(| transport succeeded$/) continue
        sub(/^[-0-9]+ [:.0-9]+ ([-+][0-9]+ )?/, "", line)
        if (sub(/: [^ ]+ transport succeeded$/, "", line)) {
            succeeded[id] = succeeded[id] "N " line "\n"
            continue
        }
        head = id " " substr(line, 1, index(line, " defer (") - 1)
        if (!(head in said)) heads[id] = heads[id] head "\n"
        said[head] = line
    }
    close(command)
    if (line != told) exit 74 # a log that is not there any more is none
}
function broken(id) { close(place[id] "/" id "-H"); print "X " id; count++ }
function next_line(file) { return (getline text < file) > 0 }
function tell_one(id,  file, sender, time, usec, frozen, out, left, word, n, many, size, kind, at) {
    file = place[id] "/" id "-H"
    if (!next_line(file)) return
    out = ""; usec = 0; frozen = 0; size = 0; headers = ""
    if (text != id "-H" || !next_line(file) || !next_line(file) || text !~ /^<.*>$/) return broken(id)
    sender = text
    if (!next_line(file) || split(text, word, " ") != 2 || text !~ /^[0-9]+ [0-9]+$/) return broken(id)
    time = word[1]
    while ((n = next_line(file)) && substr(text, 1, 1) == "-") {
        if (text !~ /^--?(\([^)]*\))?(received_time_usec|frozen|acl)/) continue
        sub(/^--?(\([^)]*\))?/, "", text)
        if (text ~ /^received_time_usec \.[0-9]+$/) usec = substr(text, 21)
        else if (text ~ /^frozen [0-9]+$/) frozen = substr(text, 8)
        else if (text ~ /^acl[cm]? [^ ]+ [0-9]+$/) {
            many = split(text, word, " ")
            left = word[many] + 1
            while (left > 0 && next_line(file)) left -= length(text) + 1
        }
    }
    if (!n) return broken(id)
    if (text != "XX") {
        left = 1
        for (;;) {
            if (text !~ /^[YN][YN] /) return broken(id)
            out = out "N " substr(text, 4) "\n"
            left += (substr(text, 1, 1) == "Y") + (substr(text, 2, 1) == "Y") - 1
            if (!left) break
            if (!next_line(file)) return broken(id)
        }
    }
    if (!next_line(file) || text !~ /^[0-9]+$/) return broken(id)
    for (many = text + 0; many > 0; many--) {
        if (!next_line(file)) return broken(id)
        out = out "R " text "\n"
    }
    if (!next_line(file) || text != "") return broken(id)
    left = 0
    while (next_line(file)) {
        if (left == 0) {
            if (!match(text, /^[0-9]+/)) return broken(id)
            left = substr(text, 1, RLENGTH) + 0
            kind = substr(text, RLENGTH + 1, 1)
            if (kind != "*") size += left
            left -= length(text) - RLENGTH - 2 + 1
            if (most) text = substr(text, RLENGTH + 3)
        } else left -= length(text) + 1
        if (most && kind != "*" && length(headers) <= most) headers = headers "H" text "\n"
        if (left < 0) return broken(id)
    }
    close(file)
    if (id in has_journal) {
        file = place[id] "/" id "-J"
        while (next_line(file)) out = out "N " text "\n"
        close(file)
    }
    out = out succeeded[id]
    many = split(heads[id], word, "\n")
    for (at = 1; at < many; at++) out = out "L " said[word[at]] "\n"
    size += data[id] - length(id) - 3 + 1
    kind = is_delivering(inode[id]) ? "delivering" : frozen ? "frozen" : "queued"
    printf "M %s %s %s %s %d %s\nF %s\n%s", id, time, usec, frozen, size, kind, sender, out
    if (most) { printf "%s", headers; if ((budget -= length(headers)) <= 0) most = 0 }
    count++
}
$1 == "log" { has_log[$2]; next }
{
    id = substr($3, 1, length($3) - 2)
    kind = substr($3, length($3))
    if (id !~ /^[0-9A-Za-z]+-[0-9A-Za-z]+-[0-9A-Za-z]+$/ || $4 !~ /^\.(\/[0-9A-Za-z])?$/) next
    if (kind == "H") { name[++messages] = id; place[id] = $4 }
    else if (kind == "D") { data[id] = $1; inode[id] = $2 }
    else has_journal[id]
}
END {
    read_locks()
    for (first = 1; first <= messages; first += 500) {
        last = first + 499 < messages ? first + 499 : messages
        read_logs(first, last)
        for (at = first; at <= last; at++) if (name[at] in data) tell_one(name[at])
    }
    print "end " count + 0
}'
{
    [ ! -d ../msglog ] || (cd ../msglog && sure search . -maxdepth 2 -type f -name '*-*-*' -printf 'log %f\n')
    sure search . -maxdepth 2 -type f -name '*-[HDJ]' -printf '%s %i %f %h\n'
} |
    sure awk -v most="${most:-0}" -v budget="${budget:-0}" -v told==all "$tell"
