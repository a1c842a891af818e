#!/bin/sh
# quarantine_find.sh MTA QUEUE_DIRECTORY... (Sendmail's as in its configuration: a * at the end is a wildcard)
#
# Tells what lies in our quarantines below queue directories, whoever put it there: per directory "in DIRECTORY", then the
# paths below it of the files that make a message on that MTA. Last line "end TOLD MORE ODD": at most 20000 are told, MORE
# are not; ODD counts names with other characters than ours, or longer than 200. Follows no link, takes no lock, changes
# nothing.
# shellcheck source=prologue.sh
. "${0%/*}/prologue.sh"
# shellcheck source=pipefail.sh
. "${0%/*}/pipefail.sh"
# shellcheck source=sendmail_queues.sh
. "${0%/*}/sendmail_queues.sh"
mta=$1
shift
tops=mxfleet-quarantine
deepest=3
case $mta in
postfix) message='./*/*/*' deepest=2 ;;
sendmail) message='./*/*/[qh]f*' deepest=2 ;;
opensmtpd) message='./*/*/*/message' ;;
qmail) message='./*/*/mess/*' ;;
exim) message='./*/input/*-H' tops='mxfleet-*' ;; # a named queue for each job, flat or split
*) exit 64 ;;
esac

if [ "$mta" = sendmail ]; then
    find_queues "$@"
    # shellcheck disable=SC2086,SC2154 # paths without blanks, which find_queues has found
    set -- $found
fi
for directory; do
    case $directory in
    *..*) exit 64 ;;
    /*) ;;
    *) exit 64 ;;
    esac
done
[ $# -gt 0 ] || exit 66

look() { # in the current directory
    for top in $tops; do
        if [ ! -d "$top" ] || [ -L "$top" ]; then continue; fi
        sure search "./$top" -mindepth 2 -maxdepth "$deepest" -type f -path "$message" \
            \( -path '*[!0-9A-Za-z./-]*' -printf '?\n' -o -printf '%p\n' \)
    done
}

for directory; do
    echo "in $directory"
    (sure cd "$directory" && look)
done | sure awk '
    /^in / { print; next }
    $0 == "?" || length($0) > 200 { odd++; next }
    told < 20000 { print; told++; next }
    { more++ }
    END { print "end", told + 0, more + 0, odd + 0 }'
