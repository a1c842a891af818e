"""log.search and message.trace from Sendmail's log."""

import re
from collections import OrderedDict

from fleet.mta.bounds import OutOfBounds, size_of
from fleet.mta.logs.heads import SYSLOG
from fleet.mta.logs.mail_log import MailLog
from fleet.mta.logs.rows import Delivery, Message, Trace
from fleet.mta.logs.tracing import dsn_of, null_or
from fleet.mta.sendmail.lines import (
    AT_CONNECT,
    AT_DELIVERY,
    MILTER,
    MILTER_CONNECT,
    NO_MAIL,
    Line,
    arrival_line,
    controlling,
    delivery_line,
    plain,
    ruleset_line,
    same_user,
    seconds_of,
    status_of,
)

ID = re.compile(r"(NOQUEUE|[0-9A-Za-z]{12,20})(?:\[(\d{1,3})\])?: ")
UNKNOWN = re.compile(r'<((?:[^"<>]|"(?:[^"\\]|\\.)*+")*+)>\.\.\. (.*)', re.DOTALL)
NOTICE = re.compile(
    r"([0-9A-Za-z]{12,20}): (?:(clone): owner=|DSN: |return to sender: |(?:sender|postmaster) notify: )(.*)", re.DOTALL
)
SPLIT = re.compile(r"split: .*\bids?=([0-9A-Za-z; ]+)")
QUARANTINED = re.compile(r"quarantine=|milter=[^,]*, quarantine=")
HANDED_OVER = re.compile(r"Sent \(([0-9A-Za-z]{12,20}) Message accepted for delivery\)")
BROKEN_OFF = re.compile(r"(?:SYSERR\(\S*\): )?collect: ")
NO_MESSAGE = frozenset({"ABORTED BY SENDER", "RSET", "HELO", "EHLO", "MAIL", "STARTTLS", "AUTH"})
"""Recipients of a dialogue that came to no message."""
CUT = " ..."
MOST_KEPT = 1000
LOOPBACK = ("@localhost", "[127.0.0.1]", "[::1]", "[IPv6:::1]")
LOCAL_MAILERS = frozenset({"local", "prog", "*file*", "*include*", "cyrus", "cyrusv2", "procmail"})
NOTES = (
    "all Sendmail instances of the host write to this log; a row's instance is the tag of its lines",
    "Sendmail logs the first 100 characters of a Message-ID",
    "of an alias to other hosts Sendmail logs only the addresses that it leads to, and `to` finds only those",
)


class Lines:
    """The parser of one log. Keeps the first parts of long lines, and what milters said of messages."""

    def __init__(self, trace: Trace) -> None:
        self._trace = trace
        self._parts: OrderedDict[str, str] = OrderedDict()
        self._refused: OrderedDict[str, str] = OrderedDict()

    def take(self, time: float, rest: str) -> None:
        parsed = SYSLOG.fullmatch(rest)
        head = ID.match(parsed["text"]) if parsed else None
        if parsed is None or head is None:
            return
        text = parsed["text"][head.end() :].replace(r"\\", "\\")  # str2prt() of its source
        if head[2] is not None:
            text = self._joined(head[1], int(head[2]), text)
        queue_id = "" if head[1] == "NOQUEUE" else head[1]
        if text.startswith("to="):
            self._delivered(time, queue_id, text)
        elif text.startswith("from="):
            self._received(time, queue_id, text, parsed["tag"])
        elif text.startswith("ruleset="):
            self._judged(time, queue_id, text)
        elif text.startswith("Milter: "):
            self._by_milter(time, queue_id, text)
        elif queue_id:
            self._told(time, queue_id, text)
        elif at := AT_CONNECT.match(text):
            self._at_connect(time, queue_id, at["host"] or at["name"], at["addr"] or at["ip"], text)

    def _joined(self, queue_id: str, part: int, text: str) -> str:
        """A line that Sendmail cut, when its last part is here."""
        text = (self._parts.pop(queue_id, "") if part > 1 else "") + text
        if not text.endswith(CUT):
            return text
        keep(self._parts, queue_id, text.removesuffix(CUT))
        return ""

    def _received(self, time: float, queue_id: str, text: str, tag: str) -> None:
        line = arrival_line(text)
        if line is None or "size" not in line.named:
            self._trace.not_understood("", time, text)
            return
        size = size_of(line.named["size"])
        message = self._from(time, queue_id, null_or(line.values[0]))
        message.arrived, message.instance, message.size = time, tag, size
        message.message_id = line.named.get("msgid", "")
        message.client = "" if line.text.endswith((*LOOPBACK, "[RESPONSE]")) else line.text
        if not size and not message.message_id and not message.recipients and message.held != "held":
            self._trace.forget(queue_id)  # a dialogue that ended before DATA: Sendmail gives every message a Message-ID

    def _from(self, time: float, queue_id: str, sender: str) -> Message:
        """The message with this sender: a session's ID stays the same when a sender was refused."""
        known = self._trace.message(queue_id, time)
        if known.sender not in (None, sender) and ("", "") in known.recipients:
            known = self._trace.message(queue_id, time, begins=True)
        known.sender = sender
        return known

    def _delivered(self, time: float, queue_id: str, text: str) -> None:
        line = delivery_line(text)
        if line is None or not line.values:
            self._trace.not_understood(queue_id, time, text)
            return
        if "mailer" not in line.named:
            self._not_taken(time, queue_id, line)
            return
        try:
            delay = seconds_of(line.named.get("delay", ""))
        except OutOfBounds:
            self._trace.not_understood(queue_id, time, text)
            return
        message = self._trace.message(queue_id, time)
        if line.text.startswith("quarantined"):
            message.held = "held"
        expanded = controlling(line.named)
        if expanded and (message.sender is None or same_user(expanded, message.sender)):
            expanded = ""
        if expanded:
            message.recipients.pop((expanded, ""), None)
        is_here = line.named.get("relay", "").endswith(LOOPBACK)
        following = HANDED_OVER.fullmatch(line.text) if is_here else None
        for address in line.values:
            delivery = delivery_of(line, time, delay, address, expanded)
            if following:
                self._trace.handed_over(queue_id, address, delivery, following[1])
            else:
                self._trace.delivered(queue_id, address, delivery)

    def _not_taken(self, time: float, queue_id: str, line: Line) -> None:
        """Without a mailer: whom a message would have gone to that was refused or thrown away at its end."""
        if line.text.upper() in NO_MESSAGE:
            return
        self._trace.message(queue_id, time).recipients.pop(("", ""), None)
        self._trace.message(queue_id, time).is_partly_named = False
        said = self._refused.get(queue_id, "")
        verb = "discard" if line.text == "discarded" and not said else "reject"
        reply = "" if verb == "discard" else said if line.text in said else line.text
        for address in line.values:
            self._end(time, queue_id, address, verb, reply, line.named.get("dsn", ""))

    def _judged(self, time: float, queue_id: str, text: str) -> None:
        line = ruleset_line(text)
        if line is None:
            self._trace.not_understood(queue_id, time, text)
            return
        rules, argument, client, verb, reply = line
        if rules in AT_DELIVERY or rules in NO_MAIL:
            return
        if not queue_id:
            message = Message("", time, time, client=client)
            self._trace.rejected(message, "", reply, dsn_of(reply), "rejected" if verb == "reject" else "discarded")
            return
        if rules == "check_mail":
            message = self._from(time, queue_id, null_or(plain(argument)))
        else:
            message = self._trace.message(queue_id, time)
        message.client = "" if client.endswith(LOOPBACK) else client
        if verb == "quarantine":
            message.held = "held"
        elif rules == "check_rcpt":
            self._end(time, queue_id, plain(argument), verb, reply)
        else:
            self._whole(time, queue_id, verb, reply)

    def _by_milter(self, time: float, queue_id: str, text: str) -> None:
        if at := MILTER_CONNECT.fullmatch(text):
            self._at_connect(time, queue_id, at["host"], at["addr"], at["reply"].removeprefix("reject="))
            return
        match = MILTER.fullmatch(text)
        if match is None or not queue_id:
            return
        verb, reply = match["verb"], match["reply"] or ""
        if match["stage"] == "to":
            self._end(time, queue_id, plain(match["what"] or ""), verb, reply)
            return
        if match["stage"] == "from":
            self._from(time, queue_id, null_or(plain(match["what"] or "")))
        self._whole(time, queue_id, verb, reply)

    def _at_connect(self, time: float, queue_id: str, host: str, address: str, reply: str) -> None:
        address = address.strip("[]")
        client = f"[{address}]" if host.strip("[]") == address else f"{host} [{address}]"
        self._trace.rejected(Message(queue_id, time, time, client=client), "", reply, dsn_of(reply))

    def _end(self, time: float, queue_id: str, address: str, verb: str, reply: str, dsn: str = "") -> None:
        status = "discarded" if verb == "discard" else "rejected"
        delivery = Delivery(time, status, dsn=dsn or dsn_of(reply), reply=reply, is_local=True)
        self._trace.delivered(queue_id, address, delivery)

    def _whole(self, time: float, queue_id: str, verb: str, reply: str) -> None:
        """What became of a message; who its recipients were is told later, or not at all."""
        status = "discarded" if verb == "discard" else "rejected"
        if reply:
            keep(self._refused, queue_id, reply)
        message = self._trace.message(queue_id, time)
        message.is_partly_named = message.is_partly_named or verb == "discard"
        if not any((each.status, each.reply) == (status, reply) for each in message.recipients.values()):
            self._end(time, queue_id, "", verb, reply)

    def _told(self, time: float, queue_id: str, text: str) -> None:
        """Lines without fields."""
        if text == "discarded":
            self._whole(time, queue_id, "discard", "")
        elif unknown := UNKNOWN.fullmatch(text):
            self._end(time, queue_id, unknown[1], "reject", unknown[2])
        elif notice := NOTICE.fullmatch(text):
            self._notice(time, queue_id, notice)
        elif split := SPLIT.fullmatch(text):
            for each in split[1].split(";"):
                self._copy(time, queue_id, each.strip())
        elif QUARANTINED.match(text) or text.startswith("Losing "):
            self._trace.message(queue_id, time).held = "held"
        elif text == "unquarantine":
            self._trace.message(queue_id, time).held = ""
        elif BROKEN_OFF.match(text):
            self._whole(time, queue_id, "reject", text)
        elif at := AT_CONNECT.match(text):
            self._at_connect(time, queue_id, at["host"] or at["name"], at["addr"] or at["ip"], text)

    def _notice(self, time: float, queue_id: str, notice: re.Match[str]) -> None:
        if notice[2]:
            self._copy(time, queue_id, notice[1]).sender = plain(notice[3])
            return
        self._trace.message(notice[1], time).sender = "<>"
        if notice[3].startswith("Cannot send message"):
            self._trace.expired(queue_id, time)

    def _copy(self, time: float, queue_id: str, other_id: str) -> Message:
        """A part of the recipients goes on as a message of its own, of which no arrival is logged."""
        first, other = self._trace.message(queue_id, time), self._trace.message(other_id, time)
        other.arrived, other.sender, other.client = first.arrived, first.sender, first.client
        other.message_id, other.size, other.instance = first.message_id, first.size, first.instance
        return other


def keep(texts: OrderedDict[str, str], queue_id: str, text: str) -> None:
    """Keeps the text of a message, and those of the last messages."""
    texts[queue_id] = text
    if len(texts) > MOST_KEPT:
        texts.popitem(last=False)


def delivery_of(line: Line, time: float, delay: float | None, address: str, expanded: str) -> Delivery:
    """What a delivery line tells of one of its recipients."""
    named = line.named
    dsn, mailer = named.get("dsn", ""), named["mailer"]
    status = status_of(line.text, dsn)
    if status == "sent" and address == "/dev/null":
        status = "discarded"
    return Delivery(
        time,
        status,
        named.get("relay") or mailer,
        dsn,
        named.get("reply") or line.text,
        delay,
        expanded,
        is_local=mailer in LOCAL_MAILERS,
    )


LOG = MailLog("sendmail", lambda trace, instance: Lines(trace).take, NOTES, unnamed=(": discarded", ", discard"))
