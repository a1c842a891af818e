"""OpenSMTPD hosts: os1 (6.8, its configuration refuses senders of a table) and os2 (7.6, without any such rule)."""

from __future__ import annotations

from tests.lab.config import RELAY_CLIENT, SINKS
from tests.lab.hosts.spec import HostSpec

# 7.6 does not start without the CA certificates, which Debian only recommends.
PACKAGES = ("opensmtpd", "ca-certificates")
PRESEED = ("opensmtpd opensmtpd/mailname string host.lab.test",)

# A deferred envelope rests 400 s before its second attempt: longer than a test, and there is no setting for it.
# 6.8 does not start with an empty table, hence its first line.
CONFIGURE = f"""
echo "$NAME.$DOMAIN" > /etc/mailname
: > /etc/aliases
install -d -m 755 /etc/smtpd
write_conf() {{
  cat > /etc/smtpd.conf <<EOF
table aliases file:/etc/aliases
$1
queue ttl 5d
listen on lo
listen on $ADDRESS
action "local" mbox alias <aliases>
action "relay" relay
$2
match from any for domain "$NAME.$DOMAIN" action "local"
match from any for domain {{ {", ".join(SINKS)} }} action "relay"
match for local action "local"
match from src {RELAY_CLIENT} for any action "relay"
match from local for any action "relay"
EOF
}}
"""
WIRED = """
echo placeholder@blocked.invalid > /etc/smtpd/blocked
write_conf "table blocked file:/etc/smtpd/blocked" "match from any mail-from <blocked> for any reject"
"""
UNWIRED = 'write_conf "" ""'

START = "smtpd"
STOP = """
pkill -TERM -x smtpd
for try in $(seq 50); do
  pgrep -x smtpd >/dev/null || exit 0
  sleep 0.1
done
pkill -KILL -x smtpd
"""
READY = "smtpctl show status >/dev/null && [ $(ss -Hltn 'sport = :25' | wc -l) -ge 2 ]"

HOSTS = (
    HostSpec("os1", 51, "bookworm", PACKAGES, CONFIGURE + WIRED, START, STOP, READY, PRESEED),
    HostSpec("os2", 52, "trixie", PACKAGES, CONFIGURE + UNWIRED, START, STOP, READY, PRESEED),
)
