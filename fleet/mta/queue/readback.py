"""Reading back, the same on every MTA: what became of a plan's messages, as far as queue and quarantine tell.

Absence proves nothing while a change can still run, so two places are read in the order of the move, source before
target: a message that moves in between is seen in one of them at least. Whether what is told is final, the caller
decides: at once only that a message is done.
"""

from collections.abc import Callable, Container, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from fleet.mta.operations import (
    Operation,
    Quarantined,
    QuarantineErase,
    QuarantineRestore,
    QueueHold,
    QueuePurge,
    QueueRelease,
)
from fleet.mta.queue.listing import Queue
from fleet.mta.queue.outcome import UNDER_WAY, Chosen, Outcomes, evidence, is_same, result_of
from fleet.mta.queue.quarantine import fingerprint
from fleet.mta.records import Fingerprint, InstanceFacts, MessageState, QueueEntry, Result
from fleet.mta.steps import Steps

NO_LONGER_QUEUED = "no longer in the queue: deleted by this job, or delivered before it came to that"

Look = Callable[[], Steps[Mapping[str, str]]]
"""Reads the quarantine, under the host's lock where it has one: queue IDs to places. Raises when it cannot be had."""
Wanted = Mapping[str, Fingerprint]
Jobs = Sequence[tuple[str, Sequence[str]]]


@dataclass(frozen=True, slots=True)
class Placed:
    """Where messages are. `queued`: in the queue. `lying`: the places of what is in quarantine, out of the queue unless
    quarantine is a hold in the queue itself. `notes`: what the listings told people."""

    queued: dict[str, QueueEntry]
    lying: dict[str, str]
    notes: tuple[str, ...] = ()


def is_delete(operation: Operation) -> bool:
    return isinstance(operation, QueuePurge) and operation.mode == "delete"


def is_quarantine(operation: Operation) -> bool:
    return isinstance(operation, QueuePurge) and operation.mode != "delete"


def placed_by_purge(queue: Queue, instance: InstanceFacts, wanted: Wanted, look: Look) -> Steps[Placed]:
    """Where a purge's messages are: the queue is read first, then the quarantine, where they go.

    Seen in both: it moved meanwhile, or was cut off in the middle of a move by links and is still the queue's. Seen in
    neither: it left, or was taken out and given back. The queue tells which, looked at once more.
    """
    first = yield from placed_in_queue(queue, instance, wanted)
    there = yield from look()
    lying = {name: place for name, place in there.items() if name in wanted}
    doubtful = {name: each for name, each in wanted.items() if (name in first.queued) == (name in lying)}
    return (yield from _looked_up(queue, instance, first, lying, doubtful))


def placed_by_restore(queue: Queue, instance: InstanceFacts, wanted: Wanted, look: Look) -> Steps[Placed]:
    """Where a restore's messages are: the quarantine is read first, then the queue, where they go.

    Seen in both: in the queue, which was read last, and where the MTA works with it. Seen in neither: as in a purge.
    """
    lying = yield from look()
    first = yield from placed_in_queue(queue, instance, wanted)
    doubtful = {name: each for name, each in wanted.items() if name not in first.queued and name not in lying}
    return (yield from _looked_up(queue, instance, first, lying, doubtful))


def _looked_up(
    queue: Queue, instance: InstanceFacts, first: Placed, lying: Mapping[str, str], doubtful: Wanted
) -> Steps[Placed]:
    """The two readings as one; the queue is read again for the doubtful ones, and that decides."""
    again = (yield from placed_in_queue(queue, instance, doubtful)) if doubtful else Placed({}, {})
    queued = {name: entry for name, entry in first.queued.items() if name not in doubtful} | again.queued
    away = {name: place for name, place in lying.items() if name not in queued}
    return Placed(queued, away, tuple(dict.fromkeys((*first.notes, *again.notes))))


def placed_in_queue(queue: Queue, instance: InstanceFacts, wanted: Wanted) -> Steps[Placed]:
    """The same messages under the same IDs, of those that the plan names, by the queue alone."""
    notes: list[str] = []
    now = yield from queue.lookup(instance, wanted, notes)
    return Placed({name: entry for name, entry in now.items() if is_same(entry, wanted[name])}, {}, tuple(notes))


def stuck(same: Mapping[str, QueueEntry], wanted: Wanted) -> list[str]:
    """Messages that are on hold and were not: what was cut off in the middle leaves them so."""
    return [name for name, entry in same.items() if entry.state == "hold" != wanted[name].state]


def told(
    operation: Operation,
    wanted: Wanted,
    placed: Placed,
    *,
    held: Iterable[str] = (),
    notes: tuple[str, ...] = (),
    **data: Any,
) -> Result:
    """The result as the operation itself would have reported it.

    `placed.lying`: where the messages are that this job's quarantine holds. `held`: those that the operation only put
    on hold. A deletion that nobody saw is not claimed: what is no longer queued has left the queue, and no more.
    """
    same = placed.queued
    outcomes = Outcomes()
    for name in wanted:
        outcomes.put([name], judged(operation, same.get(name), is_away=name in placed.lying))
    if outcomes.of(MessageState.LEFT_QUEUE):
        notes = (NO_LONGER_QUEUED, *notes)
    notes = (*placed.notes, *notes)
    return result_of(
        Chosen((), len(same), notes=notes),
        outcomes,
        before=evidence({}, ()),
        after=evidence(same, tuple(wanted)),
        data={"places": placed.lying, "held": list(held), "already": 0, **data},
    )


def judged(operation: Operation, current: QueueEntry | None, *, is_away: bool) -> MessageState:
    """What became of one message. What left the queue by itself was not held, nor released."""
    if is_away:
        return MessageState.DONE
    if current is None:
        return MessageState.LEFT_QUEUE if is_delete(operation) else MessageState.ALREADY_GONE
    is_held = current.state == "hold"
    if (isinstance(operation, QueueHold) and is_held) or (isinstance(operation, QueueRelease) and not is_held):
        return MessageState.DONE
    return MessageState.IN_DELIVERY if current.state in UNDER_WAY else MessageState.LEFT


def read_back_items(
    queue: Queue,
    instance: InstanceFacts,
    operation: QuarantineRestore | QuarantineErase,
    jobs: Jobs,
    look: Callable[[str], Steps[Mapping[str, str]]],
    *,
    is_back: Callable[[Quarantined, QueueEntry], bool] = lambda item, entry: True,
    kept_in_queue: Container[str] = (),
) -> Steps[Result]:
    """Where the items of a restore or an erase are now: in the queue, still in quarantine, or gone. Changes nothing.

    `jobs`: those that put the items there, with their queue IDs; `look`: a `Look` into the quarantine of one of them.
    `is_back`: whether an item that is queued is wholly restored. `kept_in_queue`: items whose quarantine is a hold in
    the queue itself.
    """
    by_id = {item.queue_id: item for item in operation.items}
    wanted = {name: fingerprint(item) for name, item in by_id.items()}
    outcomes = Outcomes()
    if isinstance(operation, QuarantineErase):
        lying = yield from _look_for_all(jobs, look)
        placed = yield from placed_in_queue(queue, instance, wanted)
        outcomes.put(by_id, MessageState.DONE)
        outcomes.put((*lying, *(name for name in placed.queued if name in kept_in_queue)), MessageState.LEFT)
    else:
        placed = yield from placed_by_restore(queue, instance, wanted, lambda: _look_for_all(jobs, look))
        queued = placed.queued
        outcomes.put(by_id, MessageState.ALREADY_GONE)
        outcomes.put((*placed.lying, *queued), MessageState.LEFT)
        outcomes.put((name for name, entry in queued.items() if is_back(by_id[name], entry)), MessageState.DONE)
    chosen = Chosen((), len(placed.queued), notes=placed.notes)
    return result_of(chosen, outcomes, after=evidence(placed.queued, tuple(by_id)))


def _look_for_all(jobs: Jobs, look: Callable[[str], Steps[Mapping[str, str]]]) -> Steps[dict[str, str]]:
    found: dict[str, str] = {}
    for job, queue_ids in jobs:
        there = yield from look(job)
        found |= {name: there[name] for name in queue_ids if name in there}
    return found
