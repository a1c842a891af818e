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
    SenderBlock,
    SenderUnblock,
)
from fleet.mta.qmail.blocks import read_back_block
from fleet.mta.qmail.changes import place
from fleet.mta.qmail.changing import change
from fleet.mta.qmail.listing import QUEUE
from fleet.mta.qmail.quarantine import read_back_items
from fleet.mta.readback import is_quarantine, still_queued, told
from fleet.mta.types import Context, InstanceFacts, Result, Steps

NOT_RUNNING = "qmail-send is not running now"


def read_back(instance: InstanceFacts, operation: Operation, context: Context) -> Steps[Result | None]:
    """The result as the operation itself would have reported it. None: nothing to read back, or it cannot be told.

    Purge, hold and release by the queue and the quarantine; `data.service` says whether qmail-send runs. Of a bounce
    and an attempt only the log of that moment tells, so nothing is claimed.
    """
    if isinstance(operation, SenderBlock | SenderUnblock):
        return (yield from read_back_block(instance, operation, context))
    if isinstance(operation, QuarantineRestore | QuarantineErase):
        return (yield from read_back_items(instance, operation))
    if isinstance(operation, QueueBounce | MessageDeliver) or context.frozen is None:
        return None
    if not isinstance(operation, QueuePurge | QueueHold | QueueRelease):
        return None
    wanted = {each.queue_id: each for each in context.frozen}
    answer = yield from change(instance, "look", context.job, ())
    same = yield from still_queued(QUEUE, instance, wanted)
    there = answer.are("there") if is_quarantine(operation) else ()
    places = {name: place(instance, context.job, name) for name in there if name in wanted and name not in same}
    notes = () if ": up " in answer.status else (NOT_RUNNING,)
    return told(operation, wanted, same, places, notes=notes, service=answer.status)
