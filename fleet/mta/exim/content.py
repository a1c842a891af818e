"""Messages as Exim stores them: headers from -H, bodies from -D, in batches; and message.show."""

from collections.abc import Sequence
from typing import Any

from fleet.mta.errors import MessageNotFound
from fleet.mta.exim.commands import CONTENT, spool
from fleet.mta.exim.parse import error_of, ids_input
from fleet.mta.host.commands import READ_SECONDS
from fleet.mta.operations import MessageShow
from fleet.mta.queue.content import BODY, HEADERS, Stored, TakeStored, in_batches, message_parts, parse_stored
from fleet.mta.records import InstanceFacts, QueueEntry
from fleet.mta.steps import Command, Steps, run

BATCH = 500
HEADERS_BATCH = 10_000
BUDGET = 8 << 20


def contents(instance: InstanceFacts, entries: Sequence[QueueEntry], take: TakeStored, *, body: bool) -> Steps[None]:
    """Headers (64 KiB) and, when asked, bodies (1 MiB) of many messages, many per command. `take` gets no absent ones.

    Raises UnparsedOutput, SudoDenied and others.
    """
    yield from in_batches(
        [entry.queue_id for entry in entries],
        BATCH if body else HEADERS_BATCH,
        take,
        lambda batch: read_stored(instance, batch, HEADERS, BODY if body else 0),
    )


def read_stored(
    instance: InstanceFacts, queue_ids: Sequence[str], headers: int, body: int
) -> Steps[tuple[dict[str, Stored], frozenset[str]]]:
    """One batch, up to so many bytes of each part. Returns the messages, and the IDs answered for (absent ones too)."""
    command = Command(
        (spool(instance),),
        script=CONTENT,
        stdin=f"{BUDGET} {headers} {body}\n".encode() + ids_input(queue_ids),
        become=True,
        timeout=READ_SECONDS,
        max_output=2 * BUDGET + headers + body + 128 * len(queue_ids),
    )
    done = yield from run(command)
    if done.exit_status:
        raise error_of(done, CONTENT)
    return parse_stored(done, has_body=body > 0)


def message_show(instance: InstanceFacts, operation: MessageShow, entry: QueueEntry) -> Steps[dict[str, Any]]:
    """The data of `message.show`. Raises MessageNotFound when it left meanwhile."""
    limit = operation.max_bytes
    found, _ = yield from read_stored(
        instance,
        [entry.queue_id],
        limit + 1 if "headers" in operation.parts else 1,
        limit + 1 if "body" in operation.parts else 0,
    )
    if entry.queue_id not in found:
        raise MessageNotFound(f"{entry.queue_id} left the queue while it was read")
    return message_parts(operation, entry, found[entry.queue_id])
