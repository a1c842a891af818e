"""log.search and message.trace from qmail-send's log and, where mailfront writes one, the front end's.

A message number is an inode number and comes again at once; a delivery number counts from 1 since qmail-send started.
So lines are joined in their order, from `new msg` to `end msg`, and from `starting delivery` to `delivery`.
"""

import re
from bisect import bisect_left
from collections import OrderedDict, defaultdict

from fleet.mta.bounds import size_of
from fleet.mta.logs.mail_log import MailLog
from fleet.mta.logs.rows import Delivery, Message, Trace
from fleet.mta.logs.source import sources_of
from fleet.mta.logs.tracing import dsn_of, null_or
from fleet.mta.qmail.lines import BOUNCE, STARTING, ended_line, words_of
from fleet.mta.qmail.virtual import NONE, Virtual
from fleet.mta.records import InstanceFacts

NEW = re.compile(r"(new|end) msg (\d+)$")
INFO = re.compile(r"info msg (\d+): bytes (\d+) from <(.*)> qp (\d+) uid \d+$")
NUMBERS = "status: "  # of deliveries under way, behind the beginning and the end of each
DELIVERY = re.compile(r"delivery (\d+): ")
FRONT = re.compile(r"(?:mailfront|smtpfront-\w+)\[(\d+)\]: (.*)$")
CONNECTED = re.compile(r"tcpserver: pid (\d+) from (\S+)$")
DENIED = re.compile(r"tcpserver: deny (\d+) ")
LISTED = re.compile(r"rblsmtpd: (\S+) pid \d+: ([45]\d\d .*)$")
ACCEPTED = re.compile(r"2\.6\.0 Accepted message qp (\d+) bytes \d+$")
PATH = re.compile(r'(MAIL FROM|RCPT TO):<((?:"(?:[^"\\]|\\.)*"|[^">])*)>')
REPLY = re.compile(r"[45]\d\d ")
MISUSED = re.compile(r"50[0-4] |5[23][458] ")
"""Replies to what is no SMTP, comes at the wrong time or is a failed login: no mail."""
LOGGED_LATER = 60  # seconds between the front end's line and qmail-send's
SESSIONS = 10_000
MOST_RECIPIENTS = 100
NOTES = ("qmail logs no Message-ID, and writes blanks, percent signs and 8-bit characters of addresses as _",)


def _sources(instance: InstanceFacts) -> tuple[str, ...]:
    """The front ends' logs first: what they say of a message is known then when qmail-send tells of it."""
    fronts = instance.options.get("front_end_logs", [])
    [main] = sources_of(instance)
    return (*(log for log in fronts if log != main), main)


def as_logged(address: str) -> str:
    """An address or pattern as qmail-send writes it: the local part without quotes, odd characters as `_`."""
    local, at, domain = address.rpartition("@")
    if len(local) > 1 and local[0] == local[-1] == '"':
        local = re.sub(r"\\(.)", r"\1", local[1:-1])
    return re.sub(r"[^!-$&-~]", "_", local + at + domain)


class Front:
    """A session of the front end."""

    def __init__(self, client: str) -> None:
        self.client = client
        self.sender: str | None = None
        self.recipients: list[str] = []
        self.refused = ""


class Lines:
    """The parser of the front ends' logs and then qmail-send's."""

    def __init__(self, trace: Trace, virtual: Virtual = NONE) -> None:
        self._trace = trace
        self._virtual = virtual
        self._deliveries: dict[str, tuple[str, str, str, bool]] = {}
        self._sessions: OrderedDict[str, Front] = OrderedDict()
        self._clients: dict[str, list[tuple[float, str]]] = defaultdict(list)

    def take(self, time: float, rest: str) -> None:
        text = words_of(rest)
        if text.startswith(NUMBERS):
            return
        if match := STARTING.fullmatch(text):
            self._starting(time, *match.groups())
        elif match := DELIVERY.match(text):
            self._delivered(time, match[1], text)
        elif match := INFO.fullmatch(text):
            size = size_of(match[2])
            message = self._trace.message(match[1], time)
            message.arrived = message.arrived or time
            message.size, message.sender = size, null_or(match[3])
            message.client = self._client_of(match[4], time)
        elif match := NEW.fullmatch(text):
            if match[1] == "new":
                self._trace.message(match[2], time, begins=True)
            else:
                self._trace.close(match[2])
        elif (match := BOUNCE.fullmatch(text)) and match[2]:
            self._thrown_away(time, match[2])
        else:
            self._of_front(time, text)

    def _of_front(self, time: float, text: str) -> None:
        """A line of what takes mail from the network."""
        if match := CONNECTED.fullmatch(text):
            self._sessions[match[1]] = Front(match[2])
            if len(self._sessions) > SESSIONS:
                self._sessions.popitem(last=False)
        elif match := FRONT.fullmatch(text):
            self._front(time, self._sessions.setdefault(match[1], Front("")), match[2])
        elif match := LISTED.fullmatch(text):
            self._trace.rejected(Message("", time, time, client=match[1]), "", match[2], dsn_of(match[2]))
        elif match := DENIED.match(text):
            client = self._sessions.get(match[1], Front("")).client
            self._trace.rejected(Message("", time, time, client=client), "", text, "")

    def _starting(self, time: float, number: str, queue_id: str, channel: str, address: str) -> None:
        is_local = channel == "local"
        known = self._virtual.known(address) if is_local else address
        raw = "" if known == address else address
        self._deliveries[number] = (queue_id, known, raw, is_local)
        self._trace.named(queue_id, known, Delivery(time, "queued", orig_to=raw, is_local=is_local))

    def _delivered(self, time: float, number: str, text: str) -> None:
        queue_id, address, raw, is_local = self._deliveries.pop(number, ("", "", "", False))
        if not queue_id:
            return
        report = ended_line(text)
        if report is None:
            self._trace.not_understood(queue_id, time, text)
            return
        message = self._trace.message(queue_id, time)
        delay = round(time - message.arrived, 3) if message.arrived else None
        relay = "local" if is_local else report.host
        delivery = Delivery(time, report.status, relay, report.dsn, report.reply, delay, raw, is_local)
        self._trace.delivered(queue_id, address, delivery)

    def _thrown_away(self, time: float, queue_id: str) -> None:
        """A double bounce that failed: nobody is told of it any more."""
        for delivery in self._trace.message(queue_id, time).recipients.values():
            if delivery.status in ("bounced", "expired"):
                delivery.status, delivery.time = "discarded", time

    def _front(self, time: float, session: Front, text: str) -> None:
        before, session.refused = session.refused, ""
        if match := PATH.match(text):
            if match[1] == "MAIL FROM":
                session.sender, session.recipients = null_or(match[2]), []
            else:
                session.recipients = [*session.recipients[1 - MOST_RECIPIENTS :], match[2]]
        elif match := ACCEPTED.fullmatch(text):
            self._clients[match[1]].append((time, session.client))
        elif REPLY.match(text) and not MISUSED.match(text):
            session.refused = text[:4]
            if session.refused == before:
                return  # another line of the same reply: mailfront logs each, and commands between replies
            message = Message("", time, time, client=session.client, sender=session.sender)
            # Of the last recipient, or of the mail after DATA, which is not logged.
            recipient = session.recipients.pop() if session.recipients else ""
            message.is_partly_named = bool(session.recipients)
            self._trace.rejected(message, recipient, text, dsn_of(text))

    def _client_of(self, qp: str, time: float) -> str:
        """The client of the message that qmail-queue took as process `qp` around that time."""
        accepted = self._clients.get(qp, [])
        at = bisect_left(accepted, (time - LOGGED_LATER, ""))
        near = [each for each in accepted[at:] if abs(each[0] - time) <= LOGGED_LATER]
        return min(near, key=lambda each: abs(each[0] - time))[1] if near else ""


LOG = MailLog(
    "qmail",
    lambda trace, instance: Lines(trace, Virtual.of(instance)).take,
    NOTES,
    as_logged,
    _sources,
    without_message_id="qmail",
)
