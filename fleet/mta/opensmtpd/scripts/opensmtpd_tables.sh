#!/bin/sh
# opensmtpd_tables.sh FILE...
#
# The entries of table files: "file PATH", then "line TEXT" for each line, or "unreadable PATH"; then "end".
# shellcheck source=prologue.sh
. "${0%/*}/prologue.sh"

for file; do
    if [ -f "$file" ] && [ -r "$file" ]; then
        printf 'file %s\n' "$file"
        head -c 1048576 -- "$file" | tr -d '\000' | sed 's/^/line /'
        echo
    else
        printf 'unreadable %s\n' "$file"
    fi
done
echo end
