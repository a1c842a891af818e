"""Sendmail's queue, read from the queue files of every queue directory and of the client queue in one command."""

from fleet.mta.queue.content import Content
from fleet.mta.queue.listing import FIELDS, Consumer, Listing, Queue, WholeConsumer, read_listing
from fleet.mta.records import InstanceFacts
from fleet.mta.sendmail.commands import READ, queues, read
from fleet.mta.sendmail.parse import ListSink, error_of
from fleet.mta.steps import Steps


def read_queue(instance: InstanceFacts, take: Consumer) -> Steps[Listing]:
    """Every message of the queue, handed to `take` while the listing streams in.

    The script says at its end how many there were, so silence is no empty queue. Raises UnparsedOutput,
    SudoDenied and others.
    """
    return (yield from read_listing(read(instance, "list", sink=ListSink(take)), READ, error_of))


def read_headers(instance: InstanceFacts, take: WholeConsumer) -> Steps[Listing]:
    """The same with the headers, which lie in the same files."""
    return (yield from read_listing(read(instance, "headers", sink=ListSink(take)), READ, error_of))


CONTENT = Content(
    READ, lambda instance: ("contents", *queues(instance)), batch=500, headers_batch=5_000, error_of=error_of
)
QUEUE = Queue("Sendmail", FIELDS | {"attempts"}, read_queue, CONTENT, read_headers)
