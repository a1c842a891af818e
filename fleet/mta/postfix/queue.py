"""Postfix's queue, as postqueue(1) lists it."""

from dataclasses import replace
from functools import partial

from fleet.mta.errors import UnparsedOutput
from fleet.mta.postfix.commands import postqueue
from fleet.mta.postfix.content import contents
from fleet.mta.postfix.parse import QueueSink, error_of
from fleet.mta.queue import listing as queue_listing
from fleet.mta.queue import summary
from fleet.mta.queue.listing import Listing, Queue, Take
from fleet.mta.records import InstanceFacts
from fleet.mta.steps import Completed, Steps, run

ENVELOPE_FIELDS = frozenset({"from", "to", "from-domain", "to-domain", "reason", "id", "state", "size", "age"})
MATCH_FIELDS = ENVELOPE_FIELDS | {"subject", "header", "body", "msgid"}
EMPTY = b"Mail queue is empty"
DOWN = "the mail system is down; root's listing reads the queue files themselves"


def read_queue(instance: InstanceFacts, take: Take) -> Steps[Listing]:
    """Every message of the queue, handed to `take` while the listing streams in.

    postqueue -j says nothing when the queue is empty, and nothing when it is broken. So silence counts only when
    postqueue -p, asked right after, says that the queue is empty. Raises UnparsedOutput, MtaNotRunning and others.
    """
    for _ in range(3):
        done = yield from run(postqueue(instance, "-j", sink=QueueSink(take)))
        if done.exit_status:
            raise error_of(done, "postqueue")
        listing: Listing = done.result
        if listing.total or listing.refused:
            return _with_notes(listing, done)
        proof = yield from run(postqueue(instance, "-p"))
        if proof.exit_status:
            raise error_of(proof, "postqueue")
        if proof.stdout.strip() == EMPTY:
            return _with_notes(listing, done)
    raise UnparsedOutput("postqueue -j printed nothing, and postqueue -p does not say that the queue is empty")


def _with_notes(listing: Listing, done: Completed) -> Listing:
    notes = [DOWN] if b"Mail system is down" in done.stderr else []
    if listing.refused:
        notes.append(f"{listing.refused} lines of the listing are not what postqueue prints; they were left out")
    return replace(listing, notes=tuple(notes))


QUEUE = Queue("Postfix", MATCH_FIELDS, read_queue, contents)
queue_list = partial(queue_listing.queue_list, QUEUE)
queue_summary = partial(summary.queue_summary, QUEUE)
lookup = QUEUE.lookup
proof = QUEUE.proof
