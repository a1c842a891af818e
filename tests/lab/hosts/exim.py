"""Exim hosts: ex1 (4.96, split spool and split configuration), ex2 (4.96, flat spool), ex3 (4.98, long message IDs)."""

from __future__ import annotations

from tests.lab.config import RELAY_CLIENT, SINKS
from tests.lab.hosts.spec import HostSpec

PACKAGES = ("exim4-daemon-light",)
PRESEED = (
    "exim4-config exim4/dc_eximconfig_configtype select internet site; mail is sent and received directly using SMTP",
    "exim4-config exim4/mailname string host.lab.test",
)

# Debian's own configuration, its sender blacklist included, with retries put off by an hour: a deferred message moves
# during a test only when somebody moves it.
CONFIGURE = f"""
echo "$NAME.$DOMAIN" > /etc/mailname
cat > /etc/exim4/update-exim4.conf.conf <<EOF
dc_eximconfig_configtype='internet'
dc_other_hostnames='$NAME.$DOMAIN'
dc_local_interfaces=''
dc_readhost=''
dc_relay_domains='{":".join(SINKS)}'
dc_minimaldns='false'
dc_relay_nets='{RELAY_CLIENT}'
dc_smarthost=''
CFILEMODE='644'
dc_use_split_config='$SPLIT'
dc_hide_mailname=''
dc_mailname_in_oh='true'
dc_localdelivery='mail_spool'
EOF
if [ "$SPLIT" = true ]; then
  main=/etc/exim4/conf.d/main/00_local
  retry=/etc/exim4/conf.d/retry/30_exim4-config
  echo 'split_spool_directory' > $main
else
  main=/etc/exim4/exim4.conf.template
  retry=$main
fi
sed -i '1idisable_ipv6 = true\\nsmtp_accept_max = 100\\nsmtp_accept_queue_per_connection = 0' $main
sed -i 's/^\\*  *\\*  *F,2h,15m;.*/* * F,4d,1h/' $retry
update-exim4.conf
"""

# What Debian's init script does.
START = """
install -d -o Debian-exim -g Debian-exim -m 750 /run/exim4
exim4 -bd -q1h -oP /run/exim4/exim.pid
"""
STOP = """
[ ! -s /run/exim4/exim.pid ] || kill "$(cat /run/exim4/exim.pid)"
for try in $(seq 50); do
  pgrep -x exim4 >/dev/null || exit 0
  [ "$try" -lt 20 ] || pkill -TERM -x exim4
  sleep 0.1
done
pkill -KILL -x exim4
"""
READY = "exim4 -bpc >/dev/null && ss -Hltn 'sport = :25' | grep -q ."

HOSTS = tuple(
    HostSpec(name, number, suite, PACKAGES, f"SPLIT={split}\n{CONFIGURE}", START, STOP, READY, PRESEED)
    for name, number, suite, split in (
        ("ex1", 41, "bookworm", "true"),
        ("ex2", 42, "bookworm", "false"),
        ("ex3", 43, "trixie", "false"),
    )
)
