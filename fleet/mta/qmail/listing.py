"""qmail's queue, read from its files while qmail-send runs or not."""

from functools import partial

from fleet.mta import reading, summary
from fleet.mta.commands import LISTING_SECONDS, error_of
from fleet.mta.qmail.commands import LIST
from fleet.mta.qmail.content import contents
from fleet.mta.qmail.parse import QueueSink
from fleet.mta.reading import Listing, Queue, Take
from fleet.mta.types import Command, InstanceFacts, Steps, run

# No `reason`, no attempts: qmail keeps neither, its log alone tells them.
ENVELOPE_FIELDS = frozenset({"from", "to", "from-domain", "to-domain", "id", "state", "size", "age"})
MATCH_FIELDS = ENVELOPE_FIELDS | {"subject", "header", "body", "msgid"}


def read_queue(instance: InstanceFacts, take: Take) -> Steps[Listing]:
    """Every message, handed to `take` while the listing streams in. Raises UnparsedOutput, SudoDenied and others."""
    command = Command(
        (instance.queue_dirs[0],), script=LIST, become=True, timeout=LISTING_SECONDS, sink=QueueSink(take)
    )
    done = yield from run(command)
    if done.exit_status:
        raise error_of(done, LIST)
    listing: Listing = done.result
    return listing


QUEUE = Queue("qmail", MATCH_FIELDS, read_queue, contents)
queue_list = partial(reading.queue_list, QUEUE)
queue_summary = partial(summary.queue_summary, QUEUE)
lookup = QUEUE.lookup
proof = QUEUE.proof
