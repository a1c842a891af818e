"""log.search and message.trace from Postfix's log. Several instances write to one file, each under its syslog_name.

The tag of one line proves nothing of the instance, since master.cf may give a service another name: relay deliveries
of every instance are `postfix/relay/smtp`. But each message passes that instance's cleanup and queue manager.
"""

import re
from collections import OrderedDict

from fleet.mta.bounds import OutOfBounds, size_of
from fleet.mta.logs.mail_log import MailLog
from fleet.mta.logs.rows import MOST_OPEN, Delivery, Message, Trace
from fleet.mta.logs.tracing import null_or
from fleet.mta.postfix.lines import (
    HERE,
    VERDICT,
    Line,
    Refusal,
    arrival_of,
    delivery_of,
    following_of,
    is_given_up,
    line_of,
    refusal_of,
)
from fleet.mta.records import InstanceFacts

FROM, TAKEN = "from=<", " (queue active)"
PICKUP = re.compile(r"uid=\d+ from=<(.*?)>(?: orig_id=([0-9A-Za-z]+))?(?: [a-z_]+=[^\s<>]*)*$", re.DOTALL)
MESSAGE_ID = "message-id="
BY_OPERATOR = {"placed on hold": "held", "released from hold": ""}
NOT_TAKEN = ("lost connection after ", "timeout after ", "too many errors after ")
"""smtpd, with the queue ID since 3.10."""
OF_INSTANCE = frozenset({"cleanup", "qmgr", "nqmgr"})
OF_QUEUE = re.compile(r"message-id=|from=<|removed\b|canceled$")
"""What they say, and no other program, but for postsuper's "removed"."""
UNNAMED = (
    ": hold: ", "-hold: ", ": discard: ", "-discard: ", "Ok, discarded", "reject: DATA ", "reject: END-OF-MESSAGE ",
    "reject: header ", "reject: body ", "reject: content ", "reject: mime-error ",
)  # fmt: skip
"""Such a line names the first recipient of several, or none."""
VIA_PIPE = "delivered via "
"""pipe(8): of a program that may be a filter. Mailing lists give many mails one Message-ID, which local(8) delivers."""
SAME_DIALOGUE = 60.0
"""Seconds from what was decided about a dialogue's mail to its queue ID."""
LONGEST_NAME = 200
"""Characters of a Message-ID by which a mail is known again."""


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
        self._before: OrderedDict[str, str] = OrderedDict()
        """Queue ID to the one that the mail had before a filter, as that says itself (XFORWARD)."""
        self._named: OrderedDict[str, str] = OrderedDict()
        """Message-ID to the last queue ID with it, while that is there."""

    def take(self, time: float, rest: str) -> None:
        line = line_of(rest)
        if line is None:
            return
        _, name, program, queue_id, text = line
        if not program and name != self._name:
            return
        if not queue_id or queue_id == "NOQUEUE":
            self._refused(time, line)
        elif text[:4] == "to=<":
            self._delivered(time, queue_id, text)
        elif program in OF_INSTANCE or (not program and OF_QUEUE.match(text)):
            self._described(time, line, queue_id)
        elif program == "postsuper" or (not program and text in BY_OPERATOR):
            self._by_operator(time, queue_id, text)
        else:
            self._came(time, line, queue_id)

    def _came(self, time: float, line: Line, queue_id: str) -> None:
        text = line.text
        if text.startswith("client=") and (arrival := arrival_of(text)):
            self._begins(time, queue_id).client, before = arrival
            if before:
                self._filtered(queue_id, before)
            if decided := self._trace.known(line.process):
                self._decided(time, line.process, queue_id, decided)
        elif picked := PICKUP.fullmatch(text):
            self._begins(time, queue_id).sender = null_or(picked[1])
            if picked[2]:
                self._trace.requeued(picked[2], queue_id)
        elif VERDICT.match(text):
            self._judged(time, line, queue_id)
        elif text.startswith(NOT_TAKEN):
            self._not_taken(queue_id)

    def _begins(self, time: float, queue_id: str) -> Message:
        """A message that may never be one: cleanup says that its content comes, the queue manager that it was taken."""
        message = self._trace.message(queue_id, time, begins=True)
        message.is_ours, message.held = False, "unclear"
        return message

    def _filtered(self, queue_id: str, before: str) -> None:
        first = self._trace.known(before)
        if first is not None:
            first.goes_on_as(self._trace.message(queue_id, first.time))
            put(self._before, queue_id, before)

    def _decided(self, time: float, process: str, queue_id: str, decided: Message) -> None:
        """What smtpd or a milter decided before the mail had its queue ID."""
        message = self._trace.message(queue_id, time)
        if decided.client != message.client or time - decided.time > SAME_DIALOGUE:
            return
        self._trace.forget(process)
        message.sender, message.held, message.is_ours = decided.sender, decided.held, True
        message.is_partly_named = decided.is_partly_named
        message.instance = message.instance or decided.instance
        message.recipients.update(decided.recipients)

    def _not_taken(self, queue_id: str) -> None:
        """The client gave up, or was refused, before it was told that the mail was taken."""
        message = self._trace.known(queue_id)
        if message is not None and message.recipients:
            self._trace.close(queue_id)
        else:
            self._trace.forget(queue_id)

    def _by_operator(self, time: float, queue_id: str, text: str) -> None:
        if text == "removed":
            self._trace.close(queue_id, "removed", time)
        elif text in BY_OPERATOR:
            self._trace.message(queue_id, time).held = BY_OPERATOR[text]

    def _described(self, time: float, line: Line, queue_id: str) -> None:
        """By cleanup or the queue manager."""
        text, trace = line.text, self._trace
        if text == "removed":
            self._forget_name(queue_id)
            # Without a program it may be postsuper's word too, of mail that is not done.
            trace.close(queue_id, "" if line.program or not trace.is_waiting(queue_id) else "removed", time)
            return
        if text in ("removed (canceled)", "canceled"):
            self._not_taken(queue_id)
            return
        message = trace.message(queue_id, time)
        message.instance, message.is_ours = line.name, line.name == self._name
        if text.startswith(MESSAGE_ID):
            message.message_id = text.removeprefix(MESSAGE_ID)
            message.arrived = message.arrived or time  # a notice of Postfix's own has no line before
            put(self._named, message.message_id[:LONGEST_NAME], queue_id)
        elif text.startswith(FROM) and text.endswith(TAKEN):
            sender, _, fields = text[len(FROM) : -len(TAKEN)].rpartition(">")
            message.sender, message.held = null_or(sender), ""
            message.is_partly_named = False  # from now on there is a line for each
            message.size = size_of(fields.partition(", size=")[2].partition(",")[0])
        elif is_given_up(text):
            trace.expired(queue_id, time)
        elif text == "removed (discarded)":
            message.held = "discarded"
        elif VERDICT.match(text):
            self._judged(time, line, queue_id)

    def _delivered(self, time: float, queue_id: str, text: str) -> None:
        trace = self._trace
        try:
            told = delivery_of(text, time)
        except OutOfBounds:
            told = None
        if told is None:
            trace.not_understood(queue_id, time, text)
            return
        recipient, delivery = told
        if not delivery.status:
            trace.forget(queue_id)
        elif delivery.status in ("sent", "handed_over") and (following := self._following(queue_id, delivery)):
            trace.handed_over(queue_id, recipient, delivery, following)
        else:
            trace.delivered(queue_id, recipient, delivery)

    def _following(self, queue_id: str, delivery: Delivery) -> str:
        """The queue ID under which the mail goes on here, if it does."""
        if delivery.status == "handed_over":
            return following_of(delivery.reply)
        following = following_of(delivery.reply) if self._before else ""
        if following and self._before.get(following) == queue_id:
            return following
        if delivery.reply.startswith(VIA_PIPE) and self._came_back(queue_id):
            delivery.status = "handed_over"
        return ""

    def _forget_name(self, queue_id: str) -> None:
        message = self._trace.known(queue_id)
        name = message.message_id[:LONGEST_NAME] if message else ""
        if self._named.get(name) == queue_id:
            del self._named[name]

    def _came_back(self, queue_id: str) -> bool:
        """Whether a program that took the message gave it back meanwhile, by its Message-ID (FILTER_README)."""
        message = self._trace.known(queue_id)
        other = self._named.get(message.message_id[:LONGEST_NAME]) if message and message.message_id else None
        again = self._trace.known(other) if other and other != queue_id else None
        if message is None or again is None:
            return False
        return not again.client and (again.arrived or 0) >= (message.arrived or again.time)

    def _refused(self, time: float, line: Line) -> None:
        """Mail, or a whole dialogue, without a queue ID."""
        refusal = self._refusal(time, "", line.text)
        if refusal is None or line.name in self._others:
            return
        is_sure = line.name == self._name or not self._others
        message = Message("", time, time, client=refusal.client, sender=_sender(refusal))
        message.instance, message.is_partly_named = self._name if is_sure else "", refusal.is_whole
        if refusal.status == "rejected":
            decided = self._trace.known(line.process)
            if decided is not None and (refusal.recipient, "") in decided.recipients:
                self._trace.forget(line.process)
            self._trace.rejected(message, refusal.recipient, refusal.reply, refusal.dsn)
            return
        # Known by its process, until that tells the queue ID.
        decided = self._trace.message(line.process, time, begins=True)
        decided.queue_id, decided.client = "", "" if HERE.search(refusal.client) else refusal.client
        decided.sender, decided.instance = message.sender, message.instance
        self._apply(decided, refusal, time)

    def _judged(self, time: float, line: Line, queue_id: str) -> None:
        """By smtpd, a milter or a check of the content, when the mail had its queue ID already."""
        refusal = self._refusal(time, queue_id, line.text)
        if refusal is None:
            return
        message = self._trace.message(queue_id, time)
        if line.program not in OF_INSTANCE:
            message.is_ours = line.name not in self._others
        if refusal.sender is not None:
            message.sender = _sender(refusal)
        if not HERE.search(refusal.client):
            message.client = message.client or refusal.client
        self._apply(message, refusal, time)

    def _apply(self, message: Message, refusal: Refusal, time: float) -> None:
        delivery = Delivery(time, refusal.status, dsn=refusal.dsn, reply=refusal.reply, is_local=True)
        message.is_partly_named = message.is_partly_named or refusal.is_whole
        if refusal.status == "held":
            message.held, delivery.status = "held", "queued"  # its recipients are not final yet
            message.recipients.setdefault((refusal.recipient, ""), delivery)
        else:
            message.recipients[refusal.recipient, ""] = delivery

    def _refusal(self, time: float, queue_id: str, text: str) -> Refusal | None:
        if not VERDICT.match(text):
            return None
        refusal = refusal_of(text)
        if refusal is None:
            self._trace.not_understood(queue_id, time, text)
        return refusal if refusal and refusal.status else None


def _sender(refusal: Refusal) -> str | None:
    return None if refusal.sender is None else null_or(refusal.sender)


def put(kept: OrderedDict[str, str], name: str, value: str) -> None:
    """Of too many the first is forgotten."""
    if len(kept) >= MOST_OPEN:
        kept.popitem(last=False)
    kept[name] = value


LOG = MailLog("postfix", lambda trace, instance: Lines(trace, instance).take, unnamed=UNNAMED)
