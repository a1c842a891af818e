#!/bin/sh
# host_addresses.sh <names
#
# What the host's own getent(1) says of each name of stdin, one a line: "NAME ADDRESS" for each address, then "end".
set -u
LC_ALL=C
export LC_ALL

while IFS= read -r name; do
    case $name in
    '' | -* | *[!A-Za-z0-9._-]*) continue ;;
    esac
    timeout 10 getent ahosts "$name" | awk -v name="$name" '!seen[$1]++ { print name, $1 }'
done
echo end
