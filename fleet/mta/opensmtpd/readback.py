"""After an unknown outcome: look, and say how far it got. By the frozen fingerprints only.

A purge or restore that died is settled first: a message is wholly put away, or it gets its file back.
"""

from dataclasses import replace

from fleet.mta.changed import Chosen, Outcomes, evidence, is_same, result_of
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
from fleet.mta.types import Context, Ended, Fingerprint, InstanceFacts, MessageState, QueueEntry, Result, Steps

NO_LONGER_QUEUED = "no longer in the queue: deleted by this job, or delivered before it came to that"
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
    now = yield from QUEUE.lookup(instance, wanted)
    same = {name: entry for name, entry in now.items() if is_same(entry, wanted[name])}
    is_delete = isinstance(operation, QueuePurge) and operation.mode == "delete"
    places: dict[str, str] = {}
    if isinstance(operation, QueuePurge) and not is_delete:
        places = {name: place for name, place in there.items() if name in wanted and name not in same}
    outcomes = Outcomes()
    for name in wanted:
        outcomes.put([name], judged(operation, same.get(name), is_away=name in places))
    result = result_of(
        Chosen((), len(now), notes=(NO_LONGER_QUEUED,) if is_delete and outcomes.of(MessageState.ALREADY_GONE) else ()),
        outcomes,
        before=evidence({}, ()),
        after=evidence(same, tuple(wanted)),
        data={"places": places, "held": _stuck(operation, same, wanted), "already": 0},
    )
    if is_delete and result.ended is Ended.UNCHANGED:  # what was asked for is so, and nobody knows by whom
        return replace(result, ended=Ended.SUCCEEDED)
    return result


def _stuck(operation: Operation, same: dict[str, QueueEntry], wanted: dict[str, Fingerprint]) -> list[str]:
    """Messages that are on hold and were not, though nobody asked for a hold."""
    if isinstance(operation, QueueHold):
        return []
    return [name for name, entry in same.items() if entry.state == "hold" != wanted[name].state]


def judged(operation: Operation, current: QueueEntry | None, *, is_away: bool) -> MessageState:
    """What became of one message, as far as the queue tells. What left it by itself was not held, nor released."""
    if current is None:
        return MessageState.DONE if is_away else MessageState.ALREADY_GONE
    is_held = current.state == "hold"
    if (isinstance(operation, QueueHold) and is_held) or (isinstance(operation, QueueRelease) and not is_held):
        return MessageState.DONE
    return MessageState.IN_DELIVERY if current.state == "active" else MessageState.LEFT
