"""Messages as Postfix stores them: headers and bodies in batches, and message.show."""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from fleet.mta.errors import MessageNotFound
from fleet.mta.host.commands import READ_SECONDS
from fleet.mta.operations import MessageShow
from fleet.mta.postfix.commands import CONTENT
from fleet.mta.postfix.parse import error_of, ids_input
from fleet.mta.queue.content import BODY, HEADERS, Stored, TakeStored, in_batches, message_parts, parse_stored
from fleet.mta.records import InstanceFacts, QueueEntry, Recipient
from fleet.mta.steps import Command, Steps, run
from fleet.mta.text import text_of

BATCH = 500
HEADERS_BATCH = 5_000  # headers alone: one look through the queue and one postcat per 200 messages
BUDGET = 8 << 20
ENVELOPE = 1 << 20


def contents(instance: InstanceFacts, entries: Sequence[QueueEntry], take: TakeStored, *, body: bool) -> Steps[None]:
    """Headers (64 KiB) and, when asked, bodies (1 MiB) of many messages, many per command. `take` gets no absent ones.

    Raises UnparsedOutput, SudoDenied and others.
    """
    yield from in_batches(
        [entry.queue_id for entry in entries],
        BATCH if body else HEADERS_BATCH,
        take,
        lambda batch: read_stored(instance, batch, 0, HEADERS, BODY if body else 0),
    )


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
    found, answered = parse_stored(done, has_body=body > 0)
    return {name: _without_separator(each) for name, each in found.items()}, answered


def _without_separator(stored: Stored) -> Stored:
    """postcat -b begins with the empty line that ends the header."""
    return stored if stored.body is None else replace(stored, body=stored.body.removeprefix(b"\n"))


def message_show(instance: InstanceFacts, operation: MessageShow, entry: QueueEntry) -> Steps[dict[str, Any]]:
    """The data of `message.show`. Raises MessageNotFound when it left meanwhile."""
    limit = operation.max_bytes
    found, _ = yield from read_stored(
        instance,
        [entry.queue_id],
        ENVELOPE,
        limit + 1 if "headers" in operation.parts else 1,
        limit + 2 if "body" in operation.parts else 0,
    )
    if entry.queue_id not in found:
        raise MessageNotFound(f"{entry.queue_id} left the queue while it was read")
    stored = found[entry.queue_id]
    return message_parts(operation, entry, stored, _delivered(stored))


def _delivered(stored: Stored) -> list[Recipient]:
    """postqueue omits the recipients that are done; postcat has them (trap 19)."""
    lines = text_of(stored.envelope).splitlines()
    done = (line.partition(": ")[2] for line in lines if line.startswith("done_recipient: "))
    return [Recipient(address, state="delivered") for address in done]
