"""Messages in the host's quarantine, what is the same on every MTA: naming them, finding them again."""

from collections.abc import Callable, Iterable
from itertools import groupby
from pathlib import PurePosixPath

from fleet.mta.changed import Chosen, is_same
from fleet.mta.errors import Conflict
from fleet.mta.operations import Quarantined
from fleet.mta.reading import Queue
from fleet.mta.types import Fingerprint, InstanceFacts, QueueEntry, Steps


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
    return {name: entry for name, entry in now.items() if is_same(entry, fingerprint(by_id[name]))}


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
