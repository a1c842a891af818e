"""Exim's queue, by its spool files: exact addresses, microseconds and sizes, which `exim -bp` shortens."""

from fleet.mta.exim.commands import CONTENT, listing, spool
from fleet.mta.exim.parse import QueueSink, error_of
from fleet.mta.queue.content import BUDGET, Content
from fleet.mta.queue.listing import Listing, Queue, Take, TakeWhole
from fleet.mta.records import InstanceFacts
from fleet.mta.steps import Command, Steps, run

ENVELOPE_FIELDS = frozenset({"from", "to", "from-domain", "to-domain", "reason", "id", "state", "size", "age"})
MATCH_FIELDS = ENVELOPE_FIELDS | {"subject", "header", "body", "msgid"}


def read_queue(instance: InstanceFacts, take: Take, queue: str = "") -> Steps[Listing]:
    """Every message of the main queue, or of one of our named queues, while the listing streams in.

    Messages in other named queues (spec, "queue_name") are not Exim's main queue and are not listed, as by `exim -bp`.
    Raises UnparsedOutput, SudoDenied and others.
    """
    return (yield from _read(listing(instance, queue, QueueSink(take))))


def read_headers(instance: InstanceFacts, take: TakeWhole) -> Steps[Listing]:
    """The main queue with its headers, which lie in the same files."""
    return (yield from _read(listing(instance, "", QueueSink(take), headers=True)))


def _read(command: Command) -> Steps[Listing]:
    done = yield from run(command)
    if done.exit_status:
        raise error_of(done, "exim_list.sh")
    found: Listing = done.result
    return found


HEADERS_AND_BODIES = Content(
    CONTENT,
    lambda instance: (spool(instance),),
    batch=500,
    headers_batch=10_000,
    error_of=error_of,
    room=2 * BUDGET,
)
QUEUE = Queue("Exim", MATCH_FIELDS, read_queue, HEADERS_AND_BODIES, read_headers)
