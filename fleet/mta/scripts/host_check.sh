#!/bin/sh
# host_check.sh PROGRAM...
#
# stdin: command lines, one word a line, an empty line behind each. Tells "missing PROGRAM" of those that are not here and
# "denied NUMBER" of command lines (1, 2, ...) that sudo does not let this account run as root; then "end". Runs none of
# them, and changes nothing.
# shellcheck source=prologue.sh
. "${0%/*}/prologue.sh"

for program; do
    command -v "$program" >/dev/null || echo "missing $program"
done
number=1
set --
while IFS= read -r word; do
    if [ -n "$word" ]; then
        set -- "$@" "$word"
        continue
    fi
    sudo -n -l "$@" >/dev/null 2>&1 </dev/null || echo "denied $number"
    number=$((number + 1))
    set --
done
echo end
