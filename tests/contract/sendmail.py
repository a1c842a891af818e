"""Sendmail, by real queue files and our real scripts, with a stand-in for sendmail and an access map in memory."""

import re
from dataclasses import replace
from pathlib import Path

from fleet.mta.sendmail import Sendmail
from fleet.mta.steps import Completed
from tests.contract.play import HOST_ADDRESS, Host
from tests.unit.list_host import ListHost
from tests.unit.real_scripts import run_script
from tests.unit.sendmail_host import SendmailHost, queue_file

ABSENT_ID = "6AKAxcIZ000281"
SENDERS: dict[str, tuple[bytes, str] | str] = {
    "plain": (b"news@bulk.example", "news@bulk.example"),
    "non_utf8": (b"caf\xe9@bulk.example", "caf\\xE9@bulk.example"),
    "null": (b"", "<>"),
    "quote": (b'"a \\"b"@bulk.example', '"a \\"b"@bulk.example'),
    "newline": "a queue file has one line for the sender, so an address with a newline cannot be queued",
}
ACCESS = "Connect:127.0.0.1\tRELAY\n"
ROUTE = b"""verify -r@ok.test... deliverable: mailer esmtp, host ok.test., user -r@ok.test
test > mailer 5 (esmtp): P=[IPC] S=a/b R=c/d M=0 U=-1:-1 F=DFM L=990 E=\\r\\n T=DNS/RFC822/SMTP r=100 A=TCP $h
test > sm1.test
end
"""


def judge(host: ListHost, sender: str) -> str:
    """The access map as check_mail looks it up: the whole address only, which is enough here."""
    found = re.fullmatch(r'ERROR:([\d.]+):"(\d+) (.*)"', host.map.get(f"from:{sender}", ""))
    return f"{found[2]} {found[1]} <root@sm1.test>... {found[3]}" if found else ""


def host(directory: Path, senders: list[bytes]) -> Host:
    """A host with one message of each sender, by turns in one of two queue directories."""
    fake, access = SendmailHost(directory / "host"), ListHost(judge, ACCESS, has_map=True)
    access.map = {"connect:127.0.0.1": "RELAY"}
    for number, sender in enumerate(senders):
        fake.add(f"6AKAxcI{'defgh'[number]}000281", queue_file(sender), queue=f"mqueue/q{number % 2 + 1}")
    (directory / "mail.log").touch()
    instance = fake.instance(
        access_map="hash:/etc/mail/access",
        own_domains=["sm1.test"],
        listen=[[HOST_ADDRESS, 25]],
        log_source=str(directory / "mail.log"),
        relay_domains=[],
    )

    def queued() -> dict[str, str]:
        found = [*fake.root.glob("mqueue/q?/[qh]f*"), *fake.root.glob("client/[qh]f*")]
        return {path.name[2:]: "hold" if path.name[0] == "h" else "deferred" for path in found}

    scripts = ("sendmail_read.sh", "sendmail_change.sh", "sendmail_run.sh")
    return Host(
        adapter=Sendmail(),
        instance=replace(instance),
        directory=directory,
        answers=dict.fromkeys(scripts, run_script)
        | {"block_file.sh": access._answer, "sendmail_route.sh": lambda command: Completed(0, ROUTE)},
        queued=queued,
        judge=lambda sender: judge(access, sender),
        block_by_hand=lambda address: access.append(f'From:{address}\tERROR:5.7.1:"550 mine"'),
    )
