"""log.search and message.trace from Exim's main log (spec.txt, "Log files"), as a file or through syslog."""

import re

from fleet.mta.bounds import OutOfBounds
from fleet.mta.exim.arrivals import BY_ACL, arrival_of, refusal_of
from fleet.mta.exim.fates import STATUS, STATUS_OF_ALL, WHOLE, fate_of, take_fate
from fleet.mta.exim.fields import UnclearError
from fleet.mta.logs.mail_log import MailLog
from fleet.mta.logs.rows import STILL_QUEUED, Delivery, Message, Trace
from fleet.mta.logs.source import sources_of
from fleet.mta.logs.tracing import dsn_of, null_or
from fleet.mta.records import InstanceFacts

PID = r"(?:\[\d+\] )?"
ID = r"([0-9A-Za-z]{6}-(?:[0-9A-Za-z]{6}-[0-9A-Za-z]{2}|[0-9A-Za-z]{11}-[0-9A-Za-z]{4})) "
HEAD = re.compile(PID + ID)
# The most frequent lines that tell no mail's fate.
NO_FATE = re.compile(PID + r"(?:SMTP connection from |no host name found |no IP address found )")
# Before the ID stand the pid, where it is logged, and in syslog also the time again and the part of a long line.
ANY_HEAD = re.compile(
    r"(?:(?:\S+ )?[^\s\[\]:]++(?:\[\d+\])?: (?:\[\d+[/\\]\d+\] )?"
    rf"(?:\d{{4}}-\d\d-\d\d \d\d:\d\d:\d\d(?:\.\d+)? (?:[+-]\d{{4}} )?)?)?{PID}(?:{ID})?"
)
MARKED = re.compile(r"address <(.*)> marked delivered by \S+")
ADDED = re.compile(r"recipient <(.*)> added by \S+")
RENAMED = re.compile(r"sender address changed to <(.*)> by \S+")
# How a line ends a message as a whole, by its first two words.
ENDS = {"removed by": "removed", "Message removed": "removed", "rescind the": "rejected"}
UNNAMED = (
    "=> blackhole ", "=> discarded (", "mua_wrapper is set but ", "frozen", "rejected DATA", "rejected after DATA",
    "rejected during MIME ACL", "rejected DKIM", "rejected by local_scan()", "rejected by non-SMTP ACL",
)  # fmt: skip
"""Such a line is about mail whose recipients may not have been named yet."""


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
        head = HEAD.match(rest)
        if head is None:
            if NO_FATE.match(rest):
                return
            head = ANY_HEAD.match(rest)
        queue_id, text = (head[1] or "", rest[head.end() :]) if head else ("", rest)
        flag = text[:2] if queue_id else ""
        try:
            if flag in STATUS:
                self._went(time, queue_id, text)
            elif flag in ("<=", "(="):
                self._came(time, queue_id, text)
            elif text == "Completed" or text.startswith("Completed QT="):
                self._completed(queue_id)
            elif not queue_id or not self._happened(time, queue_id, text):
                self._refused(time, queue_id, text)
        except (UnclearError, OutOfBounds):
            if flag in STATUS and WHOLE.match(text):
                message = self._trace.message(queue_id, time)
                message.is_partly_named = not message.recipients
                self._trace.close(queue_id, STATUS_OF_ALL[flag], time)
            else:
                self._trace.not_understood(queue_id if flag in STATUS else "", time, text)

    def _came(self, time: float, queue_id: str, text: str) -> None:
        arrival = arrival_of(text)
        # A delivery while the mail comes in (cutthrough_delivery) is logged before. IDs never come again.
        message = self._trace.message(queue_id, time)
        message.arrived = time if message.arrived is None else message.arrived
        message.sender, message.size = null_or(arrival.sender), arrival.size
        message.client, message.message_id = arrival.client, arrival.message_id
        if not message.recipients:
            for address in arrival.recipients:
                self._trace.named(queue_id, address, Delivery(time, "queued", is_local=True))

    def _went(self, time: float, queue_id: str, text: str) -> None:
        fate = fate_of(text, time)
        self._trace.forget_named(queue_id)
        recipient, fate.delivery.orig_to = take_fate(fate, self._trace.message(queue_id, time).recipients)
        self._trace.delivered(queue_id, recipient, fate.delivery)

    def _happened(self, time: float, queue_id: str, text: str) -> bool:
        """Whether the line tells something of the message as a whole; takes it."""
        trace = self._trace
        if text.startswith(BY_ACL):
            return False
        if end := ENDS.get(" ".join(text.split(" ", 2)[:2])):
            trace.close(queue_id, end, time)
        elif text.startswith(("Frozen", "frozen by ", "*** Frozen")):
            trace.message(queue_id, time).held = "held"
        elif text.startswith(("Unfrozen", "unfrozen by ")):
            trace.message(queue_id, time).held = ""
        elif text.startswith("moved from "):  # to a named queue, where no queue run looks, or back
            trace.message(queue_id, time).held = "" if " to input, " in text else "held"
        elif text.startswith("cancelled by "):
            trace.expired(queue_id, time)
            if not trace.message(queue_id, time).recipients:  # none is logged
                trace.ended(queue_id, "", "expired", time)
        elif match := MARKED.fullmatch(text):
            self._marked(queue_id, match[1], time)
        elif match := ADDED.fullmatch(text):
            trace.named(queue_id, match[1], Delivery(time, "queued", is_local=True))
        elif match := RENAMED.fullmatch(text):
            trace.message(queue_id, time).sender = null_or(match[1])
        else:
            return False
        return True

    def _completed(self, queue_id: str) -> None:
        """All is done, so that what waited to be routed became what was told of its targets since."""
        message = self._trace.known(queue_id)
        recipients = message.recipients if message else {}
        if len(recipients) > 1:
            done = {top for (_, top), each in recipients.items() if top and each.status != "deferred"}
            over = [key for key, each in recipients.items() if key[1] in done and not each.relay]
            for key in (key for key in over if recipients[key].status == "deferred"):
                del recipients[key]
        self._trace.close(queue_id)

    def _marked(self, queue_id: str, address: str, time: float) -> None:
        """An operator took out a recipient: the address as it was given, with all that it leads to."""
        self._trace.named(queue_id, address, Delivery(time, "queued", is_local=True))
        for key, delivery in self._trace.message(queue_id, time).recipients.items():
            if address in key and delivery.status in STILL_QUEUED:
                delivery.status, delivery.time = "removed", time

    def _refused(self, time: float, queue_id: str, text: str) -> None:
        refusal = refusal_of(text)
        if refusal is None:
            return
        message = Message(queue_id, time, time, client=refusal.client, is_partly_named=refusal.is_whole)
        message.sender = None if refusal.sender is None else null_or(refusal.sender)
        self._trace.rejected(message, refusal.recipient, refusal.reply, dsn_of(refusal.reply), refusal.status)


LOG = MailLog(
    "exim",
    lambda trace, instance: Lines(trace).take,
    beside=_beside,
    unnamed=UNNAMED,
    zone=lambda instance: str(instance.options.get("log_zone") or ""),
)
