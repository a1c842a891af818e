"""Messages in the host's quarantine, what is the same on every MTA: naming them, finding them again."""

from collections.abc import Callable, Collection, Iterable, Mapping
from itertools import groupby
from pathlib import PurePosixPath

from fleet.mta.errors import Conflict
from fleet.mta.operations import Quarantined
from fleet.mta.queue.listing import Queue
from fleet.mta.queue.outcome import Chosen, Outcomes, evidence, is_same, result_of
from fleet.mta.records import Fingerprint, InstanceFacts, MessageState, QueueEntry, Result
from fleet.mta.steps import Steps


def fingerprint(item: Quarantined) -> Fingerprint:
    """What the message is named by in the queue."""
    return Fingerprint(item.queue_id, item.arrival_time, item.sender, item.size, item.state)


def as_chosen(items: Iterable[Quarantined]) -> Chosen:
    """The items as messages of a plan."""
    entries = tuple(
        QueueEntry(item.queue_id, item.state, item.state, item.arrival_time, item.sender, (), item.size)
        for item in items
    )
    return Chosen(entries, len(entries))


def queued_of(queue: Queue, instance: InstanceFacts, items: Iterable[Quarantined]) -> Steps[dict[str, QueueEntry]]:
    """Those of the items that the queue holds right now."""
    by_id = {item.queue_id: item for item in items}
    now = yield from queue.lookup(instance, by_id)
    return seen_again(now, by_id)


def by_job(
    instance: InstanceFacts,
    items: Iterable[Quarantined],
    place_of: Callable[[str, str], str],
    job_of: Callable[[str], str] = lambda place: PurePosixPath(place).parent.name,
) -> list[tuple[str, list[str]]]:
    """The queue IDs of the items by the job that put them there.

    `place_of`: where a job and a queue ID lie on this instance; `job_of`: the job in a place, its parent directory
    where nothing else is said. Raises Conflict for a place that is none of this instance.
    """
    found = []
    for item in items:
        job = job_of(item.place)
        if item.place != place_of(job, item.queue_id):
            raise Conflict(f"{item.place} is no quarantine of {instance.id}")
        found.append((job, item.queue_id))
    return [(job, [name for _, name in group]) for job, group in groupby(sorted(found), key=lambda pair: pair[0])]


def seen_again(now: Mapping[str, QueueEntry], by_id: Mapping[str, Quarantined]) -> dict[str, QueueEntry]:
    """What the queue holds `now` of the items: under its ID, and the same message."""
    return {name: entry for name, entry in now.items() if is_same(entry, fingerprint(by_id[name]))}


def restored(
    by_id: Mapping[str, Quarantined],
    before: Mapping[str, QueueEntry],
    now: Mapping[str, QueueEntry],
    still_there: Collection[str],
    notes: tuple[str, ...] = (),
) -> Result:
    """The result of a restore: done is what the queue holds again, left what lies in quarantine or has a taken ID."""
    outcomes = Outcomes()
    outcomes.put(by_id, MessageState.ALREADY_GONE)
    outcomes.put((name for name in by_id if name in still_there or name in now), MessageState.LEFT)
    outcomes.put(seen_again(now, by_id), MessageState.DONE)
    asked = tuple(by_id)
    chosen = Chosen((), len(before), notes=notes)
    return result_of(chosen, outcomes, before=evidence(before, asked), after=evidence(now, asked))
