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
function take_log(line,  head) {
    sub(/^[-0-9]+ [:.0-9]+ ([-+][0-9]+ )?/, "", line)
    if (sub(/: [^ ]+ transport succeeded$/, "", line)) { succeeded = succeeded "N " line "\n"; return }
    head = substr(line, 1, index(line, " defer (") - 1)
    if (!(head in said)) heads[++deferrals] = head
    said[head] = line
}
function broken(id) { close(place[id] "/" id "-H"); print "X " id; count++ }
function tell_one(id,  file, sender, time, usec, frozen, out, left, word, n, many, size, kind, at) {
    file = place[id] "/" id "-H"
    if ((getline text < file) <= 0) return
    out = ""; usec = 0; frozen = 0; size = 0; headers = ""
    if (text != id "-H" || (getline text < file) <= 0 || (getline text < file) <= 0 || text !~ /^<.*>$/) return broken(id)
    sender = text
    if ((getline text < file) <= 0 || split(text, word, " ") != 2 || text !~ /^[0-9]+ [0-9]+$/) return broken(id)
    time = word[1]
    while ((n = (getline text < file) > 0) && substr(text, 1, 1) == "-") {
        if (!index("-(rfa", substr(text, 2, 1)) || text !~ /^--?(\([^)]*\))?(received_time_usec|frozen|acl)/) continue
        sub(/^--?(\([^)]*\))?/, "", text)
        if (text ~ /^received_time_usec \.[0-9]+$/) usec = substr(text, 21)
        else if (text ~ /^frozen [0-9]+$/) frozen = substr(text, 8)
        else if (text ~ /^acl[cm]? [^ ]+ [0-9]+$/) {
            many = split(text, word, " ")
            left = word[many] + 1
            while (left > 0 && (getline text < file) > 0) left -= length(text) + 1
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
            if ((getline text < file) <= 0) return broken(id)
        }
    }
    if ((getline text < file) <= 0 || text !~ /^[0-9]+$/) return broken(id)
    for (many = text + 0; many > 0; many--) {
        if ((getline text < file) <= 0) return broken(id)
        out = out "R " text "\n"
    }
    if ((getline text < file) <= 0 || text != "") return broken(id)
    left = 0
    while ((getline text < file) > 0) {
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
        while ((getline text < file) > 0) out = out "N " text "\n"
        close(file)
    }
    out = out succeeded
    for (at = 1; at <= deferrals; at++) out = out "L " said[heads[at]] "\n"
    size += data[id] - length(id) - 3 + 1
    kind = is_delivering(inode[id]) ? "delivering" : frozen ? "frozen" : "queued"
    printf "M %s %s %s %s %d %s\nF %s\n%s", id, time, usec, frozen, size, kind, sender, out
    if (most) { printf "%s", headers; if ((budget -= length(headers)) <= 0) most = 0 }
    count++
}
function tell_with_log(  id) {
    id = log_path; sub(/.*\//, "", id)
    if (id in place && id in data && place[id] "/" id == log_path) {
        tell_one(id)
        delete place[id]
    }
    if (deferrals) split("", said)
    succeeded = ""; deferrals = 0
}
!is_log && $1 != "" {
    id = substr($3, 1, length($3) - 2)
    kind = substr($3, length($3))
    if (id !~ /^[0-9A-Za-z]+-[0-9A-Za-z]+-[0-9A-Za-z]+$/ || $4 !~ /^\.(\/[0-9A-Za-z])?$/) next
    if (kind == "H") place[id] = $4
    else if (kind == "D") { data[id] = $1; inode[id] = $2 }
    else has_journal[id]
    next
}
!is_log { is_log = has_text = 1; read_locks(); next }
has_text && substr($0, 1, 4) == "==> " && /^==> [.\/0-9A-Za-z-]+ <==$/ {
    tell_with_log()
    log_path = $2
    has_text = 0
    next
}
{
    has_text = 1
    if (index($0, " defer (") || / transport succeeded$/) take_log($0)
}
END {
    tell_with_log()
    for (id in place) if (id in data) tell_one(id)
    print "end " count + 0
}'

logs() { # one after the other, and an empty line behind each lot
    [ -d ../msglog ] || return 0
    cd ../msglog || exit 74
    sure search . -maxdepth 2 -type f -name '*-*-*' -print0 | # a log that is not there any more is none
        sure uncut xargs -0 -r sh -c 'tail -v -c 8192 -- "$@" 2>/dev/null; [ $? -le 1 ] || exit 255; echo' tail
}

{
    sure search . -maxdepth 2 -type f -name '*-[HDJ]' ! -path '*[!0-9A-Za-z./-]*' -printf '%s %i %f %h\n'
    echo # only we end the files: no name has a newline
    logs
} |
    sure awk -v most="${most:-0}" -v budget="${budget:-0}" "$tell"
