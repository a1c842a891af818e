"""After an unknown outcome: look, change nothing, and say how far it got. By the frozen fingerprints only."""

from functools import partial

from fleet.mta.exim.blocks import read_back_block
from fleet.mta.exim.quarantine import look, read_back_items
from fleet.mta.exim.queue import QUEUE
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
from fleet.mta.steps import Steps


def read_back(instance: InstanceFacts, operation: Operation, context: Context) -> Steps[Result | None]:
    """The result as the operation itself would have reported it. None: nothing to read back, or it cannot be told.

    Whether a message left by an attempt, a bounce or a delivery of Exim's own, the queue does not tell.
    """
    if isinstance(operation, SenderBlock | SenderUnblock):
        return (yield from read_back_block(instance, operation, context))
    if isinstance(operation, QuarantineRestore | QuarantineErase):
        return (yield from read_back_items(instance, operation))
    if not isinstance(operation, QueueHold | QueueRelease | QueuePurge | QueueBounce) or context.frozen is None:
        return None
    wanted = {each.queue_id: each for each in context.frozen}
    if is_quarantine(operation):
        look_in = partial(look, instance, context.job, context.frozen)
        return told(operation, wanted, (yield from placed_by_purge(QUEUE, instance, wanted, look_in)))
    placed = yield from placed_in_queue(QUEUE, instance, wanted)
    if isinstance(operation, QueueBounce) and len(placed.queued) < len(wanted):
        return None
    return told(operation, wanted, placed)
