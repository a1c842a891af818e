"""log.search and message.trace from OpenSMTPD's log. A queue ID here is the message id, 8 hex digits."""

import re
from collections import OrderedDict

from fleet.mta.bounds import OutOfBounds, size_of
from fleet.mta.logs.heads import SYSLOG
from fleet.mta.logs.mail_log import MailLog
from fleet.mta.logs.rows import Delivery, Message, Trace
from fleet.mta.logs.tracing import dsn_of, null_or
from fleet.mta.opensmtpd.lines import SESSION, delivery_line, envelope_of, fields_of, given_up_line, original

ADDRESS = re.compile(r"address=(\S+)")
GIVEN_UP = re.compile(r"\w+: (Remove|Expire) for ([0-9a-f]{8})[0-9a-f]{8}: ")
CORRUPT = re.compile(r"warn: invalid envelope ([0-9a-f]{8})[0-9a-f]{8}: ")
"""The envelope is put aside, in corrupt/."""
FAILED = re.compile(r'command="(?P<command>.*)" result="(?P<reply>.*?)"?', re.DOTALL)
PATH = r' ?<((?:[^">]++|"(?:[^"\\]|\\.)*+")*+)>'
RCPT = re.compile(f"RCPT TO:{PATH}", re.IGNORECASE)
MAIL = re.compile(f"MAIL FROM:{PATH}", re.IGNORECASE)
HERE = re.compile(r"127\.|\[?(?:IPv6:)?::1\b")
ACCEPTED = re.compile(r"\b([0-9a-f]{8}) Message accepted for delivery")
OTHERS = frozenset({"", "HELO", "EHLO", "DATA", "."})
"""Commands besides those, "" when the client was refused at connect, whose refusal is one of mail."""
OF_ALL = frozenset({"DATA", "."})
MISUSED = ("500", "501", "502", "503", "504")
"""Replies to what is no SMTP, or comes at the wrong time, as DATA does after all recipients were refused."""
OURSELVES = frozenset({"local", "127.0.0.1", "::1", "[::1]", "IPv6:::1", "[IPv6:::1]"})
SESSIONS = 10_000
NOTES = ("the log tells no sender of recipients that were refused, and no Message-ID",)


class Lines:
    """The parser of one log. Keeps the clients of the last sessions."""

    def __init__(self, trace: Trace) -> None:
        self._trace = trace
        self._clients: OrderedDict[str, str] = OrderedDict()

    def take(self, time: float, rest: str) -> None:
        parsed = SYSLOG.fullmatch(rest)
        if parsed is None:
            return
        line = SESSION.fullmatch(parsed["text"])
        if line is None:
            self._without_session(time, parsed["text"])
            return
        session, part, event, fields = line.groups()
        if event == "delivery":
            self._delivered(time, fields)
        elif part != "smtp":
            return
        elif event in ("connected", "proxy"):
            self._connected(session, fields)
        elif event == "message":
            self._message(time, session, fields)
        elif event == "envelope":
            self._envelope(time, fields)
        elif event == "failed-command":
            self._refused(time, session, fields)

    def _connected(self, session: str, fields: str) -> None:
        """A proxy's line comes second, with the address of its client (proxy-v2)."""
        match = ADDRESS.match(fields)
        if match is None:
            return
        self._clients[session] = "" if match[1] in OURSELVES else match[1]
        if len(self._clients) > SESSIONS:
            self._clients.popitem(last=False)

    def _message(self, time: float, session: str, fields: str) -> None:
        named = fields_of(fields)
        if named is None or "msgid" not in named or "size" not in named:
            self._trace.not_understood("", time, fields)
            return
        size = size_of(named["size"])
        message = self._trace.message(named["msgid"], time, begins=True)
        message.size, message.client = size, self._clients.get(session, "")

    def _envelope(self, time: float, fields: str) -> None:
        named = fields_of(fields)
        if named is None or not named.keys() >= {"evpid", "from", "to"}:
            self._trace.not_understood("", time, fields)
            return
        self._trace.message(named["evpid"][:8], time).sender = null_or(named["from"])
        self._trace.named(named["evpid"][:8], named["to"], Delivery(time, "queued"))

    def _delivered(self, time: float, fields: str) -> None:
        try:
            told = delivery_line(fields)
        except OutOfBounds:
            told = None
        if told is None or told.status == "unclear":
            self._trace.not_understood(envelope_of(fields), time, fields)
            return
        self._trace.message(told.queue_id, time).sender = null_or(told.sender)
        if told.orig_to:
            self._expanded(told.queue_id, time, told.orig_to)
        delivery = Delivery(time, told.status, told.relay, dsn_of(told.reply), told.reply, told.delay, told.orig_to)
        delivery.is_local = told.is_local
        if told.status == "sent" and HERE.match(told.relay) and not told.is_local:
            following = ACCEPTED.search(told.reply)
            self._trace.handed_over(told.queue_id, told.recipient, delivery, following[1] if following else "")
        else:
            self._trace.delivered(told.queue_id, told.recipient, delivery)

    def _expanded(self, queue_id: str, time: float, orig_to: str) -> None:
        """An address that was named when the message came is told as what it leads to."""
        recipients = self._trace.message(queue_id, time).recipients
        known = recipients.get((orig_to, ""))
        if known is not None and known.status == "queued":
            del recipients[orig_to, ""]

    def _without_session(self, time: float, text: str) -> None:
        if corrupt := CORRUPT.match(text):
            self._trace.not_understood(corrupt[1], time, text)
        match = GIVEN_UP.match(text)
        if match is None:
            return
        named = given_up_line(text[match.end() :])
        if named is None:
            self._trace.not_understood(match[2], time, text)
            return
        orig_to = original(named)
        message = self._trace.message(match[2], time)
        if message.sender is None:
            message.sender = null_or("" if named["from"] == "@" else named["from"])
        if orig_to:
            self._expanded(match[2], time, orig_to)
            self._trace.named(match[2], named["to"], Delivery(time, "queued", orig_to=orig_to))
        self._trace.ended(match[2], named["to"], "removed" if match[1] == "Remove" else "expired", time)

    def _refused(self, time: float, session: str, fields: str) -> None:
        match = FAILED.fullmatch(fields)
        if match is None or fields.count('" result="') != 1:
            self._trace.not_understood("", time, fields)
            return
        command, reply = (match[part].replace(r"\\", "\\") for part in ("command", "reply"))  # vis(3)
        recipient, sender = RCPT.match(command), MAIL.match(command)
        if not recipient and not sender:
            verb = command.partition(" ")[0].upper()
            if verb not in OTHERS or reply.startswith(MISUSED):
                return
        message = Message("", time, time, client=self._clients.get(session, ""))
        message.sender = null_or(sender[1]) if sender else None
        message.is_partly_named = command.upper() in OF_ALL
        self._trace.rejected(message, recipient[1] if recipient else "", reply, dsn_of(reply))


LOG = MailLog(
    "opensmtpd",
    lambda trace, instance: Lines(trace).take,
    NOTES,
    without_message_id="OpenSMTPD",
    unnamed=('command="DATA"', 'command="."'),
)
