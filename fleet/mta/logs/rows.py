"""Rows of messages, joined from log lines while they stream in: one for each message and recipient."""

import heapq
from collections import OrderedDict
from dataclasses import dataclass, field, replace

from fleet.mta.logs.source import Window
from fleet.mta.logs.wanted import Wanted
from fleet.mta.records import WORST_FIRST
from fleet.mta.results.reading import STATUSES, TraceRow

STILL_QUEUED = frozenset({"queued", "deferred", "held"})
"""What is not the last that can be told of a recipient."""

WORST = {status: at for at, status in enumerate(WORST_FIRST)}

LONGEST_TEXT = 1000
"""Characters that are kept of a reply, and of a line."""
ROOM = 8 << 20
"""Characters of all rows together: senders choose how long their Message-IDs and addresses are."""
MOST_OPEN = 20_000
MOST_LEFT = 1_000
"""Messages that have left, kept whole: of which earlier one each was, that one's last line may be the first to tell."""
MOST_TOLD = 100
"""Recipients of such a message."""
"""Messages joined at the same time. Of more, the one that was seen first is reported as it is."""
MOST_RECIPIENTS = 100_000
"""Theirs; likewise, until half of these are left. A message may have any number, and a dialogue refuse as many."""

Recipient = tuple[str, str]
"""An address as finally reached, and as first given ("" where that is the same): two aliases may have one target."""


@dataclass(slots=True)
class Delivery:
    """The last that was logged of one recipient. `relay`: host or mailer as the MTA writes it. `delay`: seconds since
    the message came. `orig_to`: the address before an alias, "" where it is the same. `is_local`: it stays here.
    `attempt`: what lines of one attempt have in common, "" where the MTA logs nothing like that.
    """

    time: float
    status: str
    relay: str = ""
    dsn: str = ""
    reply: str = ""
    delay: float | None = None
    orig_to: str = ""
    is_local: bool = False
    attempt: str = ""

    def after(self, before: "Delivery | None") -> "Delivery":
        """The last word, or the worst of one attempt: an alias may lead to a file and a program, with a line each."""
        is_same = before is not None and bool(self.attempt) and before.attempt == self.attempt
        return min(before, self, key=lambda each: WORST.get(each.status, len(WORST))) if before and is_same else self


@dataclass(slots=True)
class Message:
    """What is known of one message. `sender` None: not logged; the null sender is "<>". `client` "": from this host.

    `earlier`: the queue IDs that it had before, in other queues of this host. `is_partly_named`: as a whole something
    was done with it, and the log may name not all of its recipients. `is_named`: recipients were named before any
    attempt. `may_be_wanted`: the line that was not understood may be about the recipient that is looked for.
    """

    queue_id: str
    time: float
    arrived: float | None = None
    message_id: str = ""
    size: int | None = None
    client: str = ""
    sender: str | None = None
    instance: str = ""
    is_ours: bool = True
    held: str = ""
    recipients: dict[Recipient, Delivery] = field(default_factory=dict)
    unclear: Delivery | None = None
    is_handed_over: bool = False
    is_partly_named: bool = False
    earlier: tuple[str, ...] = ()
    is_named: bool = False
    may_be_wanted: bool = False

    def goes_on_as(self, then: "Message") -> None:
        """The other is the same mail: what only this one tells is known of it."""
        then.client = then.client or self.client
        then.message_id = then.message_id or self.message_id
        then.earlier = (*self.earlier, self.queue_id)


class Trace:
    """Collects rows of the window that fit. The newest `limit` are kept, and no more than ROOM; totals count them all.
    `unnamed`: mails that may have been for the recipient who is looked for, too.

    A parser says what a line tells by `message`, `delivered`, `handed_over`, `rejected`, `expired` and `close`. Of a
    line that it does not understand, or that could be read in two ways because texts of others stand in it, it takes
    nothing: `not_understood`.
    """

    def __init__(self, wanted: Wanted, window: Window) -> None:
        self._wanted = wanted
        self._window = window
        # The first of a dict is found by going through all places of those that were there before it.
        self._open: OrderedDict[str, Message] = OrderedDict()
        self._left: OrderedDict[str, Message | None] = OrderedDict()
        self._kept: list[tuple[float, int, TraceRow]] = []
        self._size = 0
        self._recipients = 0
        self.totals = dict.fromkeys(STATUSES, 0)
        self.matched = 0
        self.unclear = 0
        self.unnamed = 0

    def message(self, queue_id: str, time: float, *, begins: bool = False) -> Message:
        """The message that has this queue ID now. `begins`: the line is the first of a new one, whatever was before."""
        if self._recipients > MOST_RECIPIENTS:
            self._make_room()
        known = self._open.get(queue_id)
        if begins and known is not None and (known.arrived is not None or known.recipients):
            self._report(self._open.pop(queue_id))
            known = None
        if known is None:
            if len(self._open) >= MOST_OPEN:
                self._report(self._open.popitem(last=False)[1])
            known = self._open[queue_id] = Message(queue_id, time)
        if begins:
            known.arrived = time
        return known

    def _make_room(self) -> None:
        self._recipients = sum(len(each.recipients) for each in self._open.values())
        while self._recipients > MOST_RECIPIENTS // 2:
            _, first = self._open.popitem(last=False)
            self._recipients -= len(first.recipients)
            self._report(first)

    def known(self, queue_id: str) -> Message | None:
        """The message that has this queue ID now, if a line was about it."""
        return self._open.get(queue_id)

    def is_waiting(self, queue_id: str) -> bool:
        """Whether the last that was told of a recipient of the message is not the last that can be."""
        message = self._open.get(queue_id)
        return message is not None and any(each.status in STILL_QUEUED for each in message.recipients.values())

    def forget(self, queue_id: str) -> None:
        """The lines were of no message of their own."""
        self._open.pop(queue_id, None)

    def delivered(self, queue_id: str, recipient: str, delivery: Delivery) -> None:
        """The last word so far about a recipient."""
        message = self.message(queue_id, delivery.time)
        if delivery.orig_to == recipient:
            delivery.orig_to = ""
        recipients = message.recipients
        if delivery.orig_to:
            for address in (recipient, delivery.orig_to):
                known = recipients.get((address, ""))
                if known is not None and known.status == "queued":
                    del recipients[address, ""]  # what was logged before the alias was
        key = recipient, delivery.orig_to
        delivery.reply = delivery.reply[:LONGEST_TEXT]
        self._recipients += key not in recipients
        recipients[key] = delivery.after(recipients[key]) if key in recipients else delivery
        message.time = delivery.time

    def named(self, queue_id: str, recipient: str, delivery: Delivery) -> None:
        """A recipient of the message, of whom something else may be known already."""
        message = self.message(queue_id, delivery.time)
        self._recipients += 1
        message.is_named = True
        message.recipients.setdefault((recipient, delivery.orig_to), delivery)

    def forget_named(self, queue_id: str) -> None:
        """Who was named before any attempt: from the first on, each is told by his own."""
        message = self._open.get(queue_id)
        if message is not None and message.is_named:
            message.is_named = False
            for key in [key for key, each in message.recipients.items() if each.status == "queued"]:
                del message.recipients[key]

    def handed_over(self, queue_id: str, recipient: str, delivery: Delivery, following: str = "") -> None:
        """Mail that went on to another queue or program of this host, as the message `following`: one mail, not two.

        It has a row of its own only where nothing of the following message was read.
        """
        delivery.status, delivery.is_local = "handed_over", True
        self.delivered(queue_id, recipient, delivery)
        message = self._open[queue_id]
        then = self._open.get(following)
        if then is None and not self._is_told(following, message):
            return
        del message.recipients[recipient, delivery.orig_to]
        message.is_handed_over = True
        if then is not None:
            message.goes_on_as(then)

    def _is_told(self, following: str, message: Message) -> bool:
        """Whether the row of the following message, which has left, is told, also to who asks by this queue ID."""
        if self._wanted.operation.queue_id != message.queue_id:
            return following in self._left
        then = self._left.get(following)
        if then is not None and message.queue_id not in then.earlier:
            message.goes_on_as(then)
            self._report(then)
        return then is not None

    def requeued(self, queue_id: str, following: str) -> None:
        """What was not delivered of the message goes on under another queue ID."""
        message = self._open.pop(queue_id, None)
        if message is None:
            return
        message.is_handed_over = True
        message.goes_on_as(self._open[following])
        rest = [key for key, each in message.recipients.items() if each.status in STILL_QUEUED]
        for key in rest:
            del message.recipients[key]
        self._report(message)

    def ended(self, queue_id: str, recipient: str, status: str, time: float) -> None:
        """What the MTA did with a recipient without an attempt; its last reply stays."""
        message = self.message(queue_id, time)
        known = [each for (address, _), each in message.recipients.items() if address == recipient]
        for delivery in known:
            delivery.status, delivery.time = status, time
        if not known:
            self.delivered(queue_id, recipient, Delivery(time, status))

    def not_understood(self, queue_id: str, time: float, line: str) -> None:
        """A line that tells what became of the message, or "" of mail without a queue ID, and could not be read."""
        self.unclear += 1
        if queue_id:
            message = self.message(queue_id, time)
            message.unclear = Delivery(time, "unclear", reply=line[:LONGEST_TEXT])
            message.may_be_wanted = self._wanted.may_be_in(line)

    def close(self, queue_id: str, status: str = "", time: float | None = None) -> None:
        """The message has left the queue. `status`: what became of recipients whose mail was not delivered; "": by
        itself, so that what was told of each recipient before is the end, or the end was not read."""
        message = self._open.pop(queue_id, None)
        if message is None:
            return
        self._keep_left(message)
        ends = status or "unclear"
        for delivery in message.recipients.values():
            if delivery.status in STILL_QUEUED:
                delivery.status, delivery.time = ends, time or delivery.time
        message.held, message.time = ends, time or message.time
        self._report(message)

    def _keep_left(self, message: Message) -> None:
        is_kept = self._wanted.operation.queue_id and len(message.recipients) <= MOST_TOLD
        self._left[message.queue_id] = message if is_kept else None
        if len(self._left) > (MOST_LEFT if self._wanted.operation.queue_id else MOST_OPEN):
            self._left.popitem(last=False)

    def expired(self, queue_id: str, time: float) -> None:
        """The MTA gave up: recipients that were not reached are returned to the sender."""
        for delivery in self.message(queue_id, time).recipients.values():
            if delivery.status in ("deferred", "queued"):
                delivery.status, delivery.time = "expired", time

    def rejected(self, message: Message, recipient: str, reply: str, dsn: str, status: str = "rejected") -> None:
        """Mail that was refused before it became a message of the queue."""
        message.recipients[recipient, ""] = Delivery(message.time, status, dsn=dsn, reply=reply, is_local=True)
        self._report(message)

    def _report(self, message: Message) -> None:
        queue_ids = message.queue_id, *message.earlier
        if not message.is_ours or not self._wanted.has_message(queue_ids, message.message_id, message.sender):
            return
        self._settle(message)
        self._count_unnamed(message)
        for (address, orig_to), delivery in message.recipients.items():
            is_about = self._wanted.has_recipient(address, orig_to) or self._may_be_about(message, delivery)
            if is_about and self._window.has(delivery.time):
                self._keep(row_of(message, address, delivery))

    def _may_be_about(self, message: Message, delivery: Delivery) -> bool:
        """Whether what was not understood may be about the recipient who is looked for."""
        return delivery.status == "unclear" and (message.may_be_wanted or self._wanted.may_be_in(delivery.reply))

    def _count_unnamed(self, message: Message) -> None:
        """Of a mail that was held without a recipient being named, none is."""
        recipients = message.recipients
        is_partly_named = message.is_partly_named or (message.held == "held" and ("", "") in recipients)
        if is_partly_named and not any(self._wanted.has_recipient(*key) for key in recipients):
            self.unnamed += any(self._window.has(each.time) for each in recipients.values())

    def _settle(self, message: Message) -> None:
        """The state of the whole goes to each recipient."""
        unclear = message.unclear
        if unclear is not None:
            doubtful = [key for key, each in message.recipients.items() if each.status in (*STILL_QUEUED, "unclear")]
            for address, orig_to in doubtful or [("", "")]:
                message.recipients[address, orig_to] = replace(unclear, orig_to=orig_to)
        if not message.recipients and not message.is_handed_over:
            message.recipients["", ""] = Delivery(message.time, message.held or "queued", is_local=True)
        if message.held == "held":
            for delivery in message.recipients.values():
                if delivery.status in STILL_QUEUED:
                    delivery.status = "held"

    def _keep(self, row: TraceRow) -> None:
        self.matched += 1
        self.totals[row["status"]] += 1
        heapq.heappush(self._kept, (row["time"], self.matched, row))
        self._size += size_of(row)
        while len(self._kept) > self._wanted.operation.limit or self._size > ROOM:
            self._size -= size_of(heapq.heappop(self._kept)[2])

    def rows(self) -> list[TraceRow]:
        """All rows, oldest first, those of messages that are still queued included."""
        for message in self._open.values():
            self._report(message)
        self._open.clear()
        return [row for _, _, row in sorted(self._kept, key=lambda kept: kept[:2])]


def size_of(row: TraceRow) -> int:
    """Characters of a row's texts."""
    return sum(len(value) for value in row.values() if isinstance(value, str))


def row_of(message: Message, address: str, delivery: Delivery) -> TraceRow:
    """A row as the API shows it."""
    is_in = bool(message.client)
    return {
        "time": delivery.time,
        "arrival_time": message.arrived,
        "queue_id": message.queue_id,
        "message_id": message.message_id,
        "size": message.size,
        "direction": ("in" if is_in else "local") if delivery.is_local else "out",
        "client": message.client,
        "sender": message.sender,
        "recipient": address,
        "orig_to": delivery.orig_to,
        "relay": delivery.relay,
        "status": delivery.status,
        "dsn": delivery.dsn,
        "reply": delivery.reply[:LONGEST_TEXT],
        "delay": delivery.delay,
        "instance": message.instance,
    }
