#!/bin/sh
# postfix_log.sh SOURCE <texts, one per line
#
# The mail log's lines that contain any of the texts, then "end". SOURCE: a file, or journald. Changes nothing.
# shellcheck source=prologue.sh
. "${0%/*}/prologue.sh"
texts=$(mktemp) || exit 73
trap 'rm -f "$texts"' EXIT
trap 'exit 143' HUP INT TERM
cat >"$texts"
[ -s "$texts" ] || exit 64
case $1 in
journald) journalctl -q --no-pager -o short-iso --since -2d | grep -aFf "$texts" ;;
/*) tail -c 268435456 "$1" | grep -aFf "$texts" ;;
*) exit 64 ;;
esac
echo end
