#!/bin/sh
# qmail_control.sh CONTROL_DIRECTORY
#
# The control files that decide where mail goes: "file NAME" for each that is there and "line TEXT" for each of its
# lines, "unreadable NAME" for one that this account may not read; then "end". Changes nothing.
# shellcheck source=prologue.sh
. "${0%/*}/prologue.sh"
# shellcheck source=pipe.sh
. "${0%/*}/pipe.sh"

beginning() {
    head -c 1048576 "$file"
}

in_lines() {
    both without_nul marked
}

without_nul() {
    tr -d '\000'
}

marked() {
    sed 's/^/line /'
}

cd -- "$1" || exit 66
for file in me locals virtualdomains percenthack smtproutes helohost envnoathost; do
    if [ -r "$file" ]; then
        echo "file $file"
        both beginning in_lines || exit 74
        echo
    elif [ -e "$file" ]; then
        echo "unreadable $file"
    fi
done
echo end
