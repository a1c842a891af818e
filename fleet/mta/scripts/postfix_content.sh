#!/bin/sh
# postfix_content.sh COMMAND_DIRECTORY CONFIG_DIRECTORY <"BUDGET ENVELOPE HEADERS BODY\nID\nID..."
#
# Reads queued messages with postcat(1), up to so many bytes of each part. Every message is announced by the lengths
# that follow ("ID E H B", then the bytes), so nothing inside a message can pose as the next one. "ID absent" when it is
# not queued. Stops after BUDGET bytes; the last line is "end".
set -u
umask 077
LC_ALL=C
export LC_ALL
work=$(mktemp -d) || exit 73
trap 'rm -rf "$work"' EXIT
trap 'exit 143' HUP INT TERM

part() { # FLAG LIMIT ID
    : >"$work/$1"
    [ "$2" -gt 0 ] || return 0
    { "$postcat" -c "$config" "-$1" -q "$3" 2>>"$work/stderr" || echo absent >"$work/status"; } |
        head -c "$2" >"$work/$1"
}

postcat=$1/postcat
config=$2
read -r budget envelope_limit headers_limit body_limit || exit 64
case $budget$envelope_limit$headers_limit$body_limit in
*[!0-9]*) exit 64 ;;
esac
while read -r id; do
    case $id in
    '' | *[!0-9A-Za-z]*) exit 64 ;;
    esac
    [ "$budget" -gt 0 ] || break
    rm -f "$work/status" "$work/stderr"
    part e "$envelope_limit" "$id"
    [ -e "$work/status" ] || part h "$headers_limit" "$id"
    if grep -q 'fatal: open queue file' "$work/stderr" 2>/dev/null; then
        if grep -q 'No such file' "$work/stderr"; then
            printf '%s absent\n' "$id"
            continue
        fi
        cat "$work/stderr" >&2
        exit 1
    fi
    part b "$body_limit" "$id"
    envelope=$(wc -c <"$work/e")
    headers=$(wc -c <"$work/h")
    body=$(wc -c <"$work/b")
    budget=$((budget - envelope - headers - body - 64))
    printf '%s %d %d %d\n' "$id" "$envelope" "$headers" "$body"
    cat "$work/e" "$work/h" "$work/b"
done
echo end
