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
    QueueRequeue,
    SenderBlock,
    SenderUnblock,
)
from fleet.mta.postfix.blocks import read_back_block
from fleet.mta.postfix.deliver import read_back_deliver
from fleet.mta.postfix.listing import lookup
from fleet.mta.postfix.quarantine import HELD, is_movable, look, read_back_items
from fleet.mta.types import Context, Ended, Fingerprint, InstanceFacts, MessageState, QueueEntry, Result, Steps

NO_LONGER_QUEUED = "no longer in the queue: deleted by this job, or delivered before it came to that"
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
    now = yield from lookup(instance, wanted)
    same = {name: entry for name, entry in now.items() if is_same(entry, wanted[name])}
    if isinstance(operation, QueueBounce | QueueRequeue) and not any(_is_stuck(same, each) for each in wanted.values()):
        return None
    places: dict[str, str] = {}
    if isinstance(operation, QueuePurge) and operation.mode != "delete":
        places = yield from _places(instance, context.job, wanted, same)
    outcomes = Outcomes()
    for name, fingerprint in wanted.items():
        outcomes.put([name], judged(operation, fingerprint, same.get(name), is_away=name in places))
    held = [name for name in outcomes.of(MessageState.LEFT) if _is_stuck(same, wanted[name])]
    is_delete = isinstance(operation, QueuePurge) and operation.mode == "delete"
    result = result_of(
        Chosen((), len(now), notes=(NO_LONGER_QUEUED,) if is_delete and outcomes.of(MessageState.ALREADY_GONE) else ()),
        outcomes,
        before=evidence({}, ()),
        after=evidence(same, tuple(wanted)),
        data={"places": places, "held": held, "already": 0},
    )
    if is_delete and result.ended is Ended.UNCHANGED:  # what was asked for is so, and nobody knows by whom
        return replace(result, ended=Ended.SUCCEEDED)
    return result


def _is_stuck(same: dict[str, QueueEntry], wanted: Fingerprint) -> bool:
    """Whether the message is on hold and was not: what was cut off in the middle leaves it so."""
    return wanted.queue_id in same and same[wanted.queue_id].state == "hold" != wanted.state


def _places(
    instance: InstanceFacts, job: str, wanted: dict[str, Fingerprint], same: dict[str, QueueEntry]
) -> Steps[dict[str, str]]:
    """Where the quarantined messages are: in the job's directory, or on hold where files cannot be moved."""
    if not is_movable(instance):
        return {name: HELD for name, entry in same.items() if entry.state == "hold"}
    there = yield from look(instance, job)
    return {name: place for name, place in there.items() if name in wanted and name not in same}


def judged(operation: Operation, wanted: Fingerprint, current: QueueEntry | None, *, is_away: bool) -> MessageState:
    """What became of one message, as far as the queue tells. What left it by itself was not held, nor released.

    Whether bounce or requeue made a message leave, the queue alone does not tell, so it is not claimed.
    """
    if isinstance(operation, QueuePurge):
        if is_away:
            return MessageState.DONE
        if current is None:
            return MessageState.ALREADY_GONE
        return MessageState.IN_DELIVERY if current.state in {"active", "incoming"} else MessageState.LEFT
    if current is None:
        return MessageState.ALREADY_GONE
    is_held = current.state == "hold"
    if (isinstance(operation, QueueHold) and is_held) or (isinstance(operation, QueueRelease) and not is_held):
        return MessageState.DONE
    return MessageState.IN_DELIVERY if current.state in {"active", "incoming"} else MessageState.LEFT
