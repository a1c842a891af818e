#!/bin/sh
# host_addresses.sh <names
#
# What the host's own getent(1) says of each name of stdin, one a line: "NAME ADDRESS" for each address, then "end".
# shellcheck source=prologue.sh
. "${0%/*}/prologue.sh"

while IFS= read -r name; do
    case $name in
    '' | -* | *[!A-Za-z0-9._-]*) continue ;;
    esac
    timeout 10 getent ahosts "$name" | awk -v name="$name" '!seen[$1]++ { print name, $1 }'
done
echo end
