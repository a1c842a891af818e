"""Sendmail hosts: sm1 (8.17, with a second instance) and sm2 (8.18)."""

from __future__ import annotations

from tests.lab.config import RELAY_CLIENT, SINKS
from tests.lab.hosts.spec import HostSpec

# Nothing in the lab is delivered locally, so there is no local delivery agent. m4 builds the configuration.
PACKAGES = ("sendmail-bin", "sendmail-cf", "m4")

# Retries are put off by an hour: a deferred message moves during a test only when somebody moves it. Queue directories
# q1 to q4 as large hosts have them. Debian's update_* programs are not run: they would write sendmail.mc anew.
# A namespace sees the load of the whole machine, at which Sendmail would stop delivering while many tests run.
CONFIGURE = f"""
install -d -m 755 /etc/mail
install -d -o smmta -g smmsp -m 2750 /var/spool/mqueue
for queue in 1 2 3 4; do install -d -o smmta -g smmsp -m 2750 "/var/spool/mqueue/q$queue"; done
install -d -o smmsp -g smmsp -m 2770 /var/spool/mqueue-client
write_mc() {{ # QUEUE FURTHER_LINES
  cat <<END
include(\\`/usr/share/sendmail/cf/m4/cf.m4')dnl
OSTYPE(\\`debian')dnl
DOMAIN(\\`debian-mta')dnl
undefine(\\`confHOST_STATUS_DIRECTORY')dnl
define(\\`QUEUE_DIR', \\`$1')dnl
define(\\`confQUEUE_LA', \\`1000')dnl
define(\\`confREFUSE_LA', \\`1000')dnl
define(\\`confPRIVACY_FLAGS', \\`restrictqrun,restrictexpand,nobodyreturn,authwarnings')dnl
FEATURE(\\`use_cw_file')dnl
FEATURE(\\`no_default_msa')dnl
FEATURE(\\`accept_unresolvable_domains')dnl
FEATURE(\\`mailertable', \\`hash -o /etc/mail/mailertable.db')dnl
FEATURE(\\`access_db', \\`hash -T<TMPF> /etc/mail/access')dnl
FEATURE(\\`delay_checks')dnl
$2
MAILER_DEFINITIONS
MAILER(\\`local')dnl
MAILER(\\`smtp')dnl
END
}}
printf '%s\\n' "$NAME.$DOMAIN" "localhost.$DOMAIN" > /etc/mail/local-host-names
: > /etc/mail/trusted-users
: > /etc/mail/relay-domains
: > /etc/mail/aliases
ln -sf mail/aliases /etc/aliases
{{
  printf 'Connect:127.0.0.1\\tRELAY\\nConnect:{RELAY_CLIENT}\\tRELAY\\n'
  for domain in {" ".join(SINKS)}; do printf 'To:%s\\tRELAY\\n' "$domain"; done
}} > /etc/mail/access
printf 'relayed.example\\tesmtp:[mx.ok.test]\\n' > /etc/mail/mailertable
for map in access mailertable; do makemap hash "/etc/mail/$map" < "/etc/mail/$map"; done
build() {{ m4 "/etc/mail/$1.mc" > "/etc/mail/$1.cf" && chmod 644 "/etc/mail/$1.cf"; }}
cat > /etc/mail/submit.mc <<END
include(\\`/usr/share/sendmail/cf/m4/cf.m4')dnl
OSTYPE(\\`debian')dnl
DOMAIN(\\`debian-msp')dnl
define(\\`confQUEUE_LA', \\`1000')dnl
FEATURE(\\`msp', \\`[127.0.0.1]', \\`25')dnl
END
build submit
write_mc '/var/spool/mqueue/q*' "DAEMON_OPTIONS(\\`Family=inet, Name=MTA-v4, Port=smtp')dnl" > /etc/mail/sendmail.mc
build sendmail
newaliases >/dev/null
"""

SECOND_INSTANCE = """
install -d -o smmta -g smmsp -m 2750 /var/spool/mqueue-ext
for queue in 1 2; do install -d -o smmta -g smmsp -m 2750 "/var/spool/mqueue-ext/q$queue"; done
write_mc '/var/spool/mqueue-ext/q*' "DAEMON_OPTIONS(\\`Family=inet, Name=EXT, Addr=$ADDRESS, Port=2525')dnl
define(\\`confPID_FILE', \\`/var/run/sendmail/mta/sendmail-ext.pid')dnl
define(\\`confCONTROL_SOCKET_NAME', \\`/var/run/sendmail/mta/smcontrol-ext')dnl" > /etc/mail/sendmail-ext.mc
build sendmail-ext
"""

# /run is empty after a start, as after a boot.
START = """
install -d -o smmta -g smmsp -m 2755 /run/sendmail/mta
install -d -o smmsp -g smmsp -m 2775 /run/sendmail/msp
/usr/sbin/sendmail-mta -Am -L sm-mta -bd -q1h
/usr/sbin/sendmail-msp -Ac -L sm-msp -q1h
"""
START_SECOND = """
/usr/sbin/sendmail-mta -L sm-ext -C /etc/mail/sendmail-ext.cf -bd -q1h
"""
# A runner that delivers just now is ended too: `stop` means that nothing of Sendmail runs any more.
STOP = """
pids() { ps -eo pid=,comm= | awk '$2 ~ /^sendmail/ { print $1 }'; }
kill -TERM $(pids) 2>/dev/null
for try in $(seq 50); do
  [ -n "$(pids)" ] || exit 0
  sleep 0.1
done
kill -KILL $(pids) 2>/dev/null || true
"""
READY = "ss -Hltn 'sport = :25' | grep -q ."
READY_BOTH = f"{READY} && ss -Hltn 'sport = :2525' | grep -q ."

HOSTS = (
    HostSpec(
        name="sm1",
        number=21,
        suite="bookworm",
        packages=PACKAGES,
        configure=CONFIGURE + SECOND_INSTANCE,
        start=START + START_SECOND,
        stop=STOP,
        ready=READY_BOTH,
        smtp_ports=(25, 2525),
    ),
    HostSpec("sm2", 22, "trixie", PACKAGES, CONFIGURE, START, STOP, READY),
)
