#!/bin/sh
# postfix_times.sh QUEUE_DIRECTORY <queue IDs
#
# For those of the IDs that lie in deferred/: "ID CTIME", then "end". The queue manager moves a file for every attempt and
# sets its next one in the times, so another ctime means that an attempt was made. Changes nothing.
# shellcheck source=prologue.sh
. "${0%/*}/prologue.sh"
# shellcheck source=pipefail.sh
. "${0%/*}/pipefail.sh"
ids=$(mktemp) || exit 73
trap 'rm -f "$ids"' EXIT
trap 'exit 143' HUP INT TERM
cat >"$ids" || exit 74
sure search "$1/deferred" -type f -printf '%f %C@\n' | sure awk 'NR == FNR { wanted[$1]; next } $1 in wanted' "$ids" -
echo end
