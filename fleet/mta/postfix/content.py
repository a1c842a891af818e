"""Messages as Postfix stores them: headers and bodies in batches, and message.show."""

from collections.abc import Sequence
from typing import Any

from fleet.mta.commands import READ_SECONDS
from fleet.mta.errors import MessageNotFound, UnparsedOutput
from fleet.mta.operations import MessageShow
from fleet.mta.postfix.commands import CONTENT
from fleet.mta.postfix.parse import error_of, ids_input
from fleet.mta.stored import BODY, HEADERS, Stored, message_parts
from fleet.mta.types import Command, Completed, InstanceFacts, QueueEntry, Recipient, Steps, run

BATCH = 500
HEADERS_BATCH = 5_000  # headers alone: one look through the queue and one postcat per 200 messages
BUDGET = 8 << 20
ENVELOPE = 1 << 20


def contents(instance: InstanceFacts, entries: Sequence[QueueEntry], *, body: bool) -> Steps[dict[str, Stored]]:
    """Headers (64 KiB) and, when asked, bodies (1 MiB) of many messages, many per command. Absent ones are missing.

    Raises UnparsedOutput, SudoDenied and others.
    """
    found: dict[str, Stored] = {}
    waiting = [entry.queue_id for entry in entries]
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
        # postcat -b begins with the empty line that ends the header.
        body = parts[first + second :].removeprefix(b"\n") if has_body else None
        found[name] = Stored(parts[first : first + second], body, parts[:first])


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
    lines = stored.envelope.decode("utf-8", "backslashreplace").splitlines()
    done = (line.partition(": ")[2] for line in lines if line.startswith("done_recipient: "))
    return [Recipient(address, state="delivered") for address in done]
