"""log.search and message.trace from Sendmail's log (op.me, "System Log")."""

import re

from fleet.mta.bounds import count_of, size_of
from fleet.mta.logs.mail_log import MailLog
from fleet.mta.logs.rows import Delivery, Message, Trace
from fleet.mta.logs.tracing import SYSLOG, clear, dsn_of, null_or

ID = re.compile(r"([0-9A-Za-z]{12,20}): ")
FROM = re.compile(
    r"from=(?P<from>.*), size=(?P<size>\d+), class=-?\d+, nrcpts=\d+(?:, msgid=(?P<msgid>.*?))?"
    r"(?:, (?:bodytype|proto|daemon|tls_verify|auth)=.*)?, relay=(?P<client>(?:(?!, relay=).)*)$"
)
# The middle part stands once, or the line could be read in two ways: addresses and replies are others' texts.
MIDDLE = r", delay=(?P<delay>(?:\d+\+)?\d\d:\d\d:\d\d)(?:, xdelay=[\d+:]+)?, mailer="
ONCE = re.compile(MIDDLE)
TO = re.compile(
    r"to=(?P<to>.*?)(?:, ctladdr=.*?)?" + MIDDLE + r"(?P<mailer>[^ ,]*)(?:, pri=-?\d+)?(?:, relay=(?P<relay>.*?))?"
    r"(?:, dsn=(?P<dsn>[\d.]+))?(?:, reply=(?P<reply>.*?))?(?:, quarantine=.*?)?, stat=(?P<stat>.*)$"
)
ADDRESSES = re.compile(r'<((?:"(?:[^"\\]|\\.)*"|[^"<>])*)>')
RULESET = re.compile(
    r"ruleset=(?P<rules>\w+), arg1=(?P<arg>.*), relay=(?P<client>.*), (?P<verb>reject|discard)=?(?P<reply>.*)$"
)
UNKNOWN = re.compile(r"<(?P<to>.*)>\.\.\. (?P<reply>.*)$")
NOTICE = re.compile(r"([0-9A-Za-z]{12,20}): (?:DSN|return to sender|sender notify|postmaster notify): (.*)$")
HANDED_OVER = re.compile(r"Sent \([0-9A-Za-z]{12,20} Message accepted for delivery\)$")
LOOPBACK = ("@localhost", "[127.0.0.1]", "[::1]", "[IPv6:::1]")
LOCAL_MAILERS = frozenset({"local", "prog", "*file*", "*include*", "cyrus", "cyrusv2", "procmail"})
NOTES = ("all Sendmail instances of the host write to this log; a row's instance is the tag of its lines",)


class Lines:
    """The parser of one log."""

    def __init__(self, trace: Trace) -> None:
        self._trace = trace

    def take(self, time: float, rest: str) -> None:
        parsed = SYSLOG.fullmatch(rest)
        head = ID.match(parsed["text"]) if parsed else None
        if parsed is None or head is None:
            return
        text = parsed["text"][head.end() :]
        if text.startswith("from="):
            self._received(time, head[1], text, parsed["tag"])
        elif text.startswith("to="):
            self._delivered(time, head[1], text)
        elif text.startswith("ruleset="):
            self._refused(time, head[1], text)
        elif unknown := UNKNOWN.fullmatch(text):
            self._trace.delivered(
                head[1], unknown["to"], Delivery(time, "rejected", reply=unknown["reply"], is_local=True)
            )
        elif notice := NOTICE.fullmatch(text):
            self._trace.message(notice[1], time).sender = "<>"
            if notice[2].startswith("Cannot send message"):
                self._trace.expired(head[1], time)
        elif text.startswith("quarantine="):
            self._trace.message(head[1], time).held = "held"

    def _received(self, time: float, queue_id: str, text: str, tag: str) -> None:
        match = clear(FROM.fullmatch(text))
        size = size_of(match["size"])
        message = self._trace.message(queue_id, time)
        message.arrived, message.instance = time, tag
        message.sender, message.size = null_or(match["from"].strip("<>")), size
        message.message_id = match["msgid"] or ""
        is_here = match["client"].endswith(LOOPBACK)
        message.client = "" if is_here else match["client"]
        if not message.size and not message.message_id and not message.recipients:
            self._trace.forget(queue_id)  # a dialogue that ended before DATA: Sendmail gives every message a Message-ID

    def _delivered(self, time: float, queue_id: str, text: str) -> None:
        is_clear = len(ONCE.findall(text)) == 1 and text.count(", stat=") == 1
        match = clear(TO.fullmatch(text) if is_clear else None)
        if HANDED_OVER.fullmatch(match["stat"]) and (match["relay"] or "").endswith(LOOPBACK):
            self._trace.forget(queue_id)  # the client queue's submission: the daemon logs the message itself
            return
        addresses = ADDRESSES.findall(match["to"]) or match["to"].split(",")
        for address in addresses:
            self._trace.delivered(
                queue_id,
                address,
                Delivery(
                    time,
                    status_of(match["stat"], match["dsn"] or ""),
                    match["relay"] or match["mailer"],
                    match["dsn"] or "",
                    match["reply"] or match["stat"],
                    seconds_of(match["delay"]),
                    is_local=match["mailer"] in LOCAL_MAILERS,
                ),
            )

    def _refused(self, time: float, queue_id: str, text: str) -> None:
        match = clear(RULESET.fullmatch(text), once=text.count(", relay=") == 1)
        message: Message = self._trace.message(queue_id, time)
        message.client = match["client"]
        address = match["arg"].strip("<>") if match["rules"] == "check_rcpt" else ""
        if match["rules"] == "check_mail":
            message.sender = null_or(match["arg"].strip("<>"))
        status = "rejected" if match["verb"] == "reject" else "discarded"
        dsn = dsn_of(match["reply"])
        self._trace.delivered(queue_id, address, Delivery(time, status, dsn=dsn, reply=match["reply"], is_local=True))


def status_of(stat: str, dsn: str) -> str:
    """The status that `stat=` and `dsn=` tell."""
    if stat.startswith("Sent"):
        return "sent"
    if stat.startswith(("queued", "quarantined")):
        return "queued"
    if stat.startswith("discarded"):
        return "discarded"
    return "bounced" if dsn.startswith("5") else "deferred"


def seconds_of(delay: str) -> float:
    """Seconds of `00:01:02` or `3+00:01:02` (days before the plus)."""
    days, _, clock = delay.rpartition("+")
    hours, minutes, seconds = clock.split(":")
    return float(count_of(days or "0") * 86_400 + count_of(hours) * 3600 + count_of(minutes) * 60 + count_of(seconds))


LOG = MailLog("sendmail", lambda trace, instance: Lines(trace).take, NOTES)
