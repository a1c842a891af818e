"""After an unknown outcome: look, change nothing, and say how far it got. By the frozen fingerprints only."""

from dataclasses import replace

from fleet.mta.changed import Chosen, Outcomes, evidence, is_same, result_of
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
from fleet.mta.qmail.listing import lookup
from fleet.mta.qmail.quarantine import read_back_items
from fleet.mta.types import Context, Ended, Fingerprint, InstanceFacts, MessageState, QueueEntry, Result, Steps

NO_LONGER_QUEUED = "no longer in the queue: deleted by this job, or delivered before it came to that"
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
    now = yield from lookup(instance, wanted)
    same = {name: entry for name, entry in now.items() if is_same(entry, wanted[name])}
    is_delete = isinstance(operation, QueuePurge) and operation.mode == "delete"
    away = [] if is_delete else [name for name in answer.are("there") if name in wanted and name not in same]
    outcomes = Outcomes()
    for name, fingerprint in wanted.items():
        outcomes.put([name], judged(operation, fingerprint, same.get(name), is_away=name in away))
    notes = (NO_LONGER_QUEUED,) if is_delete and outcomes.of(MessageState.ALREADY_GONE) else ()
    if ": up " not in answer.status:
        notes = (*notes, NOT_RUNNING)
    result = result_of(
        Chosen((), len(now), notes=notes),
        outcomes,
        before=evidence({}, ()),
        after=evidence(same, tuple(wanted)),
        data={
            "places": {name: place(instance, context.job, name) for name in away},
            "held": [],
            "already": 0,
            "service": answer.status,
        },
    )
    if is_delete and result.ended is Ended.UNCHANGED:  # what was asked for is so, and nobody knows by whom
        return replace(result, ended=Ended.SUCCEEDED)
    return result


def judged(operation: Operation, wanted: Fingerprint, current: QueueEntry | None, *, is_away: bool) -> MessageState:
    """What became of one message, by queue and quarantine. What left by itself was not held, nor released."""
    if is_away:
        return MessageState.DONE
    if current is None:
        return MessageState.ALREADY_GONE
    is_held = current.state == "hold"
    if (isinstance(operation, QueueHold) and is_held) or (isinstance(operation, QueueRelease) and not is_held):
        return MessageState.DONE
    return MessageState.LEFT
