#!/bin/sh
# toy_list.sh QUEUE_DIRECTORY <"JOB\n"
#
# The queue, or for a JOB its quarantine: "M ID STATE SECOND SIZE LENGTH SENDER RECIPIENT..." of each message, LENGTH the
# sender's; last "end COUNT". Looks twice, for a file that is renamed during one look is in the other. Changes nothing.
# shellcheck source=prologue.sh
. "${0%/*}/prologue.sh"
# shellcheck source=pipefail.sh
. "${0%/*}/pipefail.sh"
read -r job || exit 64
case $job in
*[!0-9A-Za-z-]*) exit 64 ;;
esac
cd "$1" || exit 66
[ -z "$job" ] || [ -d "mxfleet-quarantine/$job" ] || { echo 'end 0' && exit; }
[ -z "$job" ] || cd "mxfleet-quarantine/$job" || exit 66
look() { sure search . -maxdepth 1 -type f -name '[0-9A-F]*' -printf '%f %T@ %s\n'; }
{ look && look; } | sure awk '
    function read(path,    is_there) {
        if (is_there = (getline sender < path) > 0) getline recipients < path
        close(path)
        return is_there
    }
    {
        id = substr($1, 1, 8)
        if (id in told) next
        state = read(id) ? "free" : read(id ".held") ? "held" : read(id ".busy") ? "busy" : ""
        if (state == "") next
        told[id]
        printf "M %s %s %d %s %d %s %s\n", id, state, $2, $3, length(sender), sender, recipients
        count++
    }
    END { print "end", count + 0 }'
