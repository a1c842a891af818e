"""Postfix hosts: pf1 (3.7, with a second instance), pf2 (3.5) and pf3 (3.10, long queue ids)."""

from __future__ import annotations

from tests.lab.config import RELAY_CLIENT, SINKS
from tests.lab.hosts.spec import HostSpec

# Debian leaves lmdb and pcre to packages of their own.
PACKAGES = ("postfix", "postfix-lmdb", "postfix-pcre")
PRESEED = (
    "postfix postfix/main_mailer_type select Internet Site",
    "postfix postfix/mailname string host.lab.test",
)

# Retries are put off by an hour: a deferred message moves during a test only when somebody moves it.
# Debian's default wires no check of senders; tests rely on that, so nothing here adds one.
# Postfix's programs wait until main.cf is two seconds old, so as not to read it half written: it gets an older date.
# The chroot copies are what Debian's init script makes; it does not run here.
BASE = f"""
echo "$NAME.$DOMAIN" > /etc/mailname
postconf -e "myhostname = $NAME.$DOMAIN" "mydestination = $NAME.$DOMAIN, localhost.$DOMAIN, localhost" \
  "mynetworks = 127.0.0.0/8 {RELAY_CLIENT}/32" "relay_domains = {", ".join(SINKS)}" \
  "inet_protocols = ipv4" "inet_interfaces = all" "relayhost =" "smtp_tls_security_level = none" \
  "smtpd_tls_security_level = none" "recipient_delimiter = +" "biff = no" \
  "minimal_backoff_time = 1h" "maximal_backoff_time = 4h" "queue_run_delay = 1h" \
  "smtpd_relay_restrictions = permit_mynetworks permit_sasl_authenticated defer_unauth_destination"
settle() {{ touch -d "1 minute ago" /etc/postfix*/main.cf; }}
settle
newaliases || true
chroot_files() {{
  mkdir -p "$1/etc" "$1/dev"
  for file in resolv.conf hosts services nsswitch.conf host.conf localtime; do
    if [ -e "/etc/$file" ]; then cp -L "/etc/$file" "$1/etc/$file"; fi
  done
}}
chroot_files /var/spool/postfix
"""

# multi_instance_wrapper is what the two lines usually quoted leave out; without it the default instance does not start.
SECOND_INSTANCE = """
postconf -e "multi_instance_enable = yes" "multi_instance_directories = /etc/postfixEXT" \
  'multi_instance_wrapper = ${command_directory}/postmulti -p --'
cp -a /etc/postfix /etc/postfixEXT
postconf -c /etc/postfixEXT -X multi_instance_directories multi_instance_wrapper
postconf -c /etc/postfixEXT -e "multi_instance_name = postfix-EXT" "multi_instance_enable = yes" \
  "queue_directory = /var/spool/postfixEXT" "data_directory = /var/lib/postfixEXT" \
  "inet_interfaces = $ADDRESS" "mydestination =" "local_recipient_maps ="
postconf -e "inet_interfaces = 127.0.0.1"
install -d -m 755 /var/spool/postfixEXT
install -d -o postfix -g postfix -m 700 /var/lib/postfixEXT
chroot_files /var/spool/postfixEXT
echo '$AddUnixListenSocket /var/spool/postfixEXT/dev/log' > /etc/rsyslog.d/postfixEXT.conf
settle
"""

LONG_IDS = 'postconf -e "enable_long_queue_ids = yes" && settle'

START = "postfix start"
STOP = "postfix stop"
# master(8) listens only once it has taken the queue's lock; asking `postfix status` costs ten times as much.
READY = "ss -Hltn 'sport = :25' | grep -q ."
READY_BOTH = "[ $(ss -Hltn 'sport = :25' | wc -l) -ge 2 ]"

HOSTS = (
    HostSpec(
        name="pf1",
        number=11,
        suite="bookworm",
        packages=(*PACKAGES, "fish", "tcsh"),
        preseed=PRESEED,
        configure=BASE + SECOND_INSTANCE,
        start=START,
        stop=STOP,
        ready=READY_BOTH,
        shells=("fish", "tcsh"),
    ),
    HostSpec("pf2", 12, "bullseye", PACKAGES, BASE, START, STOP, READY, PRESEED),
    HostSpec("pf3", 13, "trixie", PACKAGES, BASE + LONG_IDS, START, STOP, READY, PRESEED),
)
