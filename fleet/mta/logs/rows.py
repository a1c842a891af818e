"""Rows of messages, joined from log lines while they stream in: one for each message and recipient."""

import heapq
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from fleet.match import wildcards
from fleet.mta.logs.source import Window
from fleet.mta.operations import MessageTrace

STATUSES = ("sent", "deferred", "bounced", "rejected", "expired", "held", "discarded", "removed", "queued")
"""`queued`: no attempt was logged. `removed`: taken out of the queue by an administrator."""

LONGEST_REPLY = 1000
ROOM = 8 << 20
"""Characters of all rows together: senders choose how long their Message-IDs and addresses are."""
MOST_OPEN = 20_000
"""Messages joined at the same time. Of more, the one that was seen first is reported as it is."""

PLAIN = frozenset("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789@._+=/-")


@dataclass(slots=True)
class Delivery:
    """The last that was logged of one recipient. `relay`: host or mailer as the MTA writes it. `delay`: seconds since
    the message came. `is_local`: it stays on this host."""

    time: float
    status: str
    relay: str = ""
    dsn: str = ""
    reply: str = ""
    delay: float | None = None
    orig_to: str = ""
    is_local: bool = False


@dataclass(slots=True)
class Message:
    """What is known of one message. `sender` None: not logged; the null sender is "<>". `client` "": from this host."""

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
    recipients: dict[str, Delivery] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Wanted:
    """The criteria of a trace; a row fits when it fits all that are given."""

    operation: MessageTrace
    is_sender: Callable[[str], bool]
    is_recipient: Callable[[str], bool]

    @classmethod
    def of(cls, operation: MessageTrace, as_logged: Callable[[str], str]) -> "Wanted":
        return cls(
            operation,
            wildcards.compile_pattern(as_logged(operation.sender), str.lower),
            wildcards.compile_pattern(as_logged(operation.recipient), str.lower),
        )

    def text(self) -> str:
        """What a line about such a message must contain, in any case, so that the host can look for it."""
        given = self.operation
        named = given.queue_id or longest_plain(given.message_id)
        return named or max(fixed_text(given.sender), fixed_text(given.recipient), key=len)

    def has_message(self, message: Message) -> bool:
        given = self.operation
        if given.queue_id and message.queue_id != given.queue_id:
            return False
        if given.message_id and message.message_id.strip("<>") != given.message_id.strip("<>"):
            return False
        return not given.sender or (message.sender is not None and self.is_sender(message.sender.lower()))

    def has_recipient(self, address: str, orig_to: str) -> bool:
        if not self.operation.recipient:
            return True
        return self.is_recipient(address.lower()) or bool(orig_to and self.is_recipient(orig_to.lower()))


def fixed_text(pattern: str) -> str:
    """The longest plain part of a pattern. The null sender is looked for as it is logged."""
    if pattern == "<>":
        return pattern
    return max(
        (longest_plain(token) for token in wildcards.tokens(pattern) if isinstance(token, str)), key=len, default=""
    )


def longest_plain(text: str) -> str:
    """The longest run of characters that no MTA writes otherwise in its log."""
    return max("".join(char if char in PLAIN else " " for char in text).split(), key=len, default="")


class Trace:
    """Collects rows of the window that fit. The newest `limit` are kept, and no more than ROOM; totals count them all.

    A parser says what a line tells by `message`, `delivered`, `rejected` and `close`; of `unclear` lines nothing is
    taken, because a text of others in them could be read as a field.
    """

    def __init__(self, wanted: Wanted, window: Window) -> None:
        self._wanted = wanted
        self._window = window
        self._open: dict[str, Message] = {}
        self._kept: list[tuple[float, int, dict[str, Any]]] = []
        self._size = 0
        self.totals = dict.fromkeys(STATUSES, 0)
        self.matched = 0
        self.unclear = 0

    def message(self, queue_id: str, time: float, *, begins: bool = False) -> Message:
        """The message that has this queue ID now. `begins`: the line is the first of a new one, whatever was before."""
        known = self._open.get(queue_id)
        if begins and known is not None and (known.arrived is not None or known.recipients):
            self.close(queue_id)
            known = None
        if known is None:
            if len(self._open) >= MOST_OPEN:
                self.close(next(iter(self._open)))
            known = self._open[queue_id] = Message(queue_id, time)
        if begins:
            known.arrived = time
        return known

    def forget(self, queue_id: str) -> None:
        """The lines were of no message of their own."""
        self._open.pop(queue_id, None)

    def delivered(self, queue_id: str, recipient: str, delivery: Delivery) -> None:
        message = self.message(queue_id, delivery.time)
        before = message.recipients.get(recipient)
        if before is not None and not delivery.orig_to:
            delivery.orig_to = before.orig_to
        message.recipients[recipient] = delivery
        message.time = delivery.time

    def close(self, queue_id: str, status: str = "", time: float | None = None) -> None:
        """The message has left the queue. `status`: what became of recipients whose mail was not delivered."""
        message = self._open.pop(queue_id, None)
        if message is None:
            return
        if status:
            for delivery in message.recipients.values():
                if delivery.status in ("deferred", "queued", "held"):
                    delivery.status, delivery.time = status, time or delivery.time
            message.held, message.time = status, time or message.time
        self._report(message)

    def expired(self, queue_id: str, time: float) -> None:
        """The MTA gave up: recipients that were not reached are returned to the sender."""
        for delivery in self.message(queue_id, time).recipients.values():
            if delivery.status in ("deferred", "queued"):
                delivery.status, delivery.time = "expired", time

    def rejected(self, message: Message, recipient: str, reply: str, dsn: str, status: str = "rejected") -> None:
        """Mail that was refused before it became a message of the queue."""
        message.recipients[recipient] = Delivery(message.time, status, dsn=dsn, reply=reply, is_local=True)
        self._report(message)

    def _report(self, message: Message) -> None:
        if not message.is_ours or not self._wanted.has_message(message):
            return
        if not message.recipients:
            message.recipients[""] = Delivery(message.time, message.held or "queued", is_local=True)
        for address, delivery in message.recipients.items():
            status = delivery.status
            if message.held == "held" and status in ("deferred", "queued"):
                status = "held"
            if self._window.has(delivery.time) and self._wanted.has_recipient(address, delivery.orig_to):
                self._keep(row_of(message, address, delivery, status))

    def _keep(self, row: dict[str, Any]) -> None:
        self.matched += 1
        self.totals[row["status"]] += 1
        heapq.heappush(self._kept, (row["time"], self.matched, row))
        self._size += size_of(row)
        while len(self._kept) > self._wanted.operation.limit or self._size > ROOM:
            self._size -= size_of(heapq.heappop(self._kept)[2])

    def rows(self) -> list[dict[str, Any]]:
        """All rows, oldest first, those of messages that are still queued included."""
        for queue_id in list(self._open):
            self.close(queue_id)
        return [row for _, _, row in sorted(self._kept, key=lambda kept: kept[:2])]


def size_of(row: dict[str, Any]) -> int:
    """Characters of a row's texts."""
    return sum(len(value) for value in row.values() if isinstance(value, str))


def row_of(message: Message, address: str, delivery: Delivery, status: str) -> dict[str, Any]:
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
        "status": status,
        "dsn": delivery.dsn,
        "reply": delivery.reply[:LONGEST_REPLY],
        "delay": delivery.delay,
        "instance": message.instance,
    }
