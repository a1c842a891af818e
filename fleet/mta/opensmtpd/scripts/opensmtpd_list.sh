#!/bin/sh
# opensmtpd_list.sh SMTPCTL SPOOL
#
# The queue: for each message "ID SIZE", followed by its envelopes as `smtpctl show queue` prints them. Sorted, so that
# the lines of one message stand together. The first line is "!TIME", in epoch seconds; "~listed" and "end" are the last lines. The size
# is that of the message file, also of one that a removal of ours has just put aside. Changes nothing.
# shellcheck source=prologue.sh
. "${0%/*}/prologue.sh"
# shellcheck source=pipefail.sh
. "${0%/*}/pipefail.sh"
smtpctl=$1
cd "$2/queue" || exit 66

sizes() {
    set -- ../mxfleet-quarantine/*
    [ -e "$1" ] || set --
    sure search . "$@" -name message -type f -printf '%h %s\n' | sure sed -n 's,^\(.*/\)*\([0-9a-f]\{8\}\) ,\2 ,p'
}

# A message may arrive or leave while we look: sizes are read before and after, and the parser takes the first.
{
    echo "!$(date +%s)"
    sizes
    "$smtpctl" show queue && echo '~listed'
    sizes
} | sure sort -u -S 16M | awk '{ print } /^~listed$/ { is_listed = 1 } END { exit !is_listed }' || exit
echo end
