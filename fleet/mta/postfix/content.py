"""Messages as Postfix stores them: headers and bodies in batches, and message.show."""

import base64
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from fleet.match import headers as rfc2047
from fleet.mta.errors import MessageNotFound, UnparsedOutput
from fleet.mta.operations import MessageShow
from fleet.mta.postfix.commands import CONTENT, READ_SECONDS
from fleet.mta.postfix.parse import error_of, ids_input
from fleet.mta.types import Command, Completed, InstanceFacts, QueueEntry, Recipient, Steps, run

BATCH = 500
HEADERS_BATCH = 5_000  # headers alone: one look through the queue and one postcat per 200 messages
BUDGET = 8 << 20
ENVELOPE = 1 << 20
HEADERS = 64 << 10
BODY = 1 << 20


@dataclass(frozen=True, slots=True)
class Stored:
    """A message's parts as postcat prints them. `headers`: names and raw unfolded values. `body` None: not asked."""

    envelope: bytes
    raw_headers: bytes
    body: bytes | None

    @property
    def headers(self) -> Sequence[tuple[str, str]]:
        return tuple(parse_headers(self.raw_headers))


def contents(instance: InstanceFacts, queue_ids: Sequence[str], *, body: bool) -> Steps[dict[str, Stored]]:
    """Headers (64 KiB) and, when asked, bodies (1 MiB) of many messages, many per command. Absent ones are missing.

    Raises UnparsedOutput, SudoDenied and others.
    """
    found: dict[str, Stored] = {}
    waiting = list(queue_ids)
    size = BATCH if body else HEADERS_BATCH
    while waiting:
        batch = waiting[:size]
        part, answered = yield from read_stored(instance, batch, 0, HEADERS, BODY if body else 0)
        if not answered:
            raise UnparsedOutput("no message of the batch was answered")
        found.update(part)
        waiting = [name for name in batch if name not in answered] + waiting[size:]
    return found


def read_stored(
    instance: InstanceFacts, queue_ids: Sequence[str], envelope: int, headers: int, body: int
) -> Steps[tuple[dict[str, Stored], frozenset[str]]]:
    """One batch, up to so many bytes of each part. Returns the messages, and the IDs answered for (absent ones too)."""
    limits = f"{BUDGET} {envelope} {headers} {body}\n".encode()
    command = Command(
        (instance.options["command_directory"], instance.config_dir),
        script=CONTENT,
        stdin=limits + ids_input(queue_ids),
        become=True,
        timeout=READ_SECONDS,
        max_output=BUDGET + envelope + headers + body + 128 * len(queue_ids) + 4096,
    )
    done = yield from run(command)
    if done.exit_status:
        raise error_of(done, "postcat")
    return parse_stored(done, has_body=body > 0)


def parse_stored(done: Completed, *, has_body: bool) -> tuple[dict[str, Stored], frozenset[str]]:
    """The answer of postfix_content.sh. Raises UnparsedOutput when it is cut off or its lengths do not fit."""
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
            answered.add(words[0].decode())
            continue
        if len(words) != 4 or not all(word.isdigit() for word in words[1:]):
            raise UnparsedOutput("the messages that were read do not have the lengths that were announced")
        first, second, third = (int(word) for word in words[1:])
        parts = data[at : at + first + second + third]
        at += first + second + third
        name = words[0].decode()
        answered.add(name)
        found[name] = Stored(
            parts[:first], parts[first : first + second], parts[first + second :] if has_body else None
        )


def parse_headers(raw: bytes) -> Iterator[tuple[str, str]]:
    """Header fields (RFC 5322, 2.2): name and unfolded value, bytes kept by surrogateescape."""
    text = raw.decode("utf-8", "surrogateescape")
    for field in re.split(r"\r?\n(?![ \t])", text):
        name, colon, value = field.partition(":")
        if colon and name and not name.isspace():
            yield name.rstrip(" \t"), re.sub(r"\r?\n(?=[ \t])", "", value).strip(" \t\r")


def subject_of(stored: Stored) -> str:
    """The decoded subject, or an empty text."""
    return next((rfc2047.decode(value) for name, value in stored.headers if name.lower() == "subject"), "")


def add_subjects(instance: InstanceFacts, entries: Sequence[QueueEntry]) -> Steps[None]:
    """Fills in `subject` of the entries; a message that is gone meanwhile has an empty one."""
    found = yield from contents(instance, [entry.queue_id for entry in entries], body=False)
    for entry in entries:
        stored = found.get(entry.queue_id)
        entry.subject = subject_of(stored) if stored else ""


def message_parts(instance: InstanceFacts, operation: MessageShow, entry: QueueEntry) -> Steps[dict[str, Any]]:
    """The data of `message.show`: parts as asked, `truncated` when one is longer than max_bytes.

    Raises MessageNotFound when it left meanwhile.
    """
    limit = operation.max_bytes
    wants = operation.parts
    found, _ = yield from read_stored(
        instance,
        [entry.queue_id],
        ENVELOPE,
        limit + 1 if "headers" in wants else 1,
        limit + 2 if "body" in wants else 0,
    )
    if entry.queue_id not in found:
        raise MessageNotFound(f"{entry.queue_id} left the queue while it was read")
    stored = found[entry.queue_id]
    shown: dict[str, Any] = {"queue_id": entry.queue_id, "size": entry.size, "state": entry.state, "truncated": False}
    if "envelope" in wants:
        shown["envelope"] = envelope_of(entry, stored)
    if "headers" in wants:
        shown["headers"] = [
            {"name": name, "value": rfc2047.decode(value), "raw": printable(value)}
            for name, value in parse_headers(stored.raw_headers[:limit])
        ]
        shown["truncated"] = len(stored.raw_headers) > limit
    if "body" in wants and stored.body is not None:
        # postcat -b begins with the empty line that ends the header.
        body = stored.body.removeprefix(b"\n")[:limit]
        shown["body"] = {"text": body.decode("utf-8", "replace"), "raw_base64": base64.b64encode(body).decode()}
        shown["truncated"] = shown["truncated"] or len(stored.body) > limit + stored.body.startswith(b"\n")
    return shown


def envelope_of(entry: QueueEntry, stored: Stored) -> dict[str, Any]:
    """Sender, recipients and arrival. postqueue omits the recipients that are done; postcat has them (trap 19)."""
    delivered = [
        Recipient(line.partition(": ")[2], state="delivered")
        for line in stored.envelope.decode("utf-8", "backslashreplace").splitlines()
        if line.startswith("done_recipient: ")
    ]
    return {
        "sender": entry.sender,
        "arrival_time": entry.arrival_time,
        "recipients": [
            {"address": each.address, "reason": each.reason, "state": each.state}
            for each in (*entry.recipients, *delivered)
        ],
    }


def printable(text: str) -> str:
    """A text without surrogates: bytes that are no UTF-8 as \\xHH."""
    return text.encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")
