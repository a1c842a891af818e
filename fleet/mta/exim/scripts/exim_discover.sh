#!/bin/sh
# exim_discover.sh OPTION...
#
# For every Exim binary "program PATH", what -bV says of its version and configuration file, "option NAME" with the
# settings as `exim -bP` prints them, "config" with the configuration itself, and "daemon" with the command line of each
# daemon that runs; then "end". Says "absent" where there is no Exim. Changes nothing; needs no rights: Exim prints all
# but hidden settings to everybody.
# shellcheck source=prologue.sh
. "${0%/*}/prologue.sh"
# shellcheck source=pipefail.sh
. "${0%/*}/pipefail.sh"
PATH=$PATH:/usr/exim/bin
program=$(command -v exim4 || command -v exim)
if [ -z "$program" ]; then
    echo absent
    exit 0
fi
echo "program $program"
sure uncut "$program" -bV | sure sed -n 's/^Exim version \([^ ]*\).*/version \1/p'
for option; do
    sure uncut "$program" -bP "$option" 2>/dev/null | sure sed 's/^/option /'
done
sure uncut "$program" -bP config 2>/dev/null | sure sed 's/^/config /'
! command -v ps >/dev/null || sure ps -eo args= | sure awk '
    $1 ~ /(^|\/)exim4?$/ { for (at = 2; at <= NF; at++) if ($at ~ /^-bdf?$/) { print "daemon " $0; next } }'
echo end
