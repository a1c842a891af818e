"""Messages as OpenSMTPD stores them: headers and bodies in batches, and message.show."""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from fleet.mta.errors import MessageNotFound, Unsupported
from fleet.mta.host.commands import READ_SECONDS
from fleet.mta.opensmtpd.commands import CONTENT, places
from fleet.mta.opensmtpd.parse import error_of
from fleet.mta.operations import MessageShow
from fleet.mta.queue.content import BODY, HEADERS, Stored, TakeStored, in_batches, message_parts, parse_stored
from fleet.mta.records import InstanceFacts, QueueEntry
from fleet.mta.steps import Command, Steps, run

BATCH = 2_000
BUDGET = 8 << 20


def contents(instance: InstanceFacts, entries: Sequence[QueueEntry], take: TakeStored, *, body: bool) -> Steps[None]:
    """Headers (64 KiB) and, when asked, bodies (1 MiB) of many messages, many per command. `take` gets no absent ones.

    Raises Unsupported for an encrypted queue, UnparsedOutput, SudoDenied and others.
    """
    names = [entry.queue_id for entry in entries]
    yield from in_batches(names, BATCH, take, lambda batch: read_stored(instance, batch, HEADERS, BODY if body else 0))


def read_stored(
    instance: InstanceFacts, queue_ids: Sequence[str], headers: int, body: int
) -> Steps[tuple[dict[str, Stored], frozenset[str]]]:
    """One batch, up to so many bytes of each part. Returns the messages, and the IDs answered for (absent ones too)."""
    if instance.options.get("is_encrypted"):
        raise Unsupported("the queue is encrypted: nobody reads a message without its key")
    lines = [f"{BUDGET} {headers} {body}", *queue_ids]
    command = Command(
        places(instance),
        script=CONTENT,
        stdin="".join(f"{line}\n" for line in lines).encode(),
        become=True,
        timeout=READ_SECONDS,
        max_output=BUDGET + headers + body + 64 * len(queue_ids) + 4096,
    )
    done = yield from run(command)
    if done.exit_status:
        raise error_of(done, CONTENT)
    found, answered = parse_stored(done, has_body=body > 0)
    return {name: _without_separator(each) for name, each in found.items()}, answered


def _without_separator(stored: Stored) -> Stored:
    """The body begins with the empty line that ends the header."""
    if stored.body is None:
        return stored
    return replace(stored, body=stored.body.removeprefix(b"\r").removeprefix(b"\n"))


def message_show(instance: InstanceFacts, operation: MessageShow, entry: QueueEntry) -> Steps[dict[str, Any]]:
    """The data of `message.show`. Raises MessageNotFound when it left meanwhile."""
    limit = operation.max_bytes
    wants_body = "body" in operation.parts
    found, _ = yield from read_stored(
        instance, [entry.queue_id], limit + 1 if "headers" in operation.parts else 1, limit + 3 if wants_body else 0
    )
    if entry.queue_id not in found:
        raise MessageNotFound(f"{entry.queue_id} left the queue while it was read")
    return message_parts(operation, entry, found[entry.queue_id])
