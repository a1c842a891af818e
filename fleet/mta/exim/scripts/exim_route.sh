#!/bin/sh
# exim_route.sh PROGRAM <lines
#
# `exim -bt` of the address in the first line of stdin, for the sender in the second (empty: none, <>: the null sender),
# between "test" and "tested N" (its exit status), then "hostname NAME" and "end". An address test sends nothing.
# shellcheck source=prologue.sh
. "${0%/*}/prologue.sh"

program=$1
case $program in
/*) ;;
*) exit 64 ;;
esac
IFS= read -r address
IFS= read -r sender
[ -z "$sender" ] || set -- -f "$sender"
[ -n "$sender" ] || set --
echo test
printf '%s\n' "$address" | timeout 90 "$program" "$@" -bt 2>/dev/null
status=$?
echo
echo "tested $status"
"$program" -bP primary_hostname | sed -n 's/^primary_hostname = /hostname /p'
echo end
