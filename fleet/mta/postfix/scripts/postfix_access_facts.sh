#!/bin/sh
# What decides about blocking senders on one instance. Reads only, needs no root; sections begin with "== ".
#   postfix_access_facts.sh CONFIG_DIR PARAMETER...
# shellcheck source=prologue.sh
. "${0%/*}/prologue.sh"
config=$1
shift
echo "== settings"
postconf -c "$config" -x "$@" || exit
echo "== written"
postconf -c "$config" smtpd_sender_restrictions || exit
echo "== services"
postconf -c "$config" -M || exit
echo "== overrides"
postconf -c "$config" -xP 2>/dev/null || exit
echo "== types"
postconf -c "$config" -m || exit
echo "== addresses"
hostname -I 2>/dev/null
echo "== end"
