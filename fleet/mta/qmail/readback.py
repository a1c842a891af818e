"""After an unknown outcome: look, change nothing, and say how far it got. By the frozen fingerprints only."""

from functools import partial

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
from fleet.mta.qmail.change_script import Answer, with_notes
from fleet.mta.qmail.quarantine import look, read_back_items
from fleet.mta.qmail.queue import QUEUE
from fleet.mta.queue.readback import is_quarantine, placed_by_purge, placed_in_queue, told
from fleet.mta.records import Context, InstanceFacts, Result
from fleet.mta.steps import Steps

NOT_RUNNING = "qmail-send is not running now; `svc -u` on its service starts it"


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
    answers: list[Answer] = []
    look_in = partial(look, instance, context.job, answers)
    if is_quarantine(operation):
        placed = yield from placed_by_purge(QUEUE, instance, wanted, look_in)
    else:
        yield from look_in()  # it puts right what was cut off, and tells of qmail-send
        placed = yield from placed_in_queue(QUEUE, instance, wanted)
    status = answers[-1].status
    notes = () if ": up " in status else (NOT_RUNNING,)
    return with_notes(told(operation, wanted, placed, notes=notes, service=status), answers)
