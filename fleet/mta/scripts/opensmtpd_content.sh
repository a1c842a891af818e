#!/bin/sh
# opensmtpd_content.sh SMTPCTL SPOOL <"BUDGET HEADERS BODY\nID\nID..."
#
# Reads queued messages, up to so many bytes of header and body. Every message is announced by the lengths that follow
# ("ID 0 H B", then the bytes), so nothing inside a message can pose as the next one. "ID absent" when it is not queued.
# Stops after BUDGET bytes; the last line is "end". The body begins with the empty line that ends the header.
set -u
umask 077
LC_ALL=C
export LC_ALL
smtpctl=$1
cd "$2/queue" || exit 66
work=$(mktemp -d) || exit 73
trap 'rm -rf "$work"' EXIT
trap 'exit 143' HUP INT TERM
read -r budget headers_limit body_limit || exit 64
case $budget$headers_limit$body_limit in
*[!0-9]*) exit 64 ;;
esac
cat >"$work/ids"
! grep -qvE '^[0-9a-f]{8}$' "$work/ids" || exit 64

read_one() { # ID END: the message is open as 3
    file=/proc/self/fd/3
    end=$2
    if [ "$(head -c 2 $file | od -An -t x1)" = " 1f 8b" ]; then # queue compression
        file=$work/plain
        "$smtpctl" show message "$1" <&3 >"$file" || return
        end=$(grep -abm1 -E "^$(printf '\r')?\$" "$file" | sed 's/:.*//')
    fi
    size=$(stat -L -c %s "$file") || return
    [ "${end:--1}" -ge 0 ] || end=$size
    headers=$end
    [ "$headers" -le "$headers_limit" ] || headers=$headers_limit
    body=$((size - end))
    [ "$body" -le "$body_limit" ] || body=$body_limit
    echo "$1 0 $headers $body"
    head -c "$headers" "$file"
    [ "$body" -eq 0 ] || tail -c "+$((end + 1))" "$file" | head -c "$body"
    budget=$((budget - headers - body - 64))
}

# The header's length of every message by one grep: the offset of its first empty line.
sed 's,^\(..\)\(.*\)$,\1/\1\2/message,' "$work/ids" | xargs grep -abHm1 -E "^$(printf '\r')?\$" 2>/dev/null |
    sed -n 's,^../\([0-9a-f]\{8\}\)/message:\([0-9]*\):.*,\1 \2,p' >"$work/ends"
awk 'FILENAME == ARGV[1] { end[$1] = $2; next } { print $1, ($1 in end) ? end[$1] : -1 }' "$work/ends" "$work/ids" |
    while read -r id end && [ "$budget" -gt 0 ]; do
        read_one "$id" "$end" 2>/dev/null 3<"${id%??????}/$id/message" || echo "$id absent"
    done || exit
echo end
