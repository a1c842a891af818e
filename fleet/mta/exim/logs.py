"""log.search and message.trace from Exim's main log (spec.txt, "Log files"), as a file or through syslog."""

import re

from fleet.mta.bounds import size_of
from fleet.mta.logs.mail_log import MailLog
from fleet.mta.logs.rows import Delivery, Message, Trace
from fleet.mta.logs.source import sources_of
from fleet.mta.logs.tracing import clear, dsn_of, null_or
from fleet.mta.records import InstanceFacts

SYSLOG = re.compile(r"(?:\S+ )?[^\s\[\]:]+(?:\[\d+\])?: (?:\d{4}-\d\d-\d\d \d\d:\d\d:\d\d(?:\.\d+)? (?:[+-]\d{4} )?)?")
PID = re.compile(r"\[\d+\] ")
ID = re.compile(r"([0-9A-Za-z]{6}-(?:[0-9A-Za-z]{6}-[0-9A-Za-z]{2}|[0-9A-Za-z]{11}-[0-9A-Za-z]{4})) ")
CAME = re.compile(r'<= (?P<from>(?:"(?:[^"\\]|\\.)*"|[^" ])*)(?P<fields>(?: [A-Za-z]+=.*)?)$')
# What a client calls itself stands in parentheses, and may be an address in brackets.
HOST = re.compile(r" H=((?:[^\s()\[]+ )?(?:\([^)]*\) )?\[[^\]]*\])")
SIZE = re.compile(r" S=(\d+)")
MESSAGE_ID = re.compile(r" id=(\S+)")
ROUTER = re.compile(r" R=[^ ]+(?: T=[^ :]+| defer )")
WENT = re.compile(
    r"(?P<flag>=>|->|>>|\*>|\*\*|==) (?P<to>.*?)(?: <(?P<orig>.*)>)?"
    r"(?: R=(?P<router>[^ :]+)(?: T=(?P<transport>[^ :]+))?(?P<fields>.*)|: (?P<failed>.*))$"
)
CONFIRMED = re.compile(r' C="(.*)"')
# Before a refusal stand fields only: what remote hosts answered comes after other words.
FIELD = r"(?:H=(?:[^\s()\[]+ )?(?:\([^)]*\) )?\[[^\]]*\](?::\d+)?|(?![FH]=)[A-Za-z]+=(?:\"[^\"]*\"|[^\s\"]+))"
REFUSED = re.compile(
    rf"(?P<head>(?:(?:^| ){FIELD})*)(?: F=<(?P<from>.*?)>)?(?: A=\S+)? (?P<verb>rejected|temporarily rejected) "
    r"(?P<stage>RCPT <(?P<to>.*?)>|MAIL(?: <.*?>)?|DATA|after DATA|EHLO.*?|HELO.*?|connection.*?)(?:: (?P<reply>.*))?$"
)
REFUSED_ONCE = re.compile(r" rejected (?:RCPT|MAIL|DATA|after|EHLO|HELO|connection|from)")
STATUS = {"=>": "sent", "->": "sent", ">>": "sent", "*>": "discarded", "**": "bounced", "==": "deferred"}


def _beside(instance: InstanceFacts) -> tuple[str, ...]:
    """Rejections and panics; the main log has the rejections too."""
    [main] = sources_of(instance)
    if not main.endswith("mainlog"):
        return ()
    return tuple(main.removesuffix("mainlog") + name for name in ("rejectlog", "paniclog"))


class Lines:
    """The parser of one log."""

    def __init__(self, trace: Trace) -> None:
        self._trace = trace

    def take(self, time: float, rest: str) -> None:
        head = ID.match(rest)
        if head is None:
            rest = rest[end.end() :] if (end := SYSLOG.match(rest)) else rest
            rest = rest[end.end() :] if (end := PID.match(rest)) else rest
            head = ID.match(rest)
        if head is None:
            if " rejected " in rest:
                self._refused(time, "", rest)
            return
        queue_id, text = head[1], rest[head.end() :]
        flag = text.partition(" ")[0]
        if flag == "<=":
            self._came(time, queue_id, text)
        elif flag in STATUS:
            self._went(time, queue_id, text)
        elif text == "Completed":
            self._trace.close(queue_id)
        elif text.startswith(("Frozen", "frozen by", "*** Frozen")):
            self._trace.message(queue_id, time).held = "held"
        elif text.startswith(("Unfrozen", "unfrozen")):
            self._trace.message(queue_id, time).held = ""
        elif text.startswith("cancelled by"):
            self._trace.expired(queue_id, time)
        elif text.startswith("removed by"):
            self._trace.close(queue_id, "removed", time)
        elif " rejected " in text:
            self._refused(time, queue_id, text)

    def _came(self, time: float, queue_id: str, text: str) -> None:
        match = clear(CAME.fullmatch(text))
        fields = match["fields"].partition(' T="')[0]
        clear(match, once=fields.count(" P=") <= 1)
        host, size, name = HOST.search(fields), SIZE.search(fields), MESSAGE_ID.search(fields)
        length = size_of(size[1]) if size else None
        message = self._trace.message(queue_id, time, begins=True)
        message.sender, message.size = null_or(match["from"].strip("<>")), length
        message.client = "" if host is None or host[1].endswith(("[127.0.0.1]", "[::1]")) else host[1]
        message.message_id = name[1] if name else ""

    def _went(self, time: float, queue_id: str, text: str) -> None:
        match = clear(WENT.fullmatch(text), once=len(ROUTER.findall(text)) <= 1)
        fields = match["fields"] or ""
        host = HOST.search(fields)
        confirmed = CONFIRMED.search(fields)
        status = STATUS[match["flag"]]
        reply = match["failed"] or (confirmed[1] if confirmed else "")
        if not reply and status in ("bounced", "deferred"):
            reply = fields.partition(": ")[2] or fields.strip()
        if status == "bounced" and "retry timeout exceeded" in text:
            status = "expired"
        name, orig = match["to"], match["orig"] or ""
        is_here = "@" not in name or name.startswith(("/", "|", ":"))  # a file, a pipe or a user of this host
        self._trace.delivered(
            queue_id,
            (orig or name) if is_here else name,
            Delivery(
                time,
                status,
                host[1] if host else (name if is_here else match["transport"] or ""),
                dsn_of(reply),
                reply,
                None,
                "" if is_here or orig == name else orig,
                host is None,
            ),
        )

    def _refused(self, time: float, queue_id: str, text: str) -> None:
        is_once = text.count(" F=<") <= 1 and len(REFUSED_ONCE.findall(text)) == 1
        match = clear(REFUSED.fullmatch(text), once=is_once)
        host = HOST.search(" " + match["head"])
        message = Message(queue_id, time, time, client=host[1] if host else "")
        message.sender = None if match["from"] is None else null_or(match["from"])
        reply = match["reply"] or ""
        self._trace.rejected(message, match["to"] or "", reply, dsn_of(reply))


LOG = MailLog("exim", lambda trace, instance: Lines(trace).take, beside=_beside)
