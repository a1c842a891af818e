#!/bin/sh
# opensmtpd_log.sh SOURCE <message ID
#
# The mail log's lines about deliveries of that message, then "end". SOURCE: a file, or journald. Changes nothing.
# shellcheck source=prologue.sh
. "${0%/*}/prologue.sh"
read -r id || exit 64
case $id in
'' | *[!0-9a-f]*) exit 64 ;;
esac
case $1 in
journald) journalctl -q --no-pager -o short-iso --since -2d | grep -aE " evpid=${id}[0-9a-f]{8} " ;;
/*) tail -c 268435456 "$1" | grep -aE " evpid=${id}[0-9a-f]{8} " ;;
*) exit 64 ;;
esac
echo end
