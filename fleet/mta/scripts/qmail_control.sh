#!/bin/sh
# qmail_control.sh CONTROL_DIRECTORY
#
# The control files that decide where mail goes: "file NAME" for each that is there and "line TEXT" for each of its
# lines, "unreadable NAME" for one that this account may not read; then "end". Changes nothing.
# shellcheck source=prologue.sh
. "${0%/*}/prologue.sh"

cd -- "$1" || exit 66
for file in me locals virtualdomains percenthack smtproutes helohost envnoathost; do
    if [ -r "$file" ]; then
        echo "file $file"
        head -c 1048576 "$file" | tr -d '\000' | sed 's/^/line /'
        echo
    elif [ -e "$file" ]; then
        echo "unreadable $file"
    fi
done
echo end
