"""log.search and message.trace from OpenSMTPD's log. A queue ID here is the message id, 8 hex digits."""

import re

from fleet.mta.bounds import count_of, size_of
from fleet.mta.logs.mail_log import MailLog
from fleet.mta.logs.rows import Delivery, Message, Trace
from fleet.mta.logs.tracing import SYSLOG, clear, dsn_of, null_or

SESSION = re.compile(r"([0-9a-f]{16}) (smtp|mta|mda) ([a-z-]+) ?(.*)")
CONNECTED = re.compile(r"address=(\S+) host=\S+$")
MESSAGE = re.compile(r"(?:address=\S+ host=\S+ )?msgid=([0-9a-f]{8}) size=(\d+) nrcpt=\d+ proto=\S+$")
ENVELOPE = re.compile(r"evpid=([0-9a-f]{8})[0-9a-f]{8} from=<(.*)> to=<(.*)>$")
GIVEN_UP = re.compile(r"\w+: (Remove|Expire) for ([0-9a-f]{8})[0-9a-f]{8}: from=<.*?>, to=<(.*)>, rcpt=<[^>]*>, delay=")
# The middle part stands once, or the line could be read in two ways: addresses and replies are others' texts.
DELIVERY = re.compile(
    r"evpid=(?P<id>[0-9a-f]{8})[0-9a-f]{8} from=<(?P<from>.*?)> to=<(?P<to>.*?)> rcpt=<(?P<rcpt>.*?)> "
    r'(?:user=(?P<user>\S+)|source="(?P<source>[^"]*)" relay="(?P<relay>[^"]*)") delay=(?P<delay>\w+) '
    r'result="?(?P<result>\w+)"? stat="?(?P<stat>.*?)"?$'
)
ONCE = re.compile(r"> to=<|> rcpt=<| result=")
FAILED = re.compile(r'command="(?P<command>.*)" result="(?P<reply>.*)"$')
RCPT = re.compile(r"RCPT TO: ?<(.*)>", re.IGNORECASE)
MAIL = re.compile(r"MAIL FROM: ?<(.*)>", re.IGNORECASE)
DELAY = re.compile(r"(?:(\d+)d)?(?:(\d+)h)?(?:(\d+)m)?(?:(\d+)s)?")
STATUS = {"Ok": "sent", "TempFail": "deferred", "PermFail": "bounced", "Expired": "expired"}
SESSIONS = 10_000
NOTES = ("the log tells no sender of recipients that were refused, and no Message-ID",)


class Lines:
    """The parser of one log. Keeps the clients of the last sessions."""

    def __init__(self, trace: Trace) -> None:
        self._trace = trace
        self._clients: dict[str, str] = {}

    def take(self, time: float, rest: str) -> None:
        parsed = SYSLOG.fullmatch(rest)
        if parsed is None:
            return
        line = SESSION.fullmatch(parsed["text"])
        if line is None:
            self._given_up(time, parsed["text"])
            return
        session, part, event, fields = line.groups()
        if event == "delivery":
            self._delivered(time, fields)
        elif part != "smtp":
            return
        elif event == "connected":
            self._connected(session, fields)
        elif event == "message" and (match := MESSAGE.fullmatch(fields)):
            size = size_of(match[2])
            message = self._trace.message(match[1], time, begins=True)
            message.size, message.client = size, self._clients.get(session, "")
        elif event == "envelope":
            self._envelope(time, fields)
        elif event == "failed-command":
            self._refused(time, session, fields)

    def _connected(self, session: str, fields: str) -> None:
        match = CONNECTED.fullmatch(fields)
        if match is None:
            return
        self._clients[session] = "" if match[1] in ("local", "127.0.0.1", "::1", "[::1]") else match[1]
        if len(self._clients) > SESSIONS:
            del self._clients[next(iter(self._clients))]

    def _envelope(self, time: float, fields: str) -> None:
        match = clear(ENVELOPE.fullmatch(fields), once=fields.count("> to=<") == 1)
        self._trace.message(match[1], time).sender = null_or(match[2])
        self._trace.delivered(match[1], match[3], Delivery(time, "queued"))

    def _delivered(self, time: float, fields: str) -> None:
        parts = ONCE.findall(fields)
        match = clear(DELIVERY.fullmatch(fields) if len(parts) == len(set(parts)) else None)
        self._trace.message(match["id"], time).sender = null_or(match["from"])
        stat, is_local = match["stat"], match["user"] is not None
        self._trace.delivered(
            match["id"],
            match["to"],
            Delivery(
                time,
                STATUS.get(match["result"], "deferred"),
                match["relay"] or (match["user"] or ""),
                dsn_of(stat),
                stat,
                seconds_of(match["delay"]),
                is_local=is_local,
            ),
        )

    def _given_up(self, time: float, text: str) -> None:
        match = GIVEN_UP.match(text)
        if match is None:
            return
        clear(match, once=text.count(">, to=<") == text.count(">, rcpt=<") == 1)
        before = self._trace.message(match[2], time).recipients.get(match[3])
        status = "removed" if match[1] == "Remove" else "expired"
        if before is None:
            self._trace.delivered(match[2], match[3], Delivery(time, status))
        else:
            before.status, before.time = status, time

    def _refused(self, time: float, session: str, fields: str) -> None:
        match = clear(FAILED.fullmatch(fields), once=fields.count('" result="') == 1)
        recipient, sender = RCPT.match(match["command"]), MAIL.match(match["command"])
        if recipient is None and sender is None:
            return
        message = Message("", time, time, client=self._clients.get(session, ""))
        message.sender = null_or(sender[1]) if sender else None
        self._trace.rejected(message, recipient[1] if recipient else "", match["reply"], dsn_of(match["reply"]))


def seconds_of(delay: str) -> float | None:
    """Seconds of `1d2h3m4s`."""
    match = DELAY.fullmatch(delay)
    if match is None:
        return None
    days, hours, minutes, seconds = (count_of(part or "0") for part in match.groups())
    return float(days * 86_400 + hours * 3600 + minutes * 60 + seconds)


LOG = MailLog("opensmtpd", lambda trace, instance: Lines(trace).take, NOTES, without_message_id="OpenSMTPD")
