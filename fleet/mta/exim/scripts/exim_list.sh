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
function contents(file,  part, text) { # in one piece: RS is a byte that a file hardly has
    RS = "\001"
    while ((getline part < file) > 0) text = text == "" ? part : text RS part
    RS = "\n"
    close(file)
    return text
}
function broken(id) { print "X " id; count++ }
function number(digits) { sub(/^0+/, "", digits); return digits + 0 } # busybox takes 022 for an octal number
function journal(path,  line, out) {
    path = path "-J"
    while ((getline line < path) > 0) out = out "N " line "\n"
    close(path)
    return out
}
function tell(path,  text, id, line, lines, at, time, usec, frozen, out, left, word, many, size, kind, start, headers) {
    text = contents(path "-H")
    if (text == "") return # it left, or is being received
    id = substr(path, substr(path, 4, 1) == "/" ? 5 : 3)
    lines = split(text, line, "\n")
    if (line[lines] == "") lines--
    if (lines < 6 || line[1] != id "-H" || line[3] !~ /^<.*>$/ || line[4] !~ /^[0-9]+ [0-9]+$/) return broken(id)
    time = substr(line[4], 1, index(line[4], " ") - 1)
    usec = frozen = size = 0
    for (at = 5; substr(line[at], 1, 1) == "-"; at++) {
        text = line[at]
        if (!index("-(rfa", substr(text, 2, 1)) || text !~ /^--?(\([^)]*\))?(received_time_usec|frozen|acl)/) continue
        sub(/^--?(\([^)]*\))?/, "", text)
        if (text ~ /^received_time_usec \.[0-9]+$/) usec = substr(text, 21)
        else if (text ~ /^frozen [0-9]+$/) frozen = substr(text, 8)
        else if (text ~ /^acl[cm]? [^ ]+ [0-9]+$/) {
            many = split(text, word, " ")
            left = word[many] + 1
            while (left > 0 && at < lines) left -= length(line[++at]) + 1
        }
    }
    if (line[at] != "XX") {
        for (left = 1; left; left += (text ~ /^Y/) + (text ~ /^.Y/) - 1) {
            text = line[at++]
            if (text !~ /^[YN][YN] /) return broken(id)
            out = out "N " substr(text, 4) "\n"
        }
        at--
    }
    if (line[++at] !~ /^[0-9]+$/ || at + line[at] >= lines) return broken(id)
    for (many = at + line[at]; at < many;) out = out "R " line[++at] "\n"
    if (line[++at] != "") return broken(id)
    left = 0
    while (at < lines) {
        text = line[++at]
        if (!left) { # three digits or more, a letter, a blank, and so many bytes
            start = match(text, /[^0-9]/)
            if (start < 2) return broken(id)
            left = number(substr(text, 1, start - 1))
            kind = substr(text, start, 1)
            text = substr(text, start + 2)
            if (kind != "*") size += left
        }
        left -= length(text) + 1
        if (left < 0) return broken(id)
        if (most && kind != "*" && length(headers) <= most) headers = headers "H" text "\n"
    }
    if (path in has_journal) out = out journal(path)
    out = out succeeded
    for (at = 1; at <= deferrals; at++) out = out "L " said[heads[at]] "\n"
    size += data[path] - length(id) - 3 + 1
    kind = is_delivering(inode[path]) ? "delivering" : frozen ? "frozen" : "queued"
    printf "M %s %s %s %s %d %s\nF %s\n%s", id, time, usec, frozen, size, kind, line[3], out
    if (most) { printf "%s", headers; if ((budget -= length(headers)) <= 0) most = 0 }
    count++
}
function tell_with_log() {
    if (log_path in data) {
        tell(log_path)
        delete data[log_path]
    }
    if (deferrals) split("", said)
    succeeded = ""; deferrals = 0
}
!is_log && $1 != "" {
    path = $4 "/" substr($3, 1, length($3) - 2)
    if (path !~ /^\.(\/[0-9A-Za-z])?\/[0-9A-Za-z]+-[0-9A-Za-z]+-[0-9A-Za-z]+$/) next
    if (substr($3, length($3)) == "D") { data[path] = $1; inode[path] = $2 }
    else has_journal[path]
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
    for (path in data) tell(path)
    print "end " count + 0
}'

logs() { # one after the other, and an empty line behind each lot
    [ -d ../msglog ] || return 0
    cd ../msglog || exit 74
    sure search . -maxdepth 2 -type f -name '*-*-*' -print0 | # a log that is not there any more is none
        sure uncut xargs -0 -r sh -c 'tail -v -c 8192 -- "$@" 2>/dev/null; [ $? -le 1 ] || exit 255; echo' tail
}

{
    sure search . -maxdepth 2 -type f -name '*-[DJ]' ! -path '*[!0-9A-Za-z./-]*' -printf '%s %i %f %h\n'
    echo # only we end the files: no name has a newline
    logs
} |
    sure awk -v most="${most:-0}" -v budget="${budget:-0}" "$tell"
