#!/bin/sh
# postfix_route_facts.sh COMMAND_DIRECTORY CONFIG_DIRECTORY PARAMETER...
#
# The settings that decide about routes, "setting NAME = VALUE", and the services of master.cf, "service LINE"; then
# "end". Needs no rights, changes nothing.
# shellcheck source=prologue.sh
. "${0%/*}/prologue.sh"

commands=$1
config=$2
shift 2
"$commands/postconf" -c "$config" -x "$@" 2>/dev/null | sed 's/^/setting /'
"$commands/postconf" -c "$config" -M | sed 's/^/service /'
echo end
