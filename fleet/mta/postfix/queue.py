"""Postfix's queue, as postqueue(1) lists it."""

from fleet.mta.errors import UnparsedOutput
from fleet.mta.postfix.commands import CONTENT, postqueue
from fleet.mta.postfix.parse import QueueSink, error_of
from fleet.mta.queue.content import Content, Stored
from fleet.mta.queue.listing import FIELDS, Consumer, Listing, Queue
from fleet.mta.records import InstanceFacts, Recipient
from fleet.mta.steps import Steps, run
from fleet.mta.text import text_of

EMPTY = b"Mail queue is empty"
DOWN = "the mail system is down; root's listing reads the queue files themselves"


def read_queue(instance: InstanceFacts, take: Consumer) -> Steps[Listing]:
    """Every message of the queue, handed to `take` while the listing streams in.

    postqueue -j says nothing when the queue is empty, and nothing when it is broken. So silence counts only when
    postqueue -p, asked right after, says that the queue is empty. Raises UnparsedOutput, MtaNotRunning and others.
    """
    for _ in range(3):
        done = yield from run(postqueue(instance, "-j", sink=QueueSink(take)))
        if done.exit_status:
            raise error_of(done, "postqueue")
        result: Listing = done.result
        listing = result.noted("postqueue", *([DOWN] if b"Mail system is down" in done.stderr else []))
        if listing.total or listing.refused:
            return listing
        proof = yield from run(postqueue(instance, "-p"))
        if proof.exit_status:
            raise error_of(proof, "postqueue")
        if proof.stdout.strip() == EMPTY:
            return listing
    raise UnparsedOutput("postqueue -j printed nothing, and postqueue -p does not say that the queue is empty")


def delivered(stored: Stored) -> list[Recipient]:
    """postqueue omits the recipients that are done; postcat has them (trap 19)."""
    lines = text_of(stored.envelope).splitlines()
    done = (line.partition(": ")[2] for line in lines if line.startswith("done_recipient: "))
    return [Recipient(address, state="delivered") for address in done]


HEADERS_AND_BODIES = Content(
    CONTENT,
    lambda instance: (instance.options["command_directory"], instance.config_dir),
    batch=500,
    headers_batch=5_000,  # headers alone: one look through the queue and one postcat per 200 messages
    error_of=error_of,
    separator=(b"\n",),  # postcat -b begins with the empty line that ends the header
    envelope=1 << 20,
    delivered=delivered,
)
QUEUE = Queue("Postfix", FIELDS, read_queue, HEADERS_AND_BODIES)
