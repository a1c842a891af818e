#!/bin/sh
# sendmail_discover.sh CONFIG_DIRECTORY
#
# Tells about every configuration file of Sendmail that has a queue: those in CONFIG_DIRECTORY, and those that a running
# daemon was started with (-C). Per file "config PATH", then its lines that matter, the queue directories ("dir PATH")
# the names of class w and class R ("own NAME", "relay NAME"); before them "program PATH", "version V", "flock yes". Last "end"; "absent" without Sendmail.
# Changes nothing.
# shellcheck source=prologue.sh
. "${0%/*}/prologue.sh"
PATH=$PATH:/usr/libexec:/usr/lib

program=
for path in /usr/sbin/sendmail-mta /usr/libexec/sendmail/sendmail /usr/sbin/sendmail.sendmail /usr/sbin/sendmail \
    /usr/lib/sendmail; do
    if [ -x "$path" ] && grep -aqs 'Sendmail %s' "$path"; then
        program=$path
        break
    fi
done
if [ -z "$program" ]; then
    echo absent
    exit 0
fi
# Any alternative of the name "sendmail" that is not Sendmail's own must never be asked.
if [ "$(readlink -f /usr/sbin/sendmail)" = "$(readlink -f "$program")" ]; then program=/usr/sbin/sendmail; fi
echo "program $program"
"$program" -d0.10 -bt </dev/null 2>/dev/null | awk '
    /^Version / && !seen++ { print "version " $2 }
    { for (at = 1; at <= NF; at++) if ($at == "HASFLOCK") print "flock yes" }
    /SYSTEM IDENTITY/ { exit }'

{
    [ ! -f "$1/sendmail.cf" ] || echo "$1/sendmail.cf"
    for file in "$1"/*.cf; do echo "$file"; done
    cat /run/sendmail/*/*.pid /run/sendmail.pid /run/sendmail/*.pid 2>/dev/null |
        awk '{ for (at = 1; at <= NF; at++) {
            if ($at == "-C") print $(at + 1)
            else if ($at ~ /^-C\//) print substr($at, 3) } }'
} | awk '!seen[$0]++' | while read -r file; do
    [ -f "$file" ] && [ -r "$file" ] && grep -qE '^O *QueueDirectory *=' "$file" || continue
    echo "config $file"
    grep -aE '^(O *(QueueDirectory|DaemonPortOptions|UseMSP|PidFile|Timeout.queuereturn) *=|K|Q|D[jm]|F[wR]|C[wR])' "$file" |
        sed 's/^/line /'
    if ! grep -qE '^O *UseMSP *= *[Tt]' "$file"; then
        for class in w:own R:relay; do
            echo "\$=${class%%:*}" | "$program" -C "$file" -bt 2>/dev/null | sed 's/^> //' |
                awk -v word="${class#*:}" '/^[A-Za-z0-9_.-]+$/ && /\./ { print word, $0 }'
        done
    fi
done
echo end
