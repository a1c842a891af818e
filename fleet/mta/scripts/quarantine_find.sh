#!/bin/sh
# quarantine_find.sh MTA QUEUE_DIRECTORY... (Sendmail's as in its configuration: a * at the end is a wildcard)
#
# Tells what lies in our quarantines below queue directories, whoever put it there: per directory "in DIRECTORY", then the
# paths below it of the files that make a message on that MTA. Last line "end TOLD MORE ODD": at most 20000 are told, MORE
# are not; ODD counts names with other characters than ours, or longer than 200. Follows no link, takes no lock, changes
# nothing.
# shellcheck source=prologue.sh
. "${0%/*}/prologue.sh"
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

for pattern; do
    case $mta:$pattern in
    sendmail:none) ;;
    sendmail:*[!A-Za-z0-9_./*-]* | *..* | *\**/*) exit 64 ;;
    *:/*) ;;
    *) exit 64 ;;
    esac
done

directories() { # every queue directory once
    if [ "$mta" = sendmail ]; then
        for pattern; do
            for directory in $pattern; do [ ! -d "$directory" ] || printf '%s\n' "$directory"; done
        done | awk '!seen[$0]++'
    else
        printf '%s\n' "$@"
    fi
}

look() { # in the current directory
    for top in $tops; do
        if [ ! -d "$top" ] || [ -L "$top" ]; then continue; fi
        find "./$top" -mindepth 2 -maxdepth "$deepest" -ignore_readdir_race -type f -path "$message" \
            \( -path '*[!0-9A-Za-z./-]*' -printf '?\n' -o -printf '%p\n' \)
    done
}

found=$(directories "$@")
{
    printf '%s\n' "$found" | while IFS= read -r directory; do
        [ -n "$directory" ] || continue
        echo "in $directory"
        (cd "$directory" && look) || exit
    done && echo all
} | awk '
    $0 == "all" { whole = 1; next }
    /^in / { print; next }
    $0 == "?" || length($0) > 200 { odd++; next }
    told < 20000 { print; told++; next }
    { more++ }
    END { if (!whole) exit 66; print "end", told + 0, more + 0, odd + 0 }'
