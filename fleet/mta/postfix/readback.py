"""After an unknown outcome: look, change nothing, and say how far it got. By the frozen fingerprints only."""

from dataclasses import replace

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
from fleet.mta.postfix.attempt import read_back_deliver
from fleet.mta.postfix.blocks import read_back_block
from fleet.mta.postfix.quarantine import HELD, is_movable, look, read_back_items
from fleet.mta.postfix.queue import QUEUE
from fleet.mta.queue.readback import Placed, Wanted, is_quarantine, placed_by_purge, placed_in_queue, stuck, told
from fleet.mta.records import Context, InstanceFacts, Result
from fleet.mta.steps import Steps

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
    placed = yield from _placed(instance, operation, context.job, wanted)
    held = [name for name in stuck(placed.queued, wanted) if name not in placed.lying]
    if isinstance(operation, QueueBounce | QueueRequeue) and not held:
        return None
    return told(operation, wanted, placed, held=[] if isinstance(operation, QueueHold) else held)


def _placed(instance: InstanceFacts, operation: Operation, job: str, wanted: Wanted) -> Steps[Placed]:
    """Where the messages are; quarantined ones in the job's directory, or on hold where files cannot be moved."""
    if is_quarantine(operation) and is_movable(instance):
        return (yield from placed_by_purge(QUEUE, instance, wanted, lambda: look(instance, job)))
    placed = yield from placed_in_queue(QUEUE, instance, wanted)
    if not is_quarantine(operation):
        return placed
    held = {name: HELD for name, entry in placed.queued.items() if entry.state == "hold"}
    return replace(placed, lying=held)
