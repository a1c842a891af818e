"""Reading back, the same on every MTA: what became of a plan's messages, as far as queue and quarantine tell."""

from collections.abc import Iterable, Mapping
from dataclasses import replace
from typing import Any

from fleet.mta.attempt import UNDER_WAY
from fleet.mta.changed import Chosen, Outcomes, evidence, is_same, result_of
from fleet.mta.operations import Operation, QueueHold, QueuePurge, QueueRelease
from fleet.mta.reading import Queue
from fleet.mta.types import Ended, Fingerprint, InstanceFacts, MessageState, QueueEntry, Result, Steps

NO_LONGER_QUEUED = "no longer in the queue: deleted by this job, or delivered before it came to that"


def is_delete(operation: Operation) -> bool:
    return isinstance(operation, QueuePurge) and operation.mode == "delete"


def is_quarantine(operation: Operation) -> bool:
    return isinstance(operation, QueuePurge) and operation.mode != "delete"


def still_queued(
    queue: Queue, instance: InstanceFacts, wanted: Mapping[str, Fingerprint]
) -> Steps[dict[str, QueueEntry]]:
    """The same messages under the same IDs, of those that the plan names."""
    now = yield from queue.lookup(instance, wanted)
    return {name: entry for name, entry in now.items() if is_same(entry, wanted[name])}


def stuck(same: Mapping[str, QueueEntry], wanted: Mapping[str, Fingerprint]) -> list[str]:
    """Messages that are on hold and were not: what was cut off in the middle leaves them so."""
    return [name for name, entry in same.items() if entry.state == "hold" != wanted[name].state]


def told(
    operation: Operation,
    wanted: Mapping[str, Fingerprint],
    same: Mapping[str, QueueEntry],
    places: Mapping[str, str],
    *,
    held: Iterable[str] = (),
    notes: tuple[str, ...] = (),
    **data: Any,
) -> Result:
    """The result as the operation itself would have reported it.

    `places`: where the messages are that this job's quarantine holds. `held`: those that the operation only put on
    hold. A deletion that nobody saw is not claimed: what is no longer queued counts as already gone.
    """
    outcomes = Outcomes()
    for name in wanted:
        outcomes.put([name], judged(operation, same.get(name), is_away=name in places))
    if is_delete(operation) and outcomes.of(MessageState.ALREADY_GONE):
        notes = (NO_LONGER_QUEUED, *notes)
    result = result_of(
        Chosen((), len(same), notes=notes),
        outcomes,
        before=evidence({}, ()),
        after=evidence(same, tuple(wanted)),
        data={"places": dict(places), "held": list(held), "already": 0, **data},
    )
    if is_delete(operation) and result.ended is Ended.UNCHANGED:  # it is so as was asked for, and nobody knows by whom
        return replace(result, ended=Ended.SUCCEEDED)
    return result


def judged(operation: Operation, current: QueueEntry | None, *, is_away: bool) -> MessageState:
    """What became of one message. What left the queue by itself was not held, nor released."""
    if is_away:
        return MessageState.DONE
    if current is None:
        return MessageState.ALREADY_GONE
    is_held = current.state == "hold"
    if (isinstance(operation, QueueHold) and is_held) or (isinstance(operation, QueueRelease) and not is_held):
        return MessageState.DONE
    return MessageState.IN_DELIVERY if current.state in UNDER_WAY else MessageState.LEFT
