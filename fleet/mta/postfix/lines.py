"""What one line of Postfix's log says, by Postfix's own grammar: head, verb, `name=value` fields, text to the end.

Fields are taken by name, and unknown ones pass (3.11 has `tls=`). Addresses, replies, HELO names and headers are texts
of strangers: a line that can be read in two ways says nothing. The program is told by the last part of the tag;
master.cf may give each service another name before it.
"""

import re
from functools import lru_cache
from typing import NamedTuple

from fleet.mta.bounds import delay_of
from fleet.mta.logs.rows import Delivery
from fleet.mta.logs.tracing import dsn_of

# The grammars of parse.py; `warning` and `statistics` are none.
ID = r"[0-9A-F]{6,20}|[0-9B-DF-HJ-NP-TV-Zb-df-hj-np-tv-z]{12,64}"
IS_ID = re.compile(f"NOQUEUE|{ID}", re.ASCII).fullmatch
FIELD = re.compile(r", ([a-z_]+)=([^ ,]*)")
QUOTED = r'[^"<>]*(?:"(?:[^"\\]|\\.)*"[^"<>]*)*'
ADDRESS = re.compile(QUOTED, re.DOTALL)
"""As it is logged since 3.5: what is odd in a local part is quoted."""

OUTCOMES = {
    "sent": "sent",
    "deferred": "deferred",
    "bounced": "bounced",
    "SOFTBOUNCE": "deferred",
    "deliverable": "",
    "undeliverable": "",
    "undeliverable-but-not-cached": "",
}
"""By log_adhoc's word; "": an address check (verify(8), sendmail -bv), which is no mail."""
HERE = re.compile(r"\[(?:127\.[0-9.]+|(?:IPv6:)?::1|[^\[\]/]*/[^\[\]]*)\]")
"""Loopback, or a socket in the file system."""
ON_AS = re.compile(rf"\b(?:queued|forwarded) as ({ID})\b", re.ASCII)
THROWN_AWAY = re.compile(r"2\d\d (?:2\.\d+\.\d+ )?Ok, discarded\b")
RETURNED = re.compile(r"2\d\d (?:2\.\d+\.\d+ )?Ok, id=[^ ,]+, BOUNCE$")
"""What amavisd answers for mail that it took and did not pass on."""
BIT_BUCKET = ("discarded", "delivered to file: /dev/null")
"""local(8): mail to a postmaster who has no alias; an alias that leads there."""

VERDICT = re.compile(r"(?:milter-(?:[a-z-]+-)?|proxy-)?(reject|hangup|discard|hold|accept): ")
VERDICTS = {"reject": "rejected", "hangup": "rejected", "discard": "discarded", "hold": "held", "accept": ""}
AT = re.compile(r"(\S+(?: content)?) from ([^\s\[]*\[[^\]]*\])(?::\d+)?: (.*)", re.DOTALL)
OF_CONTENT = ("header ", "body ", "content ", "mime-error ")
AFTER_RECIPIENTS = ("DATA", "END-OF-MESSAGE")
ORIGIN = re.compile(r" from (\S+)$")
FROM = "from=<"
NAMED = (" from=<", " to=<", " proto=", " helo=<")
VALUE = re.compile(rf"({QUOTED})>(?:,? [a-z_]+=[^\s<>:,]*)*(?:: (.*)|,)?", re.DOTALL)
CODE = re.compile(r"([245]\.\d{1,3}\.\d{1,3}) ")
CLIENT = re.compile(r"client=([^\s,\]]+\]?)")
GIVEN_UP = re.compile(r"from=<.*>, status=(?:force-)?expired, returned to sender$")


class Line(NamedTuple):
    """`process`: tag and pid. `name`: the instance's syslog_name, and what master.cf adds to it. `program`: "" where
    rsyslog cut the tag off at its slash, as it does for RFC 5424. `queue_id`: NOQUEUE, or "" of what smtpd says of a
    filter in front of the queue."""

    process: str
    name: str
    program: str
    queue_id: str
    text: str


class Refusal(NamedTuple):
    """What smtpd, postscreen, cleanup or a milter did with mail. `status`: rejected, discarded, held, or "" (nothing).
    `at`: the command of SMTP, "" for a check of the content. `sender` None: none was given yet."""

    status: str
    at: str
    client: str
    sender: str | None
    recipient: str
    reply: str

    @property
    def is_whole(self) -> bool:
        """Whether it is about the mail with all recipients, of whom cleanup and milters tell the first."""
        return self.status in ("held", "discarded") or not self.at or self.at.startswith(AFTER_RECIPIENTS)

    @property
    def dsn(self) -> str:
        code = CODE.match(self.reply)
        return code[1] if code else dsn_of(self.reply)


@lru_cache(maxsize=256)
def _service(tag: str) -> tuple[str, str]:
    """Name and program of `postfix/relay/smtp`."""
    name, _, program = tag.rpartition("/")
    return (name, program) if name else (program, "")


def line_of(text: str) -> Line | None:
    """The line's parts, with or without time and host before them; None of what is about no mail, or another program's.

    A program that logs no pid (Dovecot) has its tag end before strangers' text, in which a whole line may stand.
    """
    head, _, said = text.partition("]: ")
    queue_id, mark, rest = said.partition(": ")
    if ": " in head:
        return None
    if not mark or not IS_ID(queue_id):
        if not said.startswith("proxy-"):
            return None
        queue_id, rest = "", said
    process = head[head.rfind(" ") + 1 :]
    name, program = _service(process.partition("[")[0])
    return Line(process, name, program, queue_id, rest) if name else None


def delivery_of(text: str, time: float) -> tuple[str, Delivery] | None:
    """Recipient and result of `to=<...>, ..., status=... (...)`; None where it cannot be told or in two ways.

    The status is one of STATUSES (fleet.mta.results.reading), or "" for an address check. Raises OutOfBounds.
    """
    head, _, tail = text.partition(", status=")
    word, _, reply = tail.partition(" (")
    status = OUTCOMES.get(word)
    named, bracket, rest = head[len("to=<") :].rpartition(">")
    first, mark, orig_to = named.partition(", orig_to=<")
    to, closed, between = first.rpartition(">") if mark else (named, bracket, "")
    pairs = FIELD.findall(between + rest)
    fields = dict(pairs)
    if status is None or ", status=" in reply or len(fields) != len(pairs) or "relay" not in fields:
        return None
    # Where syslog cut the line within an address, what looks like fields is that address's.
    if not closed or "orig_to" in fields or not (ADDRESS.fullmatch(to) and ADDRESS.fullmatch(orig_to)):
        return None
    relay, reply = fields["relay"], reply.removesuffix(")")
    is_here = "[" not in relay or HERE.search(relay) is not None
    return to, Delivery(
        time,
        _outcome(relay, reply) if status == "sent" and is_here else status,
        "" if relay == "none" else relay,
        fields.get("dsn", ""),
        reply,
        delay_of(fields["delay"]) if "delay" in fields else None,
        orig_to,
        is_here,
        # How long it was queued before the attempt; only local(8) has several results for one recipient.
        fields.get("delays", "").partition("/")[0] if relay == "local" else "",
    )


def _outcome(relay: str, reply: str) -> str:
    """What became of mail that was given to something on this host."""
    if relay == "none":
        return "discarded"  # only discard(8) says so
    if relay == "local":
        return "discarded" if reply in BIT_BUCKET else "handed_over" if following_of(reply) else "sent"
    if "[" not in relay:
        return "sent"
    if THROWN_AWAY.match(reply):
        return "discarded"
    if RETURNED.match(reply):
        return "bounced"
    return "handed_over" if following_of(reply) else "sent"


def following_of(reply: str) -> str:
    """The queue ID under which the mail goes on, as the next server says at the end, or ""."""
    found = ON_AS.findall(reply)
    return found[-1] if found else ""


def refusal_of(text: str) -> Refusal | None:
    """What follows a VERDICT; None where it cannot be told or in two ways."""
    match = VERDICT.match(text)
    if match is None:
        return None
    said = text[match.end() :]
    start = "; from=<" if "; from=<" in said else "; proto="
    head, mark, rest = said.partition(start)
    fields = None if start in rest else _fields_of(start[2:] + rest if mark else "")
    if fields is None:
        return None
    status, (sender, recipient, after) = VERDICTS[match[1]], fields
    if said.startswith(OF_CONTENT):
        origin = ORIGIN.search(head)
        client = origin[1] if origin and "[" in origin[1] else ""
        return Refusal(status, "", client, sender, recipient, after) if origin and mark else None
    at = AT.fullmatch(head)
    if at is None:
        return None
    if match[1] == "accept" and THROWN_AWAY.match(at[3]):
        status = "discarded"
    return Refusal(status, at[1], at[2], sender, recipient, at[3])


def _fields_of(text: str) -> tuple[str | None, str, str] | None:
    """Sender, recipient and the text after all fields. A HELO name is a stranger's: no field can be after it."""
    body, _, helo = text.partition(" helo=<")
    if "=" in helo and any(mark in helo for mark in NAMED):
        return None
    first, _, second = body.partition(" to=<")
    sender = VALUE.fullmatch(first, len(FROM)) if first.startswith(FROM) else None
    recipient = VALUE.fullmatch(second) if second else None
    if (second and not recipient) or (first.startswith(FROM) and not sender):
        return None
    last = recipient or sender
    after = helo.partition(">: ")[2] if helo else last[2] if last else ""
    return sender[1] if sender else None, recipient[1] if recipient else "", after or ""


def arrival_of(text: str) -> tuple[str, str] | None:
    """The client ("": this host) of `client=...`, and the queue ID that the mail had before a filter, or ""."""
    match = CLIENT.match(text)
    if match is None:
        return None
    client, before = str(match[1]), ""
    if ", orig_" in text and ", sasl_username=" not in text:  # a login's name is another's text
        fields = dict(FIELD.findall(text))
        client, before = fields.get("orig_client", client), fields.get("orig_queue_id", "")
    return "" if HERE.search(client) else client, before


def is_given_up(text: str) -> bool:
    """Whether the queue manager says that it returned the message."""
    return GIVEN_UP.fullmatch(text) is not None
