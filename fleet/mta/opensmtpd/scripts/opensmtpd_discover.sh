#!/bin/sh
# opensmtpd_discover.sh
#
# Where OpenSMTPD is and how it is set up, one "name value" per line: version, smtpctl, smtpd, config, mailname, the
# addresses of interfaces, the configuration's lines as "conf LINE" with what it includes in its place, and what files of
# tables of domains list as "entry TABLE DOMAIN"; then "end".
# Says "absent" where there is no OpenSMTPD. Changes nothing.
# shellcheck source=prologue.sh
. "${0%/*}/prologue.sh"
# shellcheck source=pipefail.sh
. "${0%/*}/pipefail.sh"
if ! command -v smtpctl >/dev/null || ! command -v smtpd >/dev/null; then
    echo absent
    exit 0
fi
echo "smtpctl $(command -v smtpctl)"
echo "smtpd $(command -v smtpd)"
sure uncut smtpd -h 2>&1 | sure sed -n 's/^version: OpenSMTPD /version /p'

# A running smtpd may have been given another file.
config=$(sure ps -eo args= | sure sed -n 's/^\([^ ]*\/\)\{0,1\}smtpd .*-f *\([^ ][^ ]*\).*/\2/p' | sure head -n 1)
for file in "$config" /etc/smtpd.conf /etc/mail/smtpd.conf /etc/opensmtpd/smtpd.conf; do
    if [ -n "$file" ] && [ -f "$file" ]; then
        config=$file
        break
    fi
done
echo "config $config"
! command -v hostname >/dev/null || sure uncut hostname -f 2>/dev/null | sure sed 's/^/mailname /'
for file in /etc/mailname /etc/mail/mailname; do
    [ ! -r "$file" ] || sure sed -n '1s/^/mailname /p' "$file"
done
! command -v ip >/dev/null || sure uncut ip -o addr 2>/dev/null | sure awk '{ sub(/\/.*/, "", $4); print "address", $2, $4 }'

show() { # FILE DEPTH
    [ "$2" -lt 5 ] && [ -r "$1" ] || {
        echo "unreadable $1"
        return
    }
    while IFS= read -r line || [ -n "$line" ]; do
        case $line in
        include*\"*\"*) show "$(printf '%s\n' "$line" | sure sed 's/^include[^"]*"\([^"]*\)".*/\1/')" $(($2 + 1)) ;;
        *) printf 'conf %s\n' "$line" ;;
        esac
    done <"$1"
}
text=$(show "$config" 0)
printf '%s\n' "$text"

# What stands in files of tables that rules take domains from.
place='s/^conf table  *"\{0,1\}\([A-Za-z0-9_.-]*\)"\{0,1\}  *"\{0,1\}\(file:\)\{0,1\}\(\/[^" ]*\).*/\1 \3/p'
printf '%s\n' "$text" | sure sed -n "$place" | while read -r name file; do
    [ -f "$file" ] && [ -r "$file" ] || continue
    [ "$(printf '%s\n' "$text" | sure seek -c "domain  *<$name>")" != 0 ] || continue
    sure head -c 1048576 "$file" | sure sed -n "s/^[[:space:]]*\([^#[:space:]][^[:space:]]*\).*/entry $name \1/p"
done
echo end
