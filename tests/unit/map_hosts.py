"""Hosts whose MTA looks blocked senders up in a map, Postfix and Sendmail, played by hand."""

import re
from collections.abc import Callable
from dataclasses import dataclass, field
from hashlib import sha256
from typing import Any

from fleet.mta.declared import DeclaredAdapter
from fleet.mta.postfix import Postfix
from fleet.mta.records import InstanceFacts
from fleet.mta.sendmail import Sendmail
from fleet.mta.steps import Command, Completed
from tests.unit.list_host import ListHost

SENDER = "newsletter@sillyplace.test"
MAP = "/etc/postfix/senders"
OWN = "/etc/postfix/mxfleet_senders"
LINES = "# mine\nbad@one.test\tREJECT\n"
WIRED = f"smtpd_sender_restrictions = check_sender_access hash:{MAP}, permit_mynetworks\n"
SENDMAIL_LINES = "Connect:127.0.0.1\tRELAY\nTo:defer.test\tRELAY\n"
POSTFIX_INSTANCE = InstanceFacts(
    "pf1",
    "postfix",
    "postfix",
    "3.7.11",
    "/etc/postfix",
    ("/var/spool/postfix",),
    options={
        "default_database_type": "hash",
        "smtpd_sender_restrictions": f"check_sender_access hash:{MAP}, check_sender_access lmdb:/etc/postfix/late",
    },
)
SENDMAIL_INSTANCE = InstanceFacts(
    "sm1",
    "sendmail",
    "sendmail",
    "8.17.1.9",
    "/etc/mail",
    ("/var/spool/mqueue/q1",),
    options={
        "config_file": "/etc/mail/sendmail.cf",
        "access_map": "hash:/etc/mail/access",
        "own_domains": ["localhost.lab.test", "sm1.lab.test"],
        "listen": [["127.0.0.1", 25], ["0.0.0.0", 587], ["192.0.2.9", 25]],
    },
)
SETTINGS = """parent_domain_matches_subdomains = smtpd_access_maps
smtpd_null_access_lookup_key = <>
recipient_delimiter = +
smtputf8_enable = yes
default_database_type = hash
inet_interfaces = all
myhostname = pf1.lab.test
mydestination = localhost, pf1.lab.test
relay_domains = ok.test
"""
MASTER = "== services\nsmtp inet n - y - - smtpd\n"


def asked_of_smtpd(host: ListHost, sender: str) -> str:
    """What smtpd finds in the maps that main.cf has it ask, in their order."""
    assert isinstance(host, Smtpd)
    local, _, domain = sender.rpartition("@")
    labels = domain.split(".")
    keys = [sender, f"{local.partition('+')[0]}@{domain}", *(".".join(labels[at:]) for at in range(len(labels)))]
    for path in re.findall(r"check_sender_access hash:([^ ,\n]+)", host.main_cf):
        entries = host.maps[path].map
        code, _, text = next((entries[key] for key in keys if key in entries), "").partition(" 5.7.1 ")
        if code.isdigit():
            return f"{code} 5.7.1 <{sender}>: Sender address rejected: {text}"
    return ""


def make_map(text: str | None) -> ListHost:
    found = ListHost(asked_of_smtpd, text, has_map=True)
    found.map = {line.split("\t")[0]: line.split("\t")[1] for line in (text or "").splitlines() if "\t" in line}
    return found


@dataclass
class Smtpd(ListHost):
    """`maps` by path. `overrides`: what master.cf sets for the service. `refusal`: of postfix_wire.sh."""

    main_cf: str = WIRED
    maps: dict[str, ListHost] = field(default_factory=lambda: {MAP: make_map(LINES), OWN: make_map(None)})
    overrides: str = ""
    types: str = "hash"
    services: str = MASTER
    refusal: Completed | None = None

    @property
    def senders(self) -> ListHost:
        return self.maps[MAP]

    @property
    def own(self) -> ListHost:
        return self.maps[OWN]

    def _answer(self, command: Command) -> Completed:
        if command.script == "postfix_access_facts.sh":
            sections = f"{self.services}== overrides\n{self.overrides}== types\n{self.types}\n== addresses\n192.0.2.9\n"
            return Completed(0, f"== settings\n{SETTINGS}{self.main_cf}{sections}== end\n".encode())
        if command.script == "postfix_wire.sh":
            return self._wire(command)
        if command.script == "block_file.sh":
            assert command.argv[1:3] == ("postfix", "/etc/postfix")
            self.changes += command.mutates
            return self.maps[command.argv[3]]._answer(command)
        return super()._answer(command)

    def _wire(self, command: Command) -> Completed:
        digest = sha256(self.main_cf.encode()).hexdigest()
        if command.argv[0] == "read":
            return Completed(0, f"{digest} fits\n{self.main_cf}".encode())
        planned, wanted, text = command.stdin.decode().split("\n", 2)
        assert wanted == sha256(text.encode()).hexdigest()
        if planned != digest:
            return Completed(76, stderr=b"mxfleet: main.cf was changed meanwhile\n")
        if self.refusal is None:
            self.main_cf = text
        return self.refusal or Completed(0, f"applied {wanted}\n".encode())


def postfix_host(main_cf: str = WIRED, own: str | None = None) -> Smtpd:
    host = Smtpd(asked_of_smtpd, main_cf=main_cf)
    host.maps[OWN] = make_map(own)
    return host


def asked_of_sendmail(host: ListHost, sender: str) -> str:
    """What Sendmail does with its map: the address without extension, and every parent domain."""
    local, _, domain = sender.rpartition("@")
    labels = domain.split(".")
    keys = [sender, f"{local.partition('+')[0]}@{domain}", *(".".join(labels[at:]) for at in range(len(labels)))]
    value = next((host.map[f"from:{key}"] for key in keys if f"from:{key}" in host.map), "")
    found = re.fullmatch(r'ERROR:([\d.]+):"(\d+) (.*)"', value)
    return f"{found[2]} {found[1]} <root@sm1.lab.test>... {found[3]}" if found else ""


def sendmail_host(text: str = SENDMAIL_LINES) -> ListHost:
    host = ListHost(asked_of_sendmail, text, has_map=True)
    host.map = {line.split("\t")[0].lower(): line.split("\t")[1] for line in text.splitlines() if "\t" in line}
    return host


@dataclass(frozen=True)
class Mapped:
    """An MTA with such a map. `senders`: the map on its host. `entry`: how our line names SENDER.

    `value`: what stands behind it; `reply`: how the MTA answers then; `lookup`: of the evidence. `discard`: value and
    listed reply of a block that discards. `name`: the map in results. `command`, `note`: of a plan. `rebuild`: how the
    administrator builds the map.
    """

    adapter: DeclaredAdapter
    instance: InstanceFacts
    make: Callable[[], ListHost]
    senders: Callable[[Any], ListHost]
    lines: str
    entry: str
    value: str
    reply: str
    lookup: Callable[[str], Any]
    name: dict[str, str]
    command: tuple[str, ...]
    note: str
    rebuild: str
    discard: tuple[str, str]
    own_domain: str

    @property
    def written(self) -> str:
        return f"{self.lines}# BEGIN mxfleet\n# mxfleet:job-1 {SENDER}\n{self.entry}\t{self.value}\n# END mxfleet\n"


POSTFIX = Mapped(
    Postfix(), POSTFIX_INSTANCE, postfix_host, lambda host: host.senders, LINES,
    entry=SENDER,
    value="550 5.7.1 Sender address blocked",
    reply=f"5.7.1 <{SENDER}>: Sender address rejected: Sender address blocked",
    lookup=lambda value: value or None,
    name={"map": f"hash:{MAP}"},
    command=("postfix", "/etc/postfix", MAP, "hash"),
    note="is not checked by Postfix's smtpd",
    rebuild=f"run postmap hash:{MAP}",
    discard=("DISCARD Sender address blocked", "Sender address blocked"),
    own_domain="pf1.lab.test",
)  # fmt: skip
SENDMAIL = Mapped(
    Sendmail(), SENDMAIL_INSTANCE, sendmail_host, lambda host: host, SENDMAIL_LINES,
    entry=f"From:{SENDER}",
    value='ERROR:5.7.1:"550 Sender address blocked"',
    reply="5.7.1 <root@sm1.lab.test>... Sender address blocked",
    lookup=lambda value: {f"from:{SENDER}": value} if value else {},
    name={"file": "/etc/mail/access"},
    command=("sendmail", "/etc/mail/sendmail.cf", "/etc/mail/access", "hash"),
    note="the blocked sender gets a bounce",
    rebuild="build the map",
    discard=("DISCARD", "DISCARD"),
    own_domain="sm1.lab.test",
)  # fmt: skip
