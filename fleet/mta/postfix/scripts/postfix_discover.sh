#!/bin/sh
# postfix_discover.sh PARAMETER...
#
# For every Postfix instance "instance DIRECTORY", its parameters as postconf prints them, the sender
# restrictions that master.cf sets, and whether hold/ is on the
# file system of the queue directory; then "end". Says "absent" where there is no Postfix. Changes nothing.
# shellcheck source=prologue.sh
. "${0%/*}/prologue.sh"
if ! command -v postconf >/dev/null; then
    echo absent
    exit 0
fi
main=$(postconf -h config_directory) || exit
others=$(postconf -h multi_instance_directories) || exit
set -f
IFS=', 
'
for directory in "$main" $others; do
    echo "instance $directory"
    postconf -c "$directory" "$@" 2>/dev/null || { [ $? -lt 126 ] && echo "unreadable"; } || exit 74
    postconf -c "$directory" -xP '*/*/smtpd_sender_restrictions' 2>/dev/null || exit 74
    queue=$(postconf -c "$directory" -xh queue_directory 2>/dev/null)
    system=$(stat -c %d "$queue" 2>/dev/null) || continue
    if [ "$(stat -c %d "$queue/hold" 2>/dev/null)" = "$system" ]; then echo "hold flat"; fi
done
echo end
