"""After an unknown outcome: look, and say how far it got. By the frozen fingerprints only.

To look settles a purge or restore that died: a message is wholly put away, or it gets its file back.
"""

from functools import partial

from fleet.mta.opensmtpd.attempt import read_back_deliver
from fleet.mta.opensmtpd.blocks import read_back_block
from fleet.mta.opensmtpd.quarantine import look, read_back_items
from fleet.mta.opensmtpd.queue import QUEUE
from fleet.mta.operations import (
    MessageDeliver,
    Operation,
    QuarantineErase,
    QuarantineRestore,
    QueueHold,
    QueuePurge,
    QueueRelease,
    SenderBlock,
    SenderUnblock,
)
from fleet.mta.queue.readback import is_quarantine, placed_by_purge, placed_in_queue, stuck, told
from fleet.mta.records import Context, InstanceFacts, Result
from fleet.mta.steps import Steps

CHANGES = (QueueHold, QueueRelease, QueuePurge)


def read_back(instance: InstanceFacts, operation: Operation, context: Context) -> Steps[Result | None]:
    """The result as the operation itself would have reported it. None: nothing to read back, or it cannot be told."""
    if isinstance(operation, SenderBlock | SenderUnblock):
        return (yield from read_back_block(instance, operation, context))
    if isinstance(operation, QuarantineRestore | QuarantineErase):
        return (yield from read_back_items(instance, operation))
    if isinstance(operation, MessageDeliver):
        return (yield from read_back_deliver(instance, operation, context))
    if not isinstance(operation, CHANGES) or context.frozen is None:
        return None
    wanted = {each.queue_id: each for each in context.frozen}
    look_in = partial(look, instance, context.job)
    if is_quarantine(operation):
        placed = yield from placed_by_purge(QUEUE, instance, wanted, look_in)
    else:
        if isinstance(operation, QueuePurge):
            yield from look_in()  # what a deletion has put aside gets its file back, or is removed
        placed = yield from placed_in_queue(QUEUE, instance, wanted)
    held = [] if isinstance(operation, QueueHold) else stuck(placed.queued, wanted)
    return told(operation, wanted, placed, held=held)
