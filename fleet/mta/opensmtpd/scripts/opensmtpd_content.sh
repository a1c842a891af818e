#!/bin/sh
# opensmtpd_content.sh SMTPCTL SPOOL <"BUDGET HEADERS BODY\nID\nID..."
#
# Reads queued messages, up to so many bytes of header and body. Every message is announced by the lengths that follow
# ("ID 0 H B", then the bytes), so nothing inside a message can pose as the next one. "ID absent" when it is not queued.
# Stops after BUDGET bytes; the last line is "end". The body begins with the empty line that ends the header.
# shellcheck source=prologue.sh
. "${0%/*}/prologue.sh"
# shellcheck source=pipefail.sh
. "${0%/*}/pipefail.sh"
smtpctl=$1
cd "$2/queue" || exit 66
work=$(mktemp -d) || exit 73
trap 'rm -rf "$work"' EXIT
trap 'exit 143' HUP INT TERM
read -r budget headers_limit body_limit || exit 64
case $budget$headers_limit$body_limit in
*[!0-9]*) exit 64 ;;
esac
cat >"$work/ids" || exit 74
[ "$(grep -vcE '^[0-9a-f]{8}$' "$work/ids")" = 0 ] || exit 64

plain_one() { # ID: a message of a compressed queue, unpacked
    "$smtpctl" show message "$1" </dev/null >"$work/plain" || return
    end=$(sure seek -abm1 -E "^$(printf '\r')?\$" "$work/plain" | sure sed 's/:.*//')
    read_one "$1" "${end:--1}" "$(wc -c <"$work/plain")" 3<"$work/plain"
}

read_one() { # ID END SIZE: the message is open as 3
    end=$2
    size=$3
    [ "$size" -gt 0 ] || return # it came after we looked
    [ "${end:--1}" -ge 0 ] || end=$size
    headers=$end
    [ "$headers" -le "$headers_limit" ] || headers=$headers_limit
    body=$((size - end))
    [ "$body" -le "$body_limit" ] || body=$body_limit
    echo "$1 0 $headers $body"
    if [ "$headers" -eq "$end" ]; then
        sure head -c "$headers" <&3
    else
        sure head -c "$end" <&3 >"$work/long"
        sure head -c "$headers" "$work/long"
    fi
    [ "$body" -eq 0 ] || sure head -c "$body" <&3
    budget=$((budget - headers - body - 64))
}

# What is told of every message by one command each: the offset of its first empty line, its size, whether it is packed.
sure sed 's,^\(..\)\(.*\)$,\1/\1\2/message,' "$work/ids" >"$work/files"
{
    sure uncut xargs grep -abHm1 -E "^$(printf '\r')?\$" <"$work/files" | sure sed -n 's,^../\([0-9a-f]\{8\}\)/message:\([0-9]*\):.*,\1 end \2,p'
    sure uncut xargs stat -c '%n %s' <"$work/files" | sure sed -n 's,^../\([0-9a-f]\{8\}\)/message ,\1 size ,p'
    sure uncut xargs grep -laE "^$(printf '\037\213')" <"$work/files" | sure sed -n 's,^../\([0-9a-f]\{8\}\)/message$,\1 packed 1,p'
} 2>/dev/null >"$work/facts"
sure awk 'FILENAME == ARGV[1] { fact[$1, $2] = $3; next }
    { print $1, (($1, "end") in fact) ? fact[$1, "end"] : -1, fact[$1, "size"] + 0, fact[$1, "packed"] + 0 }' \
    "$work/facts" "$work/ids" >"$work/told"

# Headers alone need no process for each message; what is not so simple is left to the others' way. find follows no link.
# shellcheck disable=SC2016
headers_of='FILENAME == ARGV[1] { regular[$0]; next }
    {
        file = substr($1, 1, 2) "/" $1 "/message"; text = ""
        if ($4 || $2 < 0 || !$3 || !(("./" file) in regular)) { print >left; next }
        while (length(text) < $2 && length(text) <= limit && (getline line <file) > 0) text = text line "\n"
        close(file)
        if (length(text) < limit && length(text) != $2) { print >left; next }
        text = substr(text, 1, limit)
        printf "%s 0 %d 0\n%s", $1, length(text), text
        if ((used += length(text) + 64) >= budget) exit
    }
    END { print used + 0 >sum }'
if [ "$body_limit" -eq 0 ]; then
    sure search . -mindepth 3 -maxdepth 3 -type f -name message >"$work/regular"
    : >"$work/left"
    awk -v limit="$headers_limit" -v budget="$budget" -v left="$work/left" -v sum="$work/sum" "$headers_of" \
        "$work/regular" "$work/told" || exit 74
    read -r used <"$work/sum" || exit 74
    budget=$((budget - used))
    sure mv "$work/left" "$work/told"
fi
while read -r id end size packed && [ "$budget" -gt 0 ]; do
    file=${id%??????}/$id/message
    if [ -L "${id%??????}" ] || [ -L "${file%/*}" ] || [ -L "$file" ]; then
        echo "$id absent" # smtpd makes no links; whoever broke into it might
    elif [ "$packed" -eq 1 ] && [ "$(sure uncut head -c 2 "$file" 2>/dev/null | sure od -An -t x1)" = " 1f 8b" ]; then
        plain_one "$id" || exit 74
    else
        read_one "$id" "$end" "$size" 2>/dev/null 3<"$file" || echo "$id absent"
    fi
done <"$work/told" || exit
echo end
