#!/bin/sh
# sendmail_discover.sh CONFIG_DIRECTORY
#
# Tells about every configuration file of Sendmail that has a queue: those in CONFIG_DIRECTORY, and those that a running
# daemon was started with (-C). Per file "config PATH", then its lines that matter, the queue directories ("dir PATH")
# the names of class w and class R ("own NAME", "relay NAME"); before them "program PATH", "version V", "flock yes". Last
# "end"; "absent" without Sendmail. Changes nothing.
# shellcheck source=prologue.sh
. "${0%/*}/prologue.sh"
# shellcheck source=pipefail.sh
. "${0%/*}/pipefail.sh"
PATH=$PATH:/usr/libexec:/usr/lib

program=
for path in /usr/sbin/sendmail-mta /usr/libexec/sendmail/sendmail /usr/sbin/sendmail.sendmail /usr/sbin/sendmail \
    /usr/lib/sendmail; do
    [ -x "$path" ] || continue
    case $(sure uncut grep -acs 'Sendmail %s' "$path") in
    '' | 0) continue ;;
    esac
    program=$path
    break
done
if [ -z "$program" ]; then
    echo absent
    exit 0
fi
# Any alternative of the name "sendmail" that is not Sendmail's own must never be asked.
if [ "$(readlink -f /usr/sbin/sendmail)" = "$(readlink -f "$program")" ]; then program=/usr/sbin/sendmail; fi
echo "program $program"
sure uncut "$program" -d0.10 -bt </dev/null 2>/dev/null | sure awk '
    /^Version / && !seen++ { print "version " $2 }
    { for (at = 1; at <= NF; at++) if ($at == "HASFLOCK") print "flock yes" }
    /SYSTEM IDENTITY/ { exit }'

{
    [ ! -f "$1/sendmail.cf" ] || echo "$1/sendmail.cf"
    for file in "$1"/*.cf; do echo "$file"; done
    sure uncut cat /run/sendmail/*/*.pid /run/sendmail.pid /run/sendmail/*.pid 2>/dev/null |
        sure awk '{ for (at = 1; at <= NF; at++) {
            if ($at == "-C") print $(at + 1)
            else if ($at ~ /^-C\//) print substr($at, 3) } }'
} | sure awk '!seen[$0]++' | while read -r file; do
    [ -f "$file" ] && [ -r "$file" ] && [ "$(sure seek -acE '^O *QueueDirectory *=' "$file")" != 0 ] || continue
    echo "config $file"
    sure seek -aE '^(O *(QueueDirectory|DaemonPortOptions|UseMSP|PidFile|Timeout.queuereturn) *=|K|Q|D[jm]|F[wR]|C[wR])' "$file" |
        sure sed 's/^/line /'
    if [ "$(sure seek -acE '^O *UseMSP *= *[Tt]' "$file")" = 0 ]; then
        for class in w:own R:relay; do
            echo "\$=${class%%:*}" | sure uncut "$program" -C "$file" -bt 2>/dev/null | sure sed 's/^> //' |
                sure awk -v word="${class#*:}" '/^[A-Za-z0-9_.-]+$/ && /\./ { print word, $0 }'
        done
    fi
done
echo end
