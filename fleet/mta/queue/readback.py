"""Reading back, the same on every MTA: what became of a plan's messages, as far as queue and quarantine tell.

Absence proves nothing while a change can still run, so two places are read in the order of the move, source before
target: a message that moves in between is seen in one of them at least. Whether what is told is final, the caller
decides: at once only that a message is done.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any

from fleet.mta.operations import (
    ChangesMessages,
    MessageDeliver,
    Operation,
    QuarantineErase,
    QuarantineRestore,
    SenderBlock,
    SenderUnblock,
)
from fleet.mta.queue.changes import verb_of
from fleet.mta.queue.delivery import Delivery, read_back_deliver
from fleet.mta.queue.driver import Jobs, QueueDriver, Reported, Wanted
from fleet.mta.queue.listing import Queue
from fleet.mta.queue.outcome import Chosen, Outcomes, Verb, Word, evidence, is_same, judge, result_of
from fleet.mta.queue.quarantine import fingerprint, jobs_of
from fleet.mta.records import Context, InstanceFacts, MessageState, QueueEntry, Result
from fleet.mta.results.changing import MoreOfChanges
from fleet.mta.steps import Steps

NO_LONGER_QUEUED = "no longer in the queue: deleted by this job, or delivered before it came to that"
NOT_PROVEN = (
    "{} messages are on hold, and nothing on the host tells that this job held them: they count as held already, and "
    "only a release that names them, or state:hold, frees them"
)

Look = Callable[[], Steps[Reported]]
"""Reads the quarantine, under the host's lock where it has one, and tells the places. Raises when it cannot be had."""
ReadBlock = Callable[[InstanceFacts, Any, Context], Steps[Result | None]]


@dataclass(frozen=True, slots=True)
class Placed:
    """Where messages are. `queued`: in the queue. `lying`: the places of what is in quarantine, out of the queue.

    `notes`: of the listings, for people; `data`: what the quarantine reported besides.
    """

    queued: dict[str, QueueEntry]
    lying: dict[str, str]
    notes: tuple[str, ...] = ()
    data: MoreOfChanges = field(default_factory=MoreOfChanges)


def read_back(
    driver: QueueDriver,
    delivery: Delivery | None,
    read_block: ReadBlock | None,
    instance: InstanceFacts,
    operation: Operation,
    context: Context,
) -> Steps[Result | None]:
    """Adapter.read_back: the result as the operation itself would have reported it, by the frozen fingerprints only.

    `delivery`, `read_block`: of an MTA that has message.deliver and blocks. None: nothing to read back, or it cannot be
    known. Of an attempt, a bounce and a requeue the queue does not tell by whom a message left it, so only what they
    left there is reported.
    """
    if isinstance(operation, SenderBlock | SenderUnblock):
        return (yield from read_block(instance, operation, context)) if read_block else None
    if isinstance(operation, QuarantineRestore | QuarantineErase):
        return (yield from _items_read_back(driver, instance, operation))
    if isinstance(operation, MessageDeliver):
        return (yield from read_back_deliver(delivery, instance, context)) if delivery else None
    if not isinstance(operation, ChangesMessages) or context.frozen is None:
        return None
    verb = verb_of(operation)
    if verb not in driver.readable:
        return None
    wanted = {each.queue_id: each for each in context.frozen}
    placed = yield from _placed(driver, instance, verb, context.job, wanted)
    held = stuck(placed.queued, wanted) if driver.holds_first and verb is not Verb.HOLD else []
    is_decided = bool(held) if driver.holds_first else len(placed.queued) == len(wanted)
    if verb in (Verb.BOUNCE, Verb.REQUEUE) and not is_decided:
        return None
    return _result(verb, context.job, wanted, placed, held)


def _placed(driver: QueueDriver, instance: InstanceFacts, verb: Verb, job: str, wanted: Wanted) -> Steps[Placed]:
    def look() -> Steps[Reported]:
        return (yield from driver.lying(instance, job, verb, wanted))

    if verb is Verb.TAKE_OUT:
        return (yield from placed_by_purge(driver.queue, instance, wanted, look))
    settled = (yield from look()) if verb in driver.settles else Reported()
    placed = yield from placed_in_queue(driver.queue, instance, wanted)
    return Placed(placed.queued, {}, (*placed.notes, *settled.notes), settled.data)


def placed_by_purge(queue: Queue, instance: InstanceFacts, wanted: Wanted, look: Look) -> Steps[Placed]:
    """Where a purge's messages are: the queue is read first, then the quarantine, where they go.

    Seen in both: it moved meanwhile, or was cut off in the middle of a move by links and is still the queue's. Seen in
    neither: it left, or was taken out and given back. The queue tells which, looked at once more.
    """
    first = yield from placed_in_queue(queue, instance, wanted)
    there = yield from look()
    lying = {name: place for name, place in there.places.items() if name in wanted}
    doubtful = {name: each for name, each in wanted.items() if (name in first.queued) == (name in lying)}
    return (yield from _looked_up(queue, instance, first, lying, doubtful, there))


def placed_by_restore(queue: Queue, instance: InstanceFacts, wanted: Wanted, look: Look) -> Steps[Placed]:
    """Where a restore's messages are: the quarantine is read first, then the queue, where they go.

    Seen in both: in the queue, which was read last, and where the MTA works with it. Seen in neither: as in a purge.
    """
    there = yield from look()
    first = yield from placed_in_queue(queue, instance, wanted)
    doubtful = {name: each for name, each in wanted.items() if name not in first.queued and name not in there.places}
    return (yield from _looked_up(queue, instance, first, there.places, doubtful, there))


def _looked_up(
    queue: Queue, instance: InstanceFacts, first: Placed, lying: Mapping[str, str], doubtful: Wanted, there: Reported
) -> Steps[Placed]:
    """The two readings as one; the queue is read again for the doubtful ones, and that decides."""
    again = (yield from placed_in_queue(queue, instance, doubtful)) if doubtful else Placed({}, {})
    queued = {name: entry for name, entry in first.queued.items() if name not in doubtful} | again.queued
    away = {name: place for name, place in lying.items() if name not in queued}
    return Placed(queued, away, tuple(dict.fromkeys((*first.notes, *again.notes, *there.notes))), there.data)


def placed_in_queue(queue: Queue, instance: InstanceFacts, wanted: Wanted) -> Steps[Placed]:
    """The same messages under the same IDs, of those that the plan names, by the queue alone."""
    now, listing = yield from queue.listed(instance, wanted)
    return Placed({name: entry for name, entry in now.items() if is_same(entry, wanted[name])}, {}, listing.notes)


def stuck(same: Mapping[str, QueueEntry], wanted: Wanted) -> list[str]:
    """Messages that are on hold and were not: what was cut off in the middle leaves them so."""
    return [name for name, entry in same.items() if entry.state == "hold" != wanted[name].state]


def _result(verb: Verb, job: str, wanted: Wanted, placed: Placed, held: Sequence[str]) -> Result:
    """The result as the operation itself would have reported it. `held`: what the operation only put on hold.

    A deletion that nobody saw is not claimed: what is no longer queued has left the queue, and no more. A hold is ours
    only where the host itself bears the job's name on it.
    """
    same = placed.queued
    outcomes = Outcomes()
    for name in wanted:
        now = same.get(name)
        state = judge(verb, now, _word_of(verb, job, now), is_lying=name in placed.lying)
        if state is not None:
            outcomes.states[name] = MessageState.LEFT_QUEUE if verb is Verb.DELETE and now is None else state
    already = len(wanted) - len(outcomes.states)
    notes = list(placed.notes)
    if outcomes.of(MessageState.LEFT_QUEUE):
        notes.append(NO_LONGER_QUEUED)
    if already:
        notes.append(NOT_PROVEN.format(already))
    return result_of(
        Chosen((), len(same), notes=tuple(notes)),
        outcomes,
        before=evidence({}, ()),
        after=evidence(same, tuple(wanted)),
        more={"places": placed.lying, "held": list(held), "already": already, **placed.data},
    )


def _word_of(verb: Verb, job: str, now: QueueEntry | None) -> Word | None:
    """What stands for the host's word that was not heard. What left the queue by itself was not released."""
    is_done = now is not None and (verb is Verb.RELEASE or (verb is Verb.HOLD and now.held_by == job))
    return Word.DONE if is_done else None


def _items_read_back(
    driver: QueueDriver, instance: InstanceFacts, operation: QuarantineRestore | QuarantineErase
) -> Steps[Result]:
    """Where the items of a restore or an erase are now: in the queue, still in quarantine, or gone."""
    by_id = {item.queue_id: item for item in operation.items}
    wanted = {name: fingerprint(item) for name, item in by_id.items()}
    jobs = jobs_of(driver, instance, operation.items)
    outcomes = Outcomes()
    if isinstance(operation, QuarantineErase):
        there = yield from _lying_of_all(driver, instance, Verb.ERASE, jobs)
        placed = yield from placed_in_queue(driver.queue, instance, wanted)
        notes = (*placed.notes, *there.notes)
        outcomes.put(by_id, MessageState.DONE)
        outcomes.put(placed.queued, MessageState.ALREADY_GONE)  # put back by others: nothing was erased
        outcomes.put(there.places, MessageState.LEFT)
    else:
        steps = partial(_lying_of_all, driver, instance, Verb.PUT_BACK, jobs)
        placed = yield from placed_by_restore(driver.queue, instance, wanted, steps)
        queued, notes = placed.queued, placed.notes
        outcomes.put(by_id, MessageState.ALREADY_GONE)
        outcomes.put((*placed.lying, *queued), MessageState.LEFT)
        outcomes.put((name for name, entry in queued.items() if driver.is_back(by_id[name], entry)), MessageState.DONE)
    chosen = Chosen((), len(placed.queued), notes=tuple(dict.fromkeys(notes)))
    return result_of(chosen, outcomes, after=evidence(placed.queued, tuple(by_id)))


def _lying_of_all(driver: QueueDriver, instance: InstanceFacts, verb: Verb, jobs: Jobs) -> Steps[Reported]:
    places: dict[str, str] = {}
    notes: list[str] = []
    for job, items in jobs.items():
        wanted = {each.queue_id: fingerprint(each) for each in items}
        there = yield from driver.lying(instance, job, verb, wanted)
        places |= {name: there.places[name] for name in wanted if name in there.places}
        notes += there.notes
    return Reported(places=places, notes=tuple(notes))
