"""After an unknown outcome: look, change nothing, and say how far it got. By the frozen fingerprints only."""

from fleet.mta.operations import (
    MessageDeliver,
    Operation,
    QuarantineErase,
    QuarantineRestore,
    QueueBounce,
    QueueHold,
    QueuePurge,
    QueueRelease,
    QueueRequeue,
    SenderBlock,
    SenderUnblock,
)
from fleet.mta.postfix.blocks import read_back_block
from fleet.mta.postfix.deliver import read_back_deliver
from fleet.mta.postfix.listing import QUEUE
from fleet.mta.postfix.quarantine import HELD, is_movable, look, read_back_items
from fleet.mta.readback import is_quarantine, still_queued, stuck, told
from fleet.mta.types import Context, Fingerprint, InstanceFacts, QueueEntry, Result, Steps

CHANGES = (QueueHold, QueueRelease, QueuePurge, QueueBounce, QueueRequeue)


def read_back(instance: InstanceFacts, operation: Operation, context: Context) -> Steps[Result | None]:
    """The result as the operation itself would have reported it. None: nothing to read back, or it cannot be told.

    Purge, hold and release by the queue; deliver by queue and log; quarantines by both places. A message that
    purge, bounce or requeue only put on hold is `left`; data.held names those.
    """
    if isinstance(operation, SenderBlock | SenderUnblock):
        return (yield from read_back_block(instance, operation, context))
    if isinstance(operation, QuarantineRestore | QuarantineErase):
        return (yield from read_back_items(instance, operation))
    if isinstance(operation, MessageDeliver):
        return (yield from read_back_deliver(instance, operation, context))
    if not isinstance(operation, CHANGES) or context.frozen is None:
        return None
    wanted = {each.queue_id: each for each in context.frozen}
    same = yield from still_queued(QUEUE, instance, wanted)
    held = stuck(same, wanted)
    if isinstance(operation, QueueBounce | QueueRequeue) and not held:
        return None
    places: dict[str, str] = {}
    if is_quarantine(operation):
        places = yield from _places(instance, context.job, wanted, same)
    if isinstance(operation, QueueHold):
        held = []
    return told(operation, wanted, same, places, held=[name for name in held if name not in places])


def _places(
    instance: InstanceFacts, job: str, wanted: dict[str, Fingerprint], same: dict[str, QueueEntry]
) -> Steps[dict[str, str]]:
    """Where the quarantined messages are: in the job's directory, or on hold where files cannot be moved."""
    if not is_movable(instance):
        return {name: HELD for name, entry in same.items() if entry.state == "hold"}
    there = yield from look(instance, job)
    return {name: place for name, place in there.items() if name in wanted and name not in same}
