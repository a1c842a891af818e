"""After an unknown outcome: look, change nothing, and say how far it got. By the frozen fingerprints only."""

from functools import partial

from fleet.mta.operations import (
    Operation,
    QuarantineErase,
    QuarantineRestore,
    QueueBounce,
    QueueHold,
    QueuePurge,
    QueueRelease,
    SenderBlock,
    SenderUnblock,
)
from fleet.mta.queue.readback import is_quarantine, placed_by_purge, placed_in_queue, told
from fleet.mta.records import Context, InstanceFacts, Result
from fleet.mta.sendmail.blocks import read_back_block
from fleet.mta.sendmail.quarantine import look, read_back_items
from fleet.mta.sendmail.queue import QUEUE
from fleet.mta.steps import Steps

CHANGES = (QueueHold, QueueRelease, QueuePurge, QueueBounce)


def read_back(instance: InstanceFacts, operation: Operation, context: Context) -> Steps[Result | None]:
    """The result as the operation itself would have reported it. None: nothing to read back, or it cannot be told.

    Purge, hold and release by the queue; quarantines by both places. Of deliver, flush and bounce the queue alone does
    not tell who made an attempt, so only a message that bounce released and left so is told.
    """
    if isinstance(operation, SenderBlock | SenderUnblock):
        return (yield from read_back_block(instance, operation, context))
    if isinstance(operation, QuarantineRestore | QuarantineErase):
        return (yield from read_back_items(instance, operation))
    if not isinstance(operation, CHANGES) or context.frozen is None:
        return None
    wanted = {each.queue_id: each for each in context.frozen}
    if is_quarantine(operation):
        look_in = partial(look, instance, context.job)
        return told(operation, wanted, (yield from placed_by_purge(QUEUE, instance, wanted, look_in)))
    placed = yield from placed_in_queue(QUEUE, instance, wanted)
    if isinstance(operation, QueueBounce) and len(placed.queued) < len(wanted):
        return None
    return told(operation, wanted, placed)
