"""How the queue is read."""

from fleet.mta.host.commands import error_of
from fleet.mta.queue.listing import Consumer, Listing, Queue, read_listing
from fleet.mta.records import InstanceFacts
from fleet.mta.steps import Steps
from tests.toy import commands
from tests.toy.parse import QueueSink


def read_queue(instance: InstanceFacts, take: Consumer, job: str = "") -> Steps[Listing]:
    """The queue, or the quarantine of that job."""
    return (yield from read_listing(commands.listing(instance, job, QueueSink(take)), commands.LIST, error_of))


FIELDS = frozenset({"from", "to", "from-domain", "to-domain", "id", "state", "size", "age"})
QUEUE = Queue("the toy", FIELDS, read_queue)
