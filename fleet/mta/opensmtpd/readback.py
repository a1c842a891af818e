"""After an unknown outcome: look, and say how far it got. By the frozen fingerprints only.

A purge or restore that died is settled first: a message is wholly put away, or it gets its file back.
"""

from fleet.mta.opensmtpd.blocks import read_back_block
from fleet.mta.opensmtpd.deliver import read_back_deliver
from fleet.mta.opensmtpd.listing import QUEUE
from fleet.mta.opensmtpd.quarantine import look, read_back_items
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
from fleet.mta.readback import is_quarantine, still_queued, stuck, told
from fleet.mta.types import Context, InstanceFacts, Result, Steps

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
    there = (yield from look(instance, context.job)) if isinstance(operation, QueuePurge) else {}
    same = yield from still_queued(QUEUE, instance, wanted)
    places: dict[str, str] = {}
    if is_quarantine(operation):
        places = {name: place for name, place in there.items() if name in wanted and name not in same}
    held = [] if isinstance(operation, QueueHold) else stuck(same, wanted)
    return told(operation, wanted, same, places, held=held)
