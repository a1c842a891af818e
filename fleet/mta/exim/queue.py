"""Exim's queue, by its spool files: exact addresses, microseconds and sizes, which `exim -bp` shortens."""

from fleet.mta.exim.commands import CONTENT, LIST, listing, spool
from fleet.mta.exim.parse import QueueSink, error_of
from fleet.mta.queue.content import BUDGET, Content
from fleet.mta.queue.listing import FIELDS, Consumer, Listing, Queue, WholeConsumer, read_listing
from fleet.mta.records import InstanceFacts
from fleet.mta.steps import Steps


def read_queue(instance: InstanceFacts, take: Consumer, queue: str = "") -> Steps[Listing]:
    """Every message of the main queue, or of one of our named queues, while the listing streams in.

    Messages in other named queues (spec, "queue_name") are not Exim's main queue and are not listed, as by `exim -bp`.
    Raises UnparsedOutput, SudoDenied and others.
    """
    return (yield from read_listing(listing(instance, queue, QueueSink(take)), LIST, error_of))


def read_headers(instance: InstanceFacts, take: WholeConsumer) -> Steps[Listing]:
    """The main queue with its headers, which lie in the same files."""
    return (yield from read_listing(listing(instance, "", QueueSink(take), headers=True), LIST, error_of))


HEADERS_AND_BODIES = Content(
    CONTENT,
    lambda instance: (spool(instance),),
    batch=500,
    headers_batch=10_000,
    error_of=error_of,
    room=2 * BUDGET,
)


def not_kept(instance: InstanceFacts) -> dict[str, str]:
    """Reasons are in the message logs alone."""
    return {} if instance.options.get("message_logs", True) else {"reason": "message_logs is off"}


QUEUE = Queue("Exim", FIELDS, read_queue, HEADERS_AND_BODIES, read_headers, not_kept=not_kept)
