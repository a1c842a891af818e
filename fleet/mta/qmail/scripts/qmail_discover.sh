#!/bin/sh
# qmail_discover.sh
#
# For every qmail home directory: "home DIRECTORY", "flavour qmail" (1.03), netqmail or notqmail where its programs can be
# read, what its queue looks like ("queue SPLIT TODO_SPLIT", or "queue unreadable" for an account that may not look),
# "control FILE LINE" of the files that name our domains, and the programs svc and svstat. Then every service of
# daemontools: "service DIRECTORY", "run LINE" of its run file, "log LINE" of its log's. The last line is "end". Says
# "absent" where there is no qmail. Changes nothing.
# shellcheck source=prologue.sh
. "${0%/*}/prologue.sh"
# shellcheck source=pipe.sh
. "${0%/*}/pipe.sh"
PATH=$PATH:/command

numbered() { # DIRECTORY: how many subdirectories have a number as their name
    count=0
    for each in "$1"/[0-9]*; do
        case ${each##*/} in
        *[!0-9]*) ;;
        *) [ ! -d "$each" ] || count=$((count + 1)) ;;
        esac
    done
    echo "$count"
}

lines() { # WORD FILE: the file's lines, continued ones joined, comments left out
    word=$1
    file=$2
    [ ! -f "$file" ] || [ ! -r "$file" ] || both beginning in_lines || exit 74
}

beginning() {
    head -c 65536 "$file"
}

in_lines() {
    both without_nul marked
}

without_nul() {
    tr -d '\000'
}

marked() {
    sed -n -e ':a' -e '/\\$/{' -e '$!N' -e '}' -e 's/\\\n/ /' -e 'ta' -e '/^[[:space:]]*#/d' \
        -e '/[^[:space:]]/s/^/'"$word"' /p'
}

flavour() { # PROGRAM: whose home page smtpd's help names
    [ -r "$1" ] || return 0
    for word in notqmail netqmail qmail; do
        ! grep -aqF "214 $word home page" "$1" || { echo "flavour $word" && return; }
    done
}

tell_home() {
    echo "home $1"
    flavour "$1/bin/qmail-smtpd"
    if [ -x "$1/queue" ] && [ -r "$1/queue/mess" ]; then
        echo "queue $(numbered "$1/queue/mess") $(numbered "$1/queue/todo")"
    else
        echo "queue unreadable"
    fi
    for file in me locals rcpthosts virtualdomains; do
        lines "control $file" "$1/control/$file"
    done
}

homes=
for home in "${QMAILHOME:-/var/qmail}" /var/qmail; do
    case " $homes " in
    *" $home "*) continue ;;
    esac
    [ -d "$home/queue" ] && [ -d "$home/control" ] || continue
    homes="$homes $home"
    tell_home "$home"
done
if [ -z "$homes" ]; then
    echo absent
    exit 0
fi
for program in svc svstat; do
    echo "program $program $(command -v "$program")"
done
seen=
for service in /service/* /etc/service/* /var/service/*; do
    [ -d "$service" ] || continue
    real=$(readlink -f "$service") || exit 74
    case "$seen" in
    *" $real "*) continue ;;
    esac
    seen="$seen $real "
    echo "service $service"
    if [ ! -r "$service/run" ]; then echo "unreadable"; fi
    lines run "$service/run"
    lines log "$service/log/run"
done
echo end
