"""Messages in the host's quarantine, the flows of all MTAs: put back into the queue, or erased."""

from collections.abc import Iterable, Mapping
from itertools import groupby

from fleet.mta.operations import Quarantined, QuarantineErase, QuarantineRestore
from fleet.mta.queue.driver import Jobs, Move, QueueDriver, Reported
from fleet.mta.queue.outcome import (
    SHOWN,
    Chosen,
    Outcomes,
    Verb,
    Word,
    evidence,
    is_same,
    judge,
    plan_of,
    result_of,
    unless_changed,
)
from fleet.mta.records import Context, Fingerprint, InstanceFacts, MessageState, QueueEntry, Result
from fleet.mta.results.changing import MoreOfChanges
from fleet.mta.steps import Steps


def fingerprint(item: Quarantined) -> Fingerprint:
    """What the message is named by in the queue."""
    return Fingerprint(item.queue_id, item.arrival_time, item.sender, item.size, item.state)


def jobs_of(driver: QueueDriver, instance: InstanceFacts, items: Iterable[Quarantined]) -> Jobs:
    """The items by the job that put them there. Raises Conflict for a place that is none of this instance."""

    def job_of(item: Quarantined) -> str:
        return driver.layout.job_of(instance, item.place, item.queue_id)

    ordered = sorted(items, key=lambda item: (job_of(item), item.queue_id))
    return {job: list(group) for job, group in groupby(ordered, key=job_of)}


@unless_changed
def restore(
    driver: QueueDriver, instance: InstanceFacts, operation: QuarantineRestore, context: Context
) -> Steps[Result]:
    """`quarantine.restore`: back into the queue, seen there, and attempted unless it was held before.

    Undoing a purge attempts nothing: the message waits for its time as it did.
    """
    by_id = {item.queue_id: item for item in operation.items}
    requested = tuple(by_id)
    before = _same_of((yield from driver.queue.lookup(instance, by_id)), by_id)
    jobs = jobs_of(driver, instance, operation.items)
    move = driver.move(instance, Verb.PUT_BACK, context, jobs)
    yield plan_of(_as_chosen(operation.items), context, move.commands, move.notes)
    reported = yield from _of_all_jobs(move, jobs)
    now = yield from driver.queue.proof(instance, by_id)
    queued = _same_of(now, by_id)
    settled = (yield from move.settle(queued, reported)) if move.settle else Reported()
    words = {**reported.words, **settled.words}
    outcomes = Outcomes()
    for name in requested:
        back = None if settled.words.get(name) is Word.LEFT else queued.get(name)
        state = judge(Verb.PUT_BACK, back, words.get(name), is_lying=name in reported.places or name in now)
        if state is not None:
            outcomes.states[name] = state
    notes = (*reported.notes, *settled.notes, *_missing(outcomes))
    chosen = Chosen((), len(before), notes=tuple(dict.fromkeys(notes)))
    seen, after = evidence(before, requested), evidence(now, requested)
    return reported.applied(result_of(chosen, outcomes, before=seen, after=after, more=reported.data))


@unless_changed
def erase(driver: QueueDriver, instance: InstanceFacts, operation: QuarantineErase, context: Context) -> Steps[Result]:
    """`quarantine.erase`: removed for good. Done is what lay there before and does not afterwards."""
    jobs = jobs_of(driver, instance, operation.items)
    move = driver.move(instance, Verb.ERASE, context, jobs)
    yield plan_of(_as_chosen(operation.items), context, move.commands, move.notes)
    outcomes = Outcomes()
    notes: list[str] = []
    for job, items in jobs.items():
        before = yield from driver.lying(
            instance, job, Verb.ERASE, {each.queue_id: fingerprint(each) for each in items}
        )
        reported = yield from move.run(job, items)
        notes += (*before.notes, *reported.notes)
        for name in (item.queue_id for item in items):
            state = judge(Verb.ERASE, None, reported.words.get(name), is_lying=name in reported.places)
            outcomes.put([name], MessageState.ALREADY_GONE)
            if state is not None and name in before.places:
                outcomes.put([name], state)
    return result_of(Chosen((), 0, notes=tuple(dict.fromkeys(notes))), outcomes)


def _missing(outcomes: Outcomes) -> tuple[str, ...]:
    """The sentence about what lies nowhere: it went by another hand, and may have been delivered since."""
    missing = outcomes.of(MessageState.ALREADY_GONE)
    if not missing:
        return ()
    return (f"neither in the quarantine nor in the queue: {len(missing)} ({' '.join(missing[:SHOWN])})",)


def _as_chosen(items: Iterable[Quarantined]) -> Chosen:
    """The items as messages of a plan."""
    entries = tuple(
        QueueEntry(item.queue_id, item.state, item.state, item.arrival_time, item.sender, (), item.size)
        for item in items
    )
    return Chosen(entries, len(entries))


def _same_of(now: Mapping[str, QueueEntry], by_id: Mapping[str, Quarantined]) -> dict[str, QueueEntry]:
    """What the queue holds `now` of the items: under its ID, and the same message."""
    return {name: entry for name, entry in now.items() if is_same(entry, fingerprint(by_id[name]))}


def _of_all_jobs(move: Move, jobs: Jobs) -> Steps[Reported]:
    """What was reported of all, as one."""
    whole = Reported()
    for job, items in jobs.items():
        reported = yield from move.run(job, items)
        here = {each.queue_id: reported.places[each.queue_id] for each in items if each.queue_id in reported.places}
        data: MoreOfChanges = {**whole.data, **reported.data}
        if "reasons" in reported.data:
            data["reasons"] = {**whole.data.get("reasons", {}), **reported.data["reasons"]}
        whole = Reported(
            {**whole.words, **reported.words},
            places={**whole.places, **here},
            data=data,
            notes=(*whole.notes, *reported.notes),
            error=whole.error or reported.error,
        )
    return whole
