"""A message as its MTA stores it: headers and body, and what message.show tells of it."""

import base64
import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cached_property, partial

from fleet.match import headers as rfc2047
from fleet.mta.bounds import size_of
from fleet.mta.errors import FleetError, MessageNotFound, UnparsedOutput
from fleet.mta.host.commands import error_of, reading
from fleet.mta.operations import MessageShow
from fleet.mta.records import InstanceFacts, QueueEntry, Recipient
from fleet.mta.results.reading import MessageShowResult
from fleet.mta.steps import Completed, Steps, run
from fleet.mta.text import escape_bytes

HEADERS = 64 << 10
"""Bytes of a message's header that are read to match on it."""
BODY = 1 << 20
"""Bytes of a message's body that are read to match on it."""
BUDGET = 8 << 20
"""Bytes after which a command reads no further message: what is left goes into the next one."""

FOLD = re.compile(r"\r?\n(?=[ \t])")


@dataclass(frozen=True)
class Stored:
    """A message's parts. `raw_headers`: without the empty line behind them. `body` None: not asked for.

    `envelope`: what else the MTA keeps, in its own words; only adapters look into it.
    """

    raw_headers: bytes
    body: bytes | None
    envelope: bytes = b""

    @cached_property
    def headers(self) -> Sequence[tuple[str, str]]:
        return tuple(parse_headers(self.raw_headers))


TakeStored = Callable[[str, Stored], None]
"""Gets the queue ID and the message, one after the other."""


StoredBatch = tuple[dict[str, Stored], frozenset[str]]
"""The messages that were read, and the queue IDs answered for, absent ones too."""


def parse_stored(done: Completed, *, has_body: bool) -> StoredBatch:
    """The answer of a script that reads messages: "ID ENVELOPE HEADERS BODY" (lengths), then the bytes; last "end".

    "ID absent" for a message that is not queued. Returns the messages, and the IDs answered for.
    Raises UnparsedOutput when it is cut off or its lengths do not fit.
    """
    data = done.stdout
    messages: dict[str, Stored] = {}
    answered: set[str] = set()
    at = 0
    while True:
        end = data.find(b"\n", at)
        words = data[at:end].split() if end >= 0 else []
        at = end + 1
        if words == [b"end"] and at == len(data):
            return messages, frozenset(answered)
        if len(words) == 2 and words[1] == b"absent":
            answered.add(words[0].decode("ascii", "replace"))
            continue
        if len(words) != 4 or not all(word.isdigit() for word in words[1:]):
            raise UnparsedOutput("the messages that were read do not have the lengths that were announced")
        first, second, third = (size_of(word) for word in words[1:])
        parts = data[at : at + first + second + third]
        at += first + second + third
        name = words[0].decode("ascii", "replace")
        answered.add(name)
        body = parts[first + second :] if has_body else None
        messages[name] = Stored(parts[first : first + second], body, parts[:first])


def in_batches(
    queue_ids: Sequence[str],
    size: int,
    take: TakeStored,
    read: Callable[[list[str]], Steps[StoredBatch]],
) -> Steps[None]:
    """All the messages, `size` per remote command; what a command's budget left unread goes into the next one.

    Hands each command's messages to `take` before the next one runs, and keeps none. Raises UnparsedOutput when a
    command answers for none, and what `read` raises.
    """
    waiting = list(queue_ids)
    while waiting:
        batch = waiting[:size]
        part, answered = yield from read(batch)
        if not answered:
            raise UnparsedOutput("no message of the batch was answered")
        for name, stored in part.items():
            take(name, stored)
        del part
        waiting = [name for name in batch if name not in answered] + waiting[size:]


def _parse(done: Completed, headers: int, body: int) -> StoredBatch:
    return parse_stored(done, has_body=body > 0)


@dataclass(frozen=True, slots=True)
class Content:
    """How an MTA's messages are read, many per command, by a script that gets limits and queue IDs on stdin.

    `words`: the script's arguments. `batch`: messages of one command, `headers_batch` where no body is read. `parse`:
    its answer, with the limits for headers and body. `check` raises where nothing can be read. `separator`: what may
    stand before a body that is not its own. `envelope`: bytes of the MTA's own envelope that message.show asks for, and
    0 where the script knows of none; `delivered`: the recipients that only it tells. `before_body`: bytes of a header
    that must be read so that its body is found. `room`: bytes that a command may print beyond what is asked for.
    """

    script: str
    words: Callable[[InstanceFacts], tuple[str, ...]]
    batch: int
    headers_batch: int
    error_of: Callable[[Completed, str], FleetError] = error_of
    parse: Callable[[Completed, int, int], StoredBatch] = _parse
    check: Callable[[InstanceFacts], None] = lambda instance: None
    separator: tuple[bytes, ...] = ()
    envelope: int = 0
    delivered: Callable[[Stored], Iterable[Recipient]] = lambda stored: ()
    before_body: int = 0
    room: int = BUDGET

    def read_many(
        self, instance: InstanceFacts, entries: Sequence[QueueEntry], take: TakeStored, *, body: bool
    ) -> Steps[None]:
        """Headers (64 KiB) and, when asked, bodies (1 MiB) of many messages. `take` gets no absent ones.

        Raises Unsupported, UnparsedOutput, SudoDenied and others.
        """
        limits = (0, HEADERS, BODY if body else 0)
        size = self.batch if body else self.headers_batch
        yield from in_batches([entry.queue_id for entry in entries], size, take, partial(self._read, instance, limits))

    def read_one(self, instance: InstanceFacts, operation: MessageShow, entry: QueueEntry) -> Steps[MessageShowResult]:
        """The data of `message.show`. Raises MessageNotFound when it left meanwhile."""
        headers = operation.max_bytes + 1 if "headers" in operation.parts else 1
        body = 0
        if "body" in operation.parts:
            body = operation.max_bytes + 1 + len(b"".join(self.separator))
            headers += self.before_body
        messages, _ = yield from self._read(instance, (self.envelope, headers, body), [entry.queue_id])
        if entry.queue_id not in messages:
            raise MessageNotFound(f"{entry.queue_id} left the queue while it was read")
        stored = messages[entry.queue_id]
        return message_parts(operation, entry, stored, self.delivered(stored))

    def _read(
        self, instance: InstanceFacts, limits: tuple[int, int, int], queue_ids: Sequence[str]
    ) -> Steps[StoredBatch]:
        """One batch, up to so many bytes of envelope, headers and body."""
        self.check(instance)
        numbers = (BUDGET, *(limits if self.envelope else limits[1:]))
        lines = (" ".join(map(str, numbers)), *queue_ids)
        command = reading(
            self.script,
            self.words(instance),
            "".join(f"{line}\n" for line in lines).encode(),
            most=self.room + sum(limits) + 128 * len(queue_ids) + 4096,
        )
        done = yield from run(command)
        if done.exit_status:
            raise self.error_of(done, self.script)
        messages, answered = self.parse(done, limits[1], limits[2])
        return {name: self._without_separator(each) for name, each in messages.items()}, answered

    def _without_separator(self, stored: Stored) -> Stored:
        if stored.body is None or not self.separator:
            return stored
        body = stored.body
        for part in self.separator:
            body = body.removeprefix(part)
        return replace(stored, body=body)


def parse_headers(raw: bytes) -> Iterator[tuple[str, str]]:
    """Header fields (RFC 5322, 2.2): name and unfolded value, bytes kept by surrogateescape."""
    for field in FOLD.sub("", raw.decode("utf-8", "surrogateescape")).split("\n"):
        name, colon, value = field.partition(":")
        if colon and name and not name.isspace():
            yield name.rstrip(" \t"), value.strip(" \t\r")


def subject_of(stored: Stored) -> str:
    """The decoded subject, or an empty text."""
    return next((rfc2047.decode(value) for name, value in stored.headers if name.lower() == "subject"), "")


def message_parts(
    operation: MessageShow, entry: QueueEntry, stored: Stored, delivered: Iterable[Recipient] = ()
) -> MessageShowResult:
    """The data of `message.show`: parts as requested, `truncated` when one is longer than max_bytes.

    `stored` must have one byte more of each part than max_bytes, where there is that much. `delivered`: recipients that
    a listing leaves out because they are done.
    """
    limit = operation.max_bytes
    parts: MessageShowResult = {
        "queue_id": entry.queue_id,
        "size": entry.size,
        "state": entry.state,
        "truncated": False,
    }
    if "envelope" in operation.parts:
        parts["envelope"] = {
            "sender": entry.sender,
            "arrival_time": entry.arrival_time,
            "recipients": [each.as_json() for each in (*entry.recipients, *delivered)],
        }
    if "headers" in operation.parts:
        parts["headers"] = [
            {"name": name, "value": rfc2047.decode(value), "raw": escape_bytes(value)}
            for name, value in parse_headers(stored.raw_headers[:limit])
        ]
        parts["truncated"] = len(stored.raw_headers) > limit
    if "body" in operation.parts and stored.body is not None:
        body = stored.body[:limit]
        parts["body"] = {"text": body.decode("utf-8", "replace"), "raw_base64": base64.b64encode(body).decode()}
        parts["truncated"] = parts["truncated"] or len(stored.body) > limit
    return parts
