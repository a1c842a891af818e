"""The qmail host qm1: Debian's daemontools, ucspi-tcp and mailfront, and stand-ins for qmail's own programs.

Debian has no package of qmail. The queue has the true format, and the stand-ins are in `tests/lab/qmail`.
"""

from __future__ import annotations

from pathlib import Path

from tests.lab.config import RELAY_CLIENT, SINKS
from tests.lab.hosts.spec import HostSpec

LIBRARY = "/usr/local/lib/qmail-lab"
MODULES = ("__init__", "fill", "layout", "local", "remote", "send", "start", "submit", "tools", "watch")
# program -> module and function; only qmail-queue runs under another account than its caller.
PROGRAMS = {
    "qmail-start": "start.main",
    "qmail-queue": "submit.main",
    "qmail-qread": "tools.qread",
    "qmail-inject": "tools.inject",
    "sendmail": "tools.inject",
}


def _install_modules() -> str:
    source = Path(__file__).parents[1] / "qmail"
    texts = {name: (source / f"{name}.py").read_text() for name in MODULES}
    files = [
        f"cat > tests/lab/qmail/{name}.py <<'END OF MODULE'\n{text}END OF MODULE\n" for name, text in texts.items()
    ]
    return f"mkdir -p {LIBRARY}/tests/lab/qmail && cd {LIBRARY}\n" + "".join(files)


def _install_programs() -> str:
    lines = []
    for program, place in PROGRAMS.items():
        module, _, function = place.partition(".")
        interpreter = f"{LIBRARY}/python-qmailq -IS" if program == "qmail-queue" else "/usr/bin/python3 -IS"
        code = f"from tests.lab.qmail.{module} import {function}; sys.exit({function}())"
        lines.append(
            f"printf '%s\\n' '#!{interpreter}' 'import sys; sys.path.insert(0, \"{LIBRARY}\"); {code}' "
            f"> /var/qmail/bin/{program}"
        )
    return "\n".join(lines) + "\nchmod 755 /var/qmail/bin/*\n"


# /var/qmail is below /var/spool, because message numbers are inode numbers, and an overlay's are not those of files.
# The kernel honours the set-user-ID bit of an interpreter, not that of a script: so qmail-queue has its own Python.
CONFIGURE = f"""
set -e
groupadd -g 2107 qmail
groupadd -g 2108 nofiles
useradd -M -u 7790 -g nofiles -d /var/qmail/alias -s /usr/sbin/nologin alias
number=7791
for user in qmaild:nofiles qmaill:nofiles qmailp:nofiles qmailq:qmail qmailr:qmail qmails:qmail; do
  useradd -M -u $number -g ${{user#*:}} -d /var/qmail -s /usr/sbin/nologin ${{user%:*}}
  number=$((number + 1))
done
mkdir -p /var/spool/qmail /var/qmail /service
mount --bind /var/spool/qmail /var/qmail
mkdir /var/qmail/bin /var/qmail/control /var/qmail/supervise
install -d -o alias -g nofiles -m 2755 /var/qmail/alias
{_install_modules()}
python3 -m compileall -q {LIBRARY}
python3 -c 'from tests.lab.qmail.layout import make_queue; make_queue()'
install -o qmailq -g qmail -m 4711 "$(readlink -f /usr/bin/python3)" {LIBRARY}/python-qmailq
{_install_programs()}
cat > /var/qmail/bin/qmail-qstat <<'EOF'
#!/bin/sh
echo "messages in queue: $(find /var/qmail/queue/mess/* -type f | wc -l)"
echo "messages in queue but not yet preprocessed: $(find /var/qmail/queue/todo -type f | wc -l)"
EOF
chmod 755 /var/qmail/bin/qmail-qstat
install -d /var/lib/qmail-lab
install -o qmailq -m 644 /dev/null /var/lib/qmail-lab/arrivals
install -o qmails -g qmail -m 644 /dev/null /var/qmail/violations.log
cd /var/qmail/control
echo "$NAME.$DOMAIN" | tee me locals rcpthosts > /dev/null
echo "$DOMAIN" | tee defaultdomain > plusdomain
printf '%s\\n' {" ".join(SINKS)} >> rcpthosts
echo 40 > concurrencyremote
printf '%s\\n' '127.:allow,RELAYCLIENT=""' '{RELAY_CLIENT}:allow,RELAYCLIENT=""' ':allow' > /etc/tcp.smtp
tcprules /etc/tcp.smtp.cdb /etc/tcp.smtp.tmp < /etc/tcp.smtp
service() {{
  install -d /var/qmail/supervise/$1 /var/qmail/supervise/$1/log
  install -d -o qmaill -g nofiles /var/log/qmail /var/log/qmail/$2
  cat > /var/qmail/supervise/$1/run
  printf '%s\\n' '#!/bin/sh' "exec setuidgid qmaill multilog t s1000000 n20 /var/log/qmail/$2" \\
    > /var/qmail/supervise/$1/log/run
  chmod 755 /var/qmail/supervise/$1/run /var/qmail/supervise/$1/log/run
  ln -s /var/qmail/supervise/$1 /service/$1
}}
service qmail-send qmail-send <<'EOF'
#!/bin/sh
exec env - PATH="/var/qmail/bin:/usr/bin:/bin" qmail-start ./Maildir/ 2>&1
EOF
service smtpfront-qmail smtpd <<EOF
#!/bin/sh
QMAILHOME=/var/qmail
export QMAILHOME
exec tcpserver -v -R -H -l $NAME.$DOMAIN -x /etc/tcp.smtp.cdb -c 100 -u 7791 -g 2108 0 25 \\
  /usr/sbin/smtpfront-qmail 2>&1
EOF
"""

START = "setsid svscan /service < /dev/null > /var/log/svscan.log 2>&1 &"
# A supervise that was told to exit waits for its service, and qmail-send for its deliveries: not for ever.
STOP = """
pkill -x svscan
svc -dx /service/* /service/*/log 2>/dev/null
for try in $(seq 100); do
  pgrep -x supervise > /dev/null || exit 0
  [ "$try" -lt 50 ] || pkill -KILL 'qmail-(send|[lr]spawn|remote|local|clean)'
  sleep 0.1
done
exit 1
"""
READY = """
pgrep -x qmail-send > /dev/null && ss -Hltn 'sport = :25' | grep -q . &&
  [ "$(svstat /service/* | grep -c ': up')" = 2 ]
"""

HOSTS = (
    HostSpec(
        name="qm1",
        number=31,
        suite="bookworm",
        packages=("daemontools", "ucspi-tcp", "mailfront", "python3"),
        configure=CONFIGURE,
        start=START,
        stop=STOP,
        ready=READY,
    ),
)
