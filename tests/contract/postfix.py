"""Postfix, by the queue in memory of its unit tests."""

from pathlib import Path

from fleet.mta.postfix import Postfix
from fleet.mta.records import InstanceFacts
from fleet.mta.steps import Command, Completed
from tests.contract.play import HOST_ADDRESS, Host
from tests.unit.list_host import ListHost
from tests.unit.postfix_host import QUEUE, FakeHost, Mail

# postqueue -j prints the bytes of an address as they are, JSON's own escapes aside (postqueue(1)).
ABSENT_ID = "BBBBBB9"
SENDERS: dict[str, tuple[bytes, str] | str] = {
    "plain": (b"news@bulk.example", "news@bulk.example"),
    "non_utf8": (b"caf\xe9@bulk.example", "caf\\xE9@bulk.example"),
    "null": (b"MAILER-DAEMON", "<>"),
    "quote": (b'"a \\"b"@bulk.example', '"a \\"b"@bulk.example'),
    "newline": (b'"a\nb"@bulk.example', '"a\nb"@bulk.example'),
}
CONFIG = "/etc/postfix"
LOGGED = "2026-11-21T12:00:00 mx1"
DELAYED = "to=<r@x.test>, relay=mx[10.0.0.1]:25, delay=6, delays=0/0/0/6, dsn=4.0.0, status=deferred (451 later)"
MASTER = "smtp inet n - y - - smtpd\nsmtp unix - - y - - smtp\nrelay unix - - y - - smtp\nlocal unix - n n - - local\n"
ROUTES = """setting mydestination = mx1.test
setting local_transport = local
setting virtual_transport = virtual
setting relay_transport = relay
setting default_transport = smtp
setting smtp_helo_name = mx1.test
service smtp unix - - y - - smtp
end
"""
FACTS = f"""== settings
smtpd_sender_restrictions = check_sender_access hash:/etc/postfix/senders
parent_domain_matches_subdomains = smtpd_access_maps
smtpd_null_access_lookup_key = <>
smtputf8_enable = yes
default_database_type = hash
inet_interfaces = all
myhostname = mx1.test
mydestination = mx1.test
relay_domains = ok.test
== services
{MASTER}== overrides
== types
hash
== addresses
{HOST_ADDRESS}
== end
"""


LINES = "# the administrator's\nold@bad.test\tREJECT\n"


def judge(access: ListHost, sender: str) -> str:
    """What smtpd finds in /etc/postfix/senders."""
    code, _, text = access.map.get(sender, "").partition(" 5.7.1 ")
    return f"{code} 5.7.1 <{sender}>: Sender address rejected: {text}" if code else ""


class _Mail(Mail):
    """A sender of any bytes."""

    raw: bytes = b""

    def line(self) -> bytes:
        escaped = self.raw.replace(b"\\", b"\\\\").replace(b'"', b'\\"').replace(b"\n", b"\\n")
        return super().line().replace(b'"SENDER"', b'"' + escaped + b'"')


def _mail(number: int, sender: bytes) -> Mail:
    mail = _Mail(f"AAAAAA{number}", sender="SENDER", arrival_time=1_795_172_380 + number)
    mail.raw = sender
    return mail


def attempt(fake: FakeHost, name: str) -> None:
    """qmgr(8) returns a message that was expired by hand (postsuper -e), and defers any other."""
    is_expired = any(name in command.stdin.decode() for command in fake.commands if "-e" in command.argv)
    if is_expired and fake.mail.pop(name, None):
        fake.log.append(f"{LOGGED} postfix/qmgr[3]: {name}: from=<x>, status=force-expired, returned to sender")
    else:
        fake.log.append(f"{LOGGED} postfix/smtp[3]: {name}: {DELAYED}")


def quarantined(fake: FakeHost) -> Completed:
    """What the script would find; the queue in memory has one job's quarantine."""
    jobs = [command.stdin.decode().split("\n")[0] for command in fake.commands if command.argv[0] == "out"]
    paths = [f"./mxfleet-quarantine/{jobs[-1]}/{name}" for name in fake.quarantine]
    return Completed(0, "\n".join([f"in {QUEUE}", *paths, f"end {len(paths)} 0 0", ""]).encode())


def host(directory: Path, senders: list[bytes]) -> Host:
    """A host with one deferred message of each sender."""
    fake, access = FakeHost(), ListHost(judge, LINES, has_map=True)
    fake.add(*(_mail(number, sender) for number, sender in enumerate(senders)))

    more: list[str] = []

    def facts(command: Command) -> Completed:
        services = "".join(f"{address}:25 inet n - y - - smtpd\n" for address in more)
        return Completed(0, FACTS.replace("== overrides", f"{services}== overrides").encode())

    fake.on_attempt = attempt
    (directory / "mail.log").touch()
    options = {
        "command_directory": "/usr/sbin",
        "can_quarantine": True,
        "log_source": str(directory / "mail.log"),
        "syslog_name": "postfix",
        "smtpd_sender_restrictions": "check_sender_access hash:/etc/postfix/senders",
    }
    answers = dict.fromkeys(("postqueue", "postsuper", "postkick", "postfix_quarantine.sh"), fake.answer)
    answers |= dict.fromkeys(("postfix_content.sh", "postfix_attempt.sh", "postfix_times.sh"), fake.answer)
    answers |= {"postfix_log.sh": fake.answer, "postfix_deliver.sh": fake.answer}
    answers |= {"postfix_route_facts.sh": lambda command: Completed(0, ROUTES.encode())}
    answers |= {"postfix_access_facts.sh": facts}
    answers |= {"block_file.sh": access._answer}
    answers |= {"quarantine_find.sh": lambda command: quarantined(fake)}
    return Host(
        adapter=Postfix(),
        instance=InstanceFacts("mx1", "postfix", "postfix", "3.7.11", CONFIG, (QUEUE,), options=options),
        directory=directory,
        answers=answers,
        queued=lambda: {name: mail.state for name, mail in fake.mail.items()},
        judge=lambda sender: judge(access, sender),
        more_services=more,
        block_by_hand=lambda address: access.append(f"{address}\t550 5.7.1 mine"),
    )
