"""How the queue is read."""

from fleet.mta.host.commands import error_of
from fleet.mta.queue.listing import Listing, Queue, Take
from fleet.mta.records import InstanceFacts
from fleet.mta.steps import Steps, run
from tests.toy import commands
from tests.toy.parse import QueueSink


def read_queue(instance: InstanceFacts, take: Take, job: str = "") -> Steps[Listing]:
    """The queue, or the quarantine of that job."""
    done = yield from run(commands.listing(instance, job, QueueSink(take)))
    if done.exit_status:
        raise error_of(done, commands.LIST)
    found: Listing = done.result
    return found


MATCH_FIELDS = frozenset({"from", "to", "from-domain", "to-domain", "id", "state", "size", "age"})
QUEUE = Queue("the toy", MATCH_FIELDS, read_queue)
