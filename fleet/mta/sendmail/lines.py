"""The grammar of Sendmail's log lines (op.me, "System Log"; logdelivery(), logsender(), rscheck() of its source).

A line has a queue ID, a verb with its value, `, name=value` fields, of which one stands at the end because its text is
others' (`stat`, `relay` of an arrival, `reject`). Addresses are skipped by their own grammar, so that what is quoted
in them is no field. A name of ours that stands twice makes a line that could be read in two ways: None.
"""

import re
from dataclasses import dataclass
from functools import lru_cache

from fleet.mta.bounds import count_of

QUOTED = r'"(?:[^"\\]|\\.)*+"'
ADDRESS = rf'(?:<(?:[^"<>]++|{QUOTED})*+>|(?:[^",]++|{QUOTED})++)'
ONE = re.compile(ADDRESS)
HEAD = re.compile(rf"\w+=(?:{ADDRESS}|,(?! [a-z_]+=))*+")
FIELD = re.compile(r", ([a-z_]+)=")
CONTROLLING = re.compile(rf"({ADDRESS})(?=(?: \([^(),]*\))?(?:,|$))")
ARGUMENT = re.compile(rf'(?:[^",]++|{QUOTED}|,(?! arg2=))*+(?=, arg2=|$)')
MORE = " [more]"
"""Ends the recipients of a line that the next line goes on with."""
OURS = frozenset({"ctladdr", "delay", "mailer", "relay", "quarantine", "dsn", "size", "msgid"})
DELAY = re.compile(r"(?:(\d+)\+)?(\d+):(\d\d):(\d\d)")
RULESET = re.compile(r"ruleset=(\w+), arg1=")
VERB = re.compile(r", (?:(reject|quarantine)=(.*)|(discard)$)", re.DOTALL)
MILTER = re.compile(
    r"Milter: (?:cmd=)?(?P<stage>data|from|to|helo)(?:=(?P<what>(?:" + ADDRESS + r"|,(?! (?:reject|discard)))*+))?"
    r", (?P<verb>reject|discard)(?:=(?P<reply>.*?)(?:, errormode=\d)?)?",
    re.DOTALL,
)
MILTER_CONNECT = re.compile(
    r"Milter: connect: host=(?P<host>[^,]*), addr=(?P<addr>[^,]*), "
    r"(?P<reply>(?:reject|shutdown|rejecting commands|temp failing commands)(?:=.*)?)",
    re.DOTALL,
)
AT_CONNECT = re.compile(
    r"rejecting commands from (?P<host>\S+) \[(?P<addr>[^\]\s]+)\] due to pre-greeting traffic after \d+ seconds"
    r"|tcpwrappers \((?P<name>[^, ]+), (?P<ip>[^)\s]+)\) rejection"
)
AT_DELIVERY = frozenset({"check_compat", "tls_server", "tls_rcpt", "try_tls"})
"""Rulesets that judge an attempt, whose end has a line of its own."""
NO_MAIL = frozenset({"check_etrn", "check_vrfy", "check_expn"})
STATUS = (("Sent", "sent"), ("Deferred", "deferred"), ("queued", "queued"), ("quarantined", "queued"))
RETRIED = ("Operating system error", "I/O error")
"""sysexits(3) after which the message stays in the queue."""


@dataclass(slots=True)
class Line:
    """`values`: of the verb, addresses without brackets. `named`: the fields. `text`: of others, at the end."""

    values: tuple[str, ...]
    named: dict[str, str]
    text: str


def delivery_line(text: str) -> Line | None:
    """`to=`: the recipients, the fields with `reply`, and `stat`. None where it is cut off, too."""
    end = _end_of_head(text)
    rest, expanded = _without_controlling(text[end:])
    said, mark, stat = rest.partition(", stat=")
    if not mark or ", stat=" in stat:
        return None
    said, has_reply, reply = said.partition(", reply=")
    named = fields_of(said)
    # What is sent has a code of success: else the text is another's, in a line that syslog cut.
    if named is None or (stat.startswith("Sent") and not named.get("dsn", "2").startswith("2")):
        return None
    if expanded:
        named["ctladdr"] = expanded
    if has_reply:
        named["reply"] = reply
    return Line(addresses_of(text[3:end].removesuffix(MORE)), named, stat)


def _without_controlling(text: str) -> tuple[str, str]:
    """The fields without the value of `ctladdr`, an address too, and that value. "" for all where it was cut."""
    before, mark, rest = text.partition(", ctladdr=")
    if not mark or ", reply=" in before or ", stat=" in before:
        return text, ""
    match = CONTROLLING.match(rest)
    return (before + mark + rest[match.end() :], match[1]) if match else ("", "")


def arrival_line(text: str) -> Line | None:
    """`from=`: the sender, the fields, and the client, which is the last of them whatever a Message-ID holds."""
    end = _end_of_head(text)
    said, mark, client = text[end:].rpartition(", relay=")
    named = fields_of(said) if mark else None
    return None if named is None else Line((plain(text[5:end]),), named, client)


def _end_of_head(text: str) -> int:
    match = HEAD.match(text)
    return match.end() if match else 0


def fields_of(text: str) -> dict[str, str] | None:
    """Fields by name, unknown ones too. Brackets of a Message-ID hold whatever they hold."""
    first, *rest = FIELD.split(text)
    if first:
        return None
    names = rest[::2]
    named = dict(zip(names, rest[1::2], strict=True))
    if _is_open(named.get("msgid", "")):
        return _beside_message_id(text)
    return None if len(named) < len(names) and any(names.count(name) > 1 for name in OURS) else named


def _is_open(value: str) -> bool:
    return value.startswith("<") and ">" not in value


def _beside_message_id(text: str) -> dict[str, str] | None:
    """Of a line whose Message-ID holds what looks like a field, or was cut by Sendmail, after 100 characters."""
    before, mark, rest = text.partition(", msgid=<")
    if mark in rest:
        return None
    inside, bracket, rest = rest.partition(">")
    if not bracket:
        return fields_of(text.replace(mark, ", msgid="))
    named = fields_of(before + rest)
    return named and {**named, "msgid": f"<{inside}>"}


def addresses_of(text: str) -> tuple[str, ...]:
    return tuple(plain(each) for each in (ONE.findall(text) if "," in text else (text,)) if each.strip())


def plain(address: str) -> str:
    """An address without brackets and the name before them."""
    if address[:1] == "<" and address[-1:] == ">":
        return address[1:-1]
    _, bracket, inside = address.strip().rpartition(" <")
    return inside[:-1] if bracket and inside.endswith(">") else address.strip()


def controlling(named: dict[str, str]) -> str:
    """`ctladdr`, the address that was expanded, or the sender who is a user of this host. "" where it was cut."""
    if "ctladdr" not in named:
        return ""
    address = plain(named["ctladdr"].partition(" (")[0])
    return "" if "..." in address else address


def same_user(one: str, other: str) -> bool:
    """Whether two addresses name one user of this host, with or without its name."""
    (user, at, host), (user2, at2, host2) = one.lower().partition("@"), other.lower().partition("@")
    return user == user2 and (not at or not at2 or host == host2)


def ruleset_line(text: str) -> tuple[str, str, str, str, str] | None:
    """`ruleset=`: its name, the first argument, the client, the verb, the reply."""
    match = RULESET.match(text)
    said, mark, rest = text.partition(", relay=")
    if match is None or ", relay=" in rest:
        return None
    rest = rest if mark else text
    verbs = list(VERB.finditer(rest))
    if len(verbs) != 1 or (not mark and len(re.findall(r", (?:reject|quarantine)=", rest)) > 1):
        return None
    [verb] = verbs
    argument = said[match.end() :] if mark else text[match.end() : verb.start()]
    client = rest[: verb.start()] if mark else ""
    first = ARGUMENT.match(argument)
    return match[1], first[0] if first else argument.partition(", arg2=")[0], client, verb[1] or verb[3], verb[2] or ""


def status_of(stat: str, dsn: str = "") -> str:
    """What `stat=`, or the text of a dialogue, tells of a recipient, with `dsn=` where there is one."""
    for word, status in STATUS:
        if stat.startswith(word):
            return status
    if stat.startswith("discarded"):
        return "discarded"
    if dsn:
        return "bounced" if dsn.startswith("5") else "deferred"
    return "deferred" if stat.startswith(RETRIED) else "bounced"


@lru_cache(4096)
def seconds_of(delay: str) -> float | None:
    """Seconds of `00:01:02` or `3+00:01:02` (days before the plus). Raises OutOfBounds."""
    match = DELAY.fullmatch(delay)
    if match is None:
        return None
    days, hours, minutes, seconds = (count_of(part or "0") for part in match.groups())
    return float(days * 86_400 + hours * 3600 + minutes * 60 + seconds)
