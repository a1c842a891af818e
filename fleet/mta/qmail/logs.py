"""log.search and message.trace from qmail-send's log and, where mailfront writes one, the front end's.

A message number is an inode number and comes again at once; a delivery number counts from 1 since qmail-send started.
So lines are joined in their order, from `new msg` to `end msg`, and from `starting delivery` to `delivery`.
"""

import re
from bisect import bisect_left
from collections import defaultdict

from fleet.mta.bounds import size_of
from fleet.mta.logs.mail_log import MailLog
from fleet.mta.logs.rows import Delivery, Message, Trace
from fleet.mta.logs.source import sources_of
from fleet.mta.logs.tracing import dsn_of, null_or
from fleet.mta.records import InstanceFacts

SPLOGGER = re.compile(r"(?:\S+ )?qmail(?:\[\d+\])?: \d+\.\d+ ")
NEW = re.compile(r"(new|end) msg (\d+)$")
INFO = re.compile(r"info msg (\d+): bytes (\d+) from <(.*)> qp (\d+) uid \d+$")
STARTING = re.compile(r"starting delivery (\d+): msg (\d+) to (local|remote) (.*)$")
ENDED = re.compile(r"delivery (\d+): (success|deferral|failure): (.*)$")
FRONT = re.compile(r"(?:mailfront|smtpfront-\w+)\[(\d+)\]: (.*)$")
CONNECTED = re.compile(r"tcpserver: pid (\d+) from (\S+)$")
ACCEPTED = re.compile(r"2\.6\.0 Accepted message qp (\d+) bytes \d+$")
PATH = re.compile(r'(MAIL FROM|RCPT TO):<((?:"(?:[^"\\]|\\.)*"|[^">])*)>')
REPLY = re.compile(r"[45]\d\d ")
HOST = re.compile(r"^([0-9A-Fa-f.:]+)_")
STATUS = {"success": "sent", "deferral": "deferred", "failure": "bounced"}
LOGGED_LATER = 60  # seconds between the front end's line and qmail-send's
SESSIONS = 10_000
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
        self.recipient = ""
        self.size = 0


class Lines:
    """The parser of the front ends' logs and then qmail-send's."""

    def __init__(self, trace: Trace) -> None:
        self._trace = trace
        self._deliveries: dict[str, tuple[str, str, bool]] = {}
        self._sessions: dict[str, Front] = {}
        self._clients: dict[str, list[tuple[float, str]]] = defaultdict(list)

    def take(self, time: float, rest: str) -> None:
        text = rest[end.end() :] if (end := SPLOGGER.match(rest)) else rest
        if match := STARTING.fullmatch(text):
            number, queue_id, channel, address = match.groups()
            self._deliveries[number] = (queue_id, address, channel == "local")
            self._trace.named(queue_id, address, Delivery(time, "queued", is_local=channel == "local"))
        elif match := ENDED.fullmatch(text):
            self._delivered(time, *match.groups())
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
        elif match := CONNECTED.fullmatch(text):
            self._sessions[match[1]] = Front(match[2])
            if len(self._sessions) > SESSIONS:
                del self._sessions[next(iter(self._sessions))]
        elif match := FRONT.fullmatch(text):
            self._front(time, self._sessions.setdefault(match[1], Front("")), match[2])

    def _delivered(self, time: float, number: str, result: str, text: str) -> None:
        queue_id, address, is_local = self._deliveries.pop(number, ("", "", False))
        if not queue_id:
            return
        message = self._trace.message(queue_id, time)
        reply = text.rstrip("/").replace("_", " ")
        relay = "local" if is_local else (match[1] if (match := HOST.match(text)) else "")
        delay = round(time - message.arrived, 3) if message.arrived else None
        status = STATUS[result]
        if status == "bounced" and "I'm not going to try again" in reply:
            status = "expired"
        self._trace.delivered(
            queue_id,
            address,
            Delivery(time, status, relay, dsn_of(reply), reply, delay, is_local=is_local),
        )

    def _front(self, time: float, session: Front, text: str) -> None:
        if match := PATH.match(text):
            if match[1] == "MAIL FROM":
                session.sender, session.recipient = null_or(match[2]), ""
            else:
                session.recipient = match[2]
        elif match := ACCEPTED.fullmatch(text):
            self._clients[match[1]].append((time, session.client))
        elif REPLY.match(text):
            message = Message("", time, time, client=session.client, sender=session.sender)
            self._trace.rejected(message, session.recipient, text, dsn_of(text))

    def _client_of(self, qp: str, time: float) -> str:
        """The client of the message that qmail-queue took as process `qp` around that time."""
        accepted = self._clients.get(qp, [])
        at = bisect_left(accepted, (time - LOGGED_LATER, ""))
        near = [each for each in accepted[at:] if abs(each[0] - time) <= LOGGED_LATER]
        return min(near, key=lambda each: abs(each[0] - time))[1] if near else ""


LOG = MailLog(
    "qmail", lambda trace, instance: Lines(trace).take, NOTES, as_logged, _sources, without_message_id="qmail"
)
