"""Messages as qmail stores them: headers and bodies in batches, and message.show's parts."""

import re
from collections.abc import Sequence
from typing import Any

from fleet.mta.bounds import size_of
from fleet.mta.errors import MessageNotFound, UnparsedOutput
from fleet.mta.host.commands import READ_SECONDS, error_of
from fleet.mta.operations import MessageShow
from fleet.mta.qmail.commands import CONTENT, ids_input
from fleet.mta.queue.content import BODY, HEADERS, Stored, TakeStored, in_batches, message_parts, parse_stored
from fleet.mta.records import InstanceFacts, QueueEntry
from fleet.mta.steps import Command, Completed, Steps, run

BATCH = 5_000
BUDGET = 8 << 20
END_OF_HEADER = re.compile(rb"(?:\A|\n)\r?\n")


def contents(instance: InstanceFacts, entries: Sequence[QueueEntry], take: TakeStored, *, body: bool) -> Steps[None]:
    """Headers (64 KiB) and, when asked, bodies (1 MiB) of many messages, many per command. `take` gets no absent ones.

    Raises UnparsedOutput, SudoDenied and others.
    """
    yield from in_batches(
        [entry.queue_id for entry in entries],
        BATCH,
        take,
        lambda batch: read_stored(instance, batch, HEADERS, BODY if body else 0),
    )


def read_stored(
    instance: InstanceFacts, queue_ids: Sequence[str], headers: int, body: int
) -> Steps[tuple[dict[str, Stored], frozenset[str]]]:
    """One batch, up to so many bytes of each part. Returns the messages, and the IDs answered for (absent ones too)."""
    command = Command(
        (instance.queue_dirs[0],),
        script=CONTENT,
        stdin=f"{BUDGET} {headers} {body}\n".encode() + ids_input(queue_ids),
        become=True,
        timeout=READ_SECONDS,
        max_output=BUDGET + headers + body + 128 * len(queue_ids) + 4096,
    )
    done = yield from run(command)
    if done.exit_status:
        raise error_of(done, CONTENT)
    return parse_whole(done, headers, body) if body else parse_stored(done, has_body=False)


def parse_whole(done: Completed, headers: int, body: int) -> tuple[dict[str, Stored], frozenset[str]]:
    """The answer of qmail_content.sh with bodies: sizes, an empty line, then the files as head(1) -v prints them.

    Raises UnparsedOutput when it is cut off or a length does not fit. A file that went meanwhile is absent.
    """
    sizes: dict[str, int] = {}
    answered: set[str] = set()
    first, empty, data = done.stdout.partition(b"\n\n")
    if done.stdout.startswith(b"\n"):
        first, empty, data = b"", b"\n", done.stdout[1:]
    for line in first.splitlines():
        path, _, said = line.decode("ascii", "replace").rpartition(" ")
        answered.add(path.rpartition("/")[2])
        if said.isdigit():
            sizes[path] = min(size_of(said), headers + body)
    found: dict[str, Stored] = {}
    at = 0
    while empty and data[at:] != b"end\n":
        head = re.compile(rb"==> ([a-z0-9/-]+) <==\n").match(data, at)
        path = head[1].decode() if head else ""
        if head is None or path not in sizes or len(data) < head.end() + sizes[path]:
            raise UnparsedOutput("the messages that were read do not have the lengths that were announced")
        at = head.end() + sizes[path]
        found[path.rpartition("/")[2]] = split_message(data[head.end() : at], headers, body)
        if data[at : at + 5] == b"\n==> ":
            at += 1
    if not empty:
        raise UnparsedOutput("the messages that were read were cut off")
    return found, frozenset(answered)


def split_message(data: bytes, headers: int, body: int) -> Stored:
    """The header ends at the first empty line (RFC 5322, 2.1)."""
    end = END_OF_HEADER.search(data)
    if end is None:
        return Stored(data[:headers], b"")
    return Stored(data[: end.start() + data.startswith(b"\n", end.start())][:headers], data[end.end() :][:body])


def message_show(instance: InstanceFacts, operation: MessageShow, entry: QueueEntry) -> Steps[dict[str, Any]]:
    """The data of `message.show`. Raises MessageNotFound when it left meanwhile."""
    limit = operation.max_bytes + 1
    found, _ = yield from read_stored(instance, [entry.queue_id], HEADERS + limit, limit)
    if entry.queue_id not in found:
        raise MessageNotFound(f"{entry.queue_id} left the queue while it was read")
    return message_parts(operation, entry, found[entry.queue_id])
