"""A message as its MTA stores it: headers and body, and what message.show tells of it."""

import base64
import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from fleet.match import headers as rfc2047
from fleet.mta.bounds import size_of
from fleet.mta.errors import UnparsedOutput
from fleet.mta.operations import MessageShow
from fleet.mta.records import QueueEntry, Recipient
from fleet.mta.steps import Completed, Steps
from fleet.mta.text import escape_bytes

HEADERS = 64 << 10
"""Bytes of a message's header that are read to match on it."""
BODY = 1 << 20
"""Bytes of a message's body that are read to match on it."""

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


def parse_stored(done: Completed, *, has_body: bool) -> tuple[dict[str, Stored], frozenset[str]]:
    """The answer of a script that reads messages: "ID ENVELOPE HEADERS BODY" (lengths), then the bytes; last "end".

    "ID absent" for a message that is not queued. Returns the messages, and the IDs answered for.
    Raises UnparsedOutput when it is cut off or its lengths do not fit.
    """
    data = done.stdout
    found: dict[str, Stored] = {}
    answered: set[str] = set()
    at = 0
    while True:
        end = data.find(b"\n", at)
        words = data[at:end].split() if end >= 0 else []
        at = end + 1
        if words == [b"end"] and at == len(data):
            return found, frozenset(answered)
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
        found[name] = Stored(parts[first : first + second], body, parts[:first])


def in_batches(
    queue_ids: Sequence[str],
    size: int,
    take: TakeStored,
    read: Callable[[list[str]], Steps[tuple[dict[str, Stored], frozenset[str]]]],
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
) -> dict[str, Any]:
    """The data of `message.show`: parts as asked, `truncated` when one is longer than max_bytes.

    `stored` must have one byte more of each part than max_bytes, where there is that much. `delivered`: recipients that
    a listing leaves out because they are done.
    """
    limit = operation.max_bytes
    shown: dict[str, Any] = {"queue_id": entry.queue_id, "size": entry.size, "state": entry.state, "truncated": False}
    if "envelope" in operation.parts:
        shown["envelope"] = {
            "sender": entry.sender,
            "arrival_time": entry.arrival_time,
            "recipients": [
                {"address": each.address, "reason": each.reason, "state": each.state}
                for each in (*entry.recipients, *delivered)
            ],
        }
    if "headers" in operation.parts:
        shown["headers"] = [
            {"name": name, "value": rfc2047.decode(value), "raw": escape_bytes(value)}
            for name, value in parse_headers(stored.raw_headers[:limit])
        ]
        shown["truncated"] = len(stored.raw_headers) > limit
    if "body" in operation.parts and stored.body is not None:
        body = stored.body[:limit]
        shown["body"] = {"text": body.decode("utf-8", "replace"), "raw_base64": base64.b64encode(body).decode()}
        shown["truncated"] = shown["truncated"] or len(stored.body) > limit
    return shown
