"""log.search and message.trace from Postfix's log. Several instances write to one file, each under its syslog_name.

The tag of one line proves nothing of the instance, since master.cf may give a service another name: relay deliveries
of every instance are `postfix/relay/smtp`. But each message passes that instance's cleanup and queue manager.
"""

import re

from fleet.mta.bounds import delay_of, size_of
from fleet.mta.logs.mail_log import MailLog
from fleet.mta.logs.rows import Delivery, Message, Trace
from fleet.mta.logs.tracing import SYSLOG, clear, dsn_of, null_or
from fleet.mta.records import InstanceFacts

# Address and reply are others' texts: a line in which the middle part occurs twice could be read in two ways.
MIDDLE = (
    r">, (?:orig_to=<(?P<orig_to>.*?)>, )?relay=(?P<relay>[^ ]*), (?:conn_use=\d+, )?"
    r"delay=(?P<delay>[\d.]+), delays=[\d./]+, dsn=(?P<dsn>[\d.]+), status=(?P<status>[a-z-]+) \("
)
ONCE = re.compile(MIDDLE)
TO = re.compile(r"to=<(?P<to>.*?)" + MIDDLE + r"(?P<reply>.*)\)$", re.DOTALL)
FROM = re.compile(r"from=<(.*)>, size=(\d+), nrcpt=\d+ \(queue active\)$")
EXPIRED = re.compile(r"from=<.*>, status=(?:force-)?expired, returned to sender$")
CLIENT = re.compile(r"client=([^\s,]+)")
PICKUP = re.compile(r"uid=\d+ from=<(.*?)>(?: orig_id=[0-9A-Za-z]+)?$")
REFUSED = re.compile(
    r"(?P<verb>reject|milter-reject|discard|hold): \S+(?: \S+)? from (?P<client>\S+\[[^\]]*\])(?::\d+)?: "
    r"(?P<reply>.*); from=<(?P<from>.*?)>(?:,? to=<(?P<to>.*?)>)?,? proto=\S+(?:,? helo=<.*>)?(?:,? sasl_\w+=\S+)*$"
)
REFUSAL_ONCE = re.compile(r"; from=<|>,? to=<|>,? proto=")
BY_HEADER = re.compile(
    r"reject: (?:header|body) .* from (?P<client>\S+\[[^\]]*\]); from=<(?P<from>.*?)> to=<(?P<to>.*?)> "
    r"proto=\S+ helo=<.*?>: (?P<reply>.*)$"
)
BY_OPERATOR = {"placed on hold": "held", "released from hold": ""}
ID = re.compile(r"(NOQUEUE|[0-9A-Za-z]{6,}): ")
STATUS = {
    "sent": "sent",
    "deferred": "deferred",
    "bounced": "bounced",
    "deliverable": "sent",
    "undeliverable": "bounced",
}
OF_INSTANCE = frozenset({"cleanup", "qmgr", "nqmgr"})
LOCAL = ("local", "none", "virtual")


def syslog_name(instance: InstanceFacts) -> str:
    """syslog_name of postconf(5); its default, an expression, is the instance's name, or postfix."""
    name = str(instance.options.get("syslog_name") or "")
    if name and "$" not in name:
        return name
    return str(instance.options.get("multi_instance_name") or "postfix")


class Lines:
    """The parser of one log for one instance."""

    def __init__(self, trace: Trace, instance: InstanceFacts) -> None:
        self._trace = trace
        self._name = syslog_name(instance)
        self._others = frozenset(instance.options.get("other_syslog_names", ()))

    def take(self, time: float, rest: str) -> None:
        parsed = SYSLOG.fullmatch(rest)
        head = ID.match(parsed["text"]) if parsed else None
        if parsed is None or head is None:
            return
        name, _, service = parsed["tag"].rpartition("/")
        text = parsed["text"][head.end() :]
        if head[1] == "NOQUEUE":
            self._refused(time, name, text)
        else:
            self._line(time, name, service, head[1], text)

    def _line(self, time: float, name: str, service: str, queue_id: str, text: str) -> None:
        trace = self._trace
        if text.startswith("to=<"):
            self._delivered(time, queue_id, text)
        elif text == "removed":
            trace.close(queue_id, "removed" if service == "postsuper" else "", time)
        elif service in OF_INSTANCE:
            message = trace.message(queue_id, time)
            message.instance, message.is_ours = name, name == self._name
            self._described(message, time, text)
        elif client := CLIENT.match(text):
            trace.message(queue_id, time, begins=True).client = "" if client[1].startswith("localhost[") else client[1]
        elif picked := PICKUP.fullmatch(text):
            trace.message(queue_id, time, begins=True).sender = null_or(picked[1])
        elif service == "postsuper" and text in BY_OPERATOR:
            trace.message(queue_id, time).held = BY_OPERATOR[text]
        elif text.startswith(("reject: ", "milter-reject: ")):
            self._refused_later(time, queue_id, text)

    def _described(self, message: Message, time: float, text: str) -> None:
        if text.startswith("message-id="):
            message.message_id = text.removeprefix("message-id=")
            message.arrived = message.arrived or time  # a notice of Postfix's own has no line before
        elif match := FROM.fullmatch(text):
            message.sender, message.size = null_or(match[1]), size_of(match[2])
        elif EXPIRED.fullmatch(text):
            self._trace.expired(message.queue_id, time)
        elif text.startswith("hold: "):
            message.held = "held"
        elif text.startswith(("reject: ", "milter-reject: ")):
            self._refused_later(time, message.queue_id, text)

    def _delivered(self, time: float, queue_id: str, text: str) -> None:
        match = clear(TO.fullmatch(text) if len(ONCE.findall(text)) == 1 else None)
        relay = match["relay"]
        self._trace.delivered(
            queue_id,
            match["to"],
            Delivery(
                time,
                STATUS.get(match["status"], "deferred"),
                "" if relay == "none" else relay,
                match["dsn"],
                match["reply"],
                delay_of(match["delay"]),
                match["orig_to"] or "",
                relay in LOCAL,
            ),
        )

    def _refused(self, time: float, name: str, text: str) -> None:
        refusal = self._refusal(text)
        if refusal is None or name in self._others:
            return
        is_sure = name == self._name or not self._others
        message = Message("", time, time, client=refusal["client"], sender=null_or(refusal["from"]))
        message.instance = self._name if is_sure else ""
        if refusal["verb"] in ("reject", "milter-reject"):
            self._trace.rejected(message, refusal["to"] or "", refusal["reply"], dsn_of(refusal["reply"]))
        elif refusal["verb"] == "discard":
            self._trace.rejected(message, refusal["to"] or "", refusal["reply"], "", "discarded")

    def _refused_later(self, time: float, queue_id: str, text: str) -> None:
        """By a milter or a header check, when the message had its queue ID already."""
        refusal = self._refusal(text)
        message = self._trace.message(queue_id, time)
        if refusal is None:
            return
        message.sender = null_or(refusal["from"])
        self._trace.delivered(
            queue_id,
            refusal["to"] or "",
            Delivery(time, "rejected", dsn=dsn_of(refusal["reply"]), reply=refusal["reply"], is_local=True),
        )
        self._trace.close(queue_id)

    def _refusal(self, text: str) -> re.Match[str] | None:
        parts = REFUSAL_ONCE.findall(text)
        if len(parts) == len(set(parts)) and (match := REFUSED.fullmatch(text)):
            return match
        if text.count("]; from=<") == 1 and (match := BY_HEADER.fullmatch(text)):
            return match
        if text.startswith(("reject: ", "milter-reject: ", "discard: ")):
            self._trace.unclear += 1
        return None


LOG = MailLog("postfix", lambda trace, instance: Lines(trace, instance).take)
