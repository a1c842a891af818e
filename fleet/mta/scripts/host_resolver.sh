#!/bin/sh
# host_resolver.sh
#
# Tells how this host resolves names: "nameserver ADDRESS" in the order of /etc/resolv.conf, "host ADDRESS NAME..." for
# the lines of /etc/hosts, then "end". Changes nothing.
# shellcheck source=prologue.sh
. "${0%/*}/prologue.sh"

if [ -r /etc/resolv.conf ]; then
    awk '$1 == "nameserver" && NF > 1 { print "nameserver", $2 }' /etc/resolv.conf
fi
if [ -r /etc/hosts ]; then
    awk '{ sub(/#.*/, "") } NF > 1 { print "host", $0 }' /etc/hosts | head -n 2000
fi
echo end
