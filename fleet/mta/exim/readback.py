"""After an unknown outcome: look, change nothing, and say how far it got. By the frozen fingerprints only."""

from dataclasses import replace

from fleet.mta.changed import Chosen, Outcomes, evidence, is_same, result_of
from fleet.mta.exim.blocks import read_back_block
from fleet.mta.exim.listing import QUEUE
from fleet.mta.exim.quarantine import look, read_back_items
from fleet.mta.operations import (
    Operation,
    QuarantineErase,
    QuarantineRestore,
    QueueHold,
    QueuePurge,
    QueueRelease,
    SenderBlock,
    SenderUnblock,
)
from fleet.mta.types import Context, Ended, Fingerprint, InstanceFacts, MessageState, QueueEntry, Result, Steps

NO_LONGER_QUEUED = "no longer in the queue: deleted by this job, or delivered before it came to that"


def read_back(instance: InstanceFacts, operation: Operation, context: Context) -> Steps[Result | None]:
    """The result as the operation itself would have reported it. None: nothing to read back, or it cannot be told.

    Whether a message left by an attempt, a bounce or a delivery of Exim's own, the queue does not tell.
    """
    if isinstance(operation, SenderBlock | SenderUnblock):
        return (yield from read_back_block(instance, operation, context))
    if isinstance(operation, QuarantineRestore | QuarantineErase):
        return (yield from read_back_items(instance, operation))
    if not isinstance(operation, QueueHold | QueueRelease | QueuePurge) or context.frozen is None:
        return None
    wanted = {each.queue_id: each for each in context.frozen}
    now = yield from QUEUE.lookup(instance, wanted)
    same = {name: entry for name, entry in now.items() if is_same(entry, wanted[name])}
    places: dict[str, str] = {}
    if isinstance(operation, QueuePurge) and operation.mode != "delete":
        there = yield from look(instance, context.job)
        places = {name: place for name, place in there.items() if name in wanted and name not in same}
    outcomes = Outcomes()
    for name, fingerprint in wanted.items():
        outcomes.put([name], judged(operation, fingerprint, same.get(name), is_away=name in places))
    is_delete = isinstance(operation, QueuePurge) and operation.mode == "delete"
    result = result_of(
        Chosen((), len(now), notes=(NO_LONGER_QUEUED,) if is_delete and outcomes.of(MessageState.ALREADY_GONE) else ()),
        outcomes,
        before=evidence({}, ()),
        after=evidence(same, tuple(wanted)),
        data={"places": places, "held": [], "already": 0},
    )
    if is_delete and result.ended is Ended.UNCHANGED:  # what was asked for is so, and nobody knows by whom
        return replace(result, ended=Ended.SUCCEEDED)
    return result


def judged(operation: Operation, wanted: Fingerprint, current: QueueEntry | None, *, is_away: bool) -> MessageState:
    """What became of one message, as far as the queues tell. What left by itself was not held, nor released."""
    if isinstance(operation, QueuePurge) and is_away:
        return MessageState.DONE
    if current is None:
        return MessageState.ALREADY_GONE
    is_held = current.state == "hold"
    if (isinstance(operation, QueueHold) and is_held) or (isinstance(operation, QueueRelease) and not is_held):
        return MessageState.DONE
    return MessageState.IN_DELIVERY if current.state == "active" else MessageState.LEFT
