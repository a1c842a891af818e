#!/bin/sh
# sendmail_route.sh PROGRAM CONFIG_FILE <address
#
# What sendmail says of the address in the first line of stdin: "verify LINE" for each line of -bv, which delivers
# nothing; "test LINE" of address test mode: the mailers, the host's name, and the MX hosts of each host that -bv named.
# Then "end".
# shellcheck source=prologue.sh
. "${0%/*}/prologue.sh"

program=$1
config=$2
case $program in
/*) ;;
*) exit 64 ;;
esac
IFS= read -r address
verified=$(timeout 60 "$program" -C "$config" -bv -- "$address" </dev/null 2>&1)
printf '%s\n' "$verified" | sed 's/^/verify /'
{
    echo '=M'
    # shellcheck disable=SC2016 # a macro of sendmail
    echo '$j'
    printf '%s\n' "$verified" | sed -n 's/.*: mailer [^,]*, host \([0-9A-Za-z._-]*\),.*/\/mx \1/p' | sort -u | head -n 20
} | timeout 50 "$program" -C "$config" -bt 2>&1 | sed 's/^/test /'
# the last prompt has no line end
echo
echo end
