"""The host's quarantine: a named queue per job (spec, "queue_name"). Exim moves a message there and back by hard links
under its own lock, so that its files keep every byte; no queue run, no -bp and no -M looks there.
"""

import re
from collections.abc import Iterable
from functools import partial

from fleet.mta.errors import UnparsedOutput
from fleet.mta.exim import commands
from fleet.mta.exim.commands import attempt, change_argv, program, spool
from fleet.mta.exim.parse import Verdicts, queue_id_error
from fleet.mta.exim.queue import QUEUE, read_queue
from fleet.mta.operations import Quarantined, QuarantineErase, QuarantineRestore
from fleet.mta.queue import readback
from fleet.mta.queue.in_quarantine import Shape, find
from fleet.mta.queue.listing import Listed
from fleet.mta.queue.outcome import Chosen, Outcomes, is_same, plan_of, result_of
from fleet.mta.queue.quarantine import as_chosen, by_job, fingerprint, queued_of, restored, seen_again
from fleet.mta.records import Context, Fingerprint, InQuarantine, InstanceFacts, MessageState, QueueEntry, Result
from fleet.mta.steps import Steps

PREFIX = "mxfleet-"
NOTE = "quarantine is a named queue of Exim; spool files and message log keep every byte, on the way back too"


def short(job: str) -> str:
    """The job's part of its queue's name: of a UUID the last 24 digits, most of them random.

    Since 4.98.2 Exim takes messages into a queue with a longer name than 32 characters, and none out of it.
    """
    return job.replace("-", "")[-24:]


def move_out(instance: InstanceFacts, job: str, queue_ids: Iterable[str]) -> Steps[Verdicts]:
    """Moves messages to the quarantine of this job. Raises what Exim says."""
    return (yield from commands.quarantine(instance, "out", short(job), queue_ids))


def lying(instance: InstanceFacts, job: str) -> Steps[dict[str, QueueEntry]]:
    """What lies in the quarantine of this job and has a recipient left. Changes nothing.

    Where Exim was killed in the middle of a move and then delivered the message from the main queue, the message log,
    which both queues share, tells that it is done.
    """
    found: dict[str, QueueEntry] = {}

    def take(message: Listed) -> None:
        if any(each.state != "delivered" for each in message.recipients):
            found[message.queue_id] = message.entry()

    listing = yield from read_queue(instance, take, PREFIX + job)
    if listing.refused:
        raise UnparsedOutput(listing.notes[-1])
    return found


def look(instance: InstanceFacts, job: str, wanted: Iterable[Fingerprint]) -> Steps[dict[str, str]]:
    """The places of those of the messages that lie in the quarantine of this job."""
    job = short(job)
    there = yield from lying(instance, job)
    return {
        each.queue_id: _place(instance, job, each.queue_id)
        for each in wanted
        if each.queue_id in there and is_same(there[each.queue_id], each)
    }


def quarantine_restore(instance: InstanceFacts, operation: QuarantineRestore, context: Context) -> Steps[Result]:
    """`quarantine.restore`: back in the main queue, seen there, then attempted unless it was frozen.

    Undoing a purge attempts nothing: the message waits for its time as it did.
    """
    by_id = {item.queue_id: item for item in operation.items}
    before = yield from queued_of(QUEUE, instance, operation.items)
    jobs = _jobs(instance, operation.items)
    yield plan_of(
        as_chosen(operation.items),
        context,
        [(program(instance), f"-qG{PREFIX}{job}", "-MG", "", "ID...") for job, _ in jobs],
    )
    lying_before: set[str] = set()
    lying_after: set[str] = set()
    for job, names in jobs:
        there = _those((yield from lying(instance, job)), by_id, names)
        lying_before |= there
        yield from commands.quarantine(instance, "back", job, there)
        lying_after |= _those((yield from lying(instance, job)), by_id, names)
    now = yield from QUEUE.proof(instance, by_id)
    seen = seen_again(now, by_id)
    if not context.undo:  # an undo gives the state back that was, and that waited for its time
        yield from attempt(
            instance, [n for n, entry in seen.items() if entry.state == "deferred" and n in lying_before]
        )
    return restored(by_id, before, now, lying_after)


def quarantine_erase(instance: InstanceFacts, operation: QuarantineErase, context: Context) -> Steps[Result]:
    """`quarantine.erase`: the quarantined messages are removed for good."""
    by_id = {item.queue_id: item for item in operation.items}
    jobs = _jobs(instance, operation.items)
    exim, *rest = change_argv(instance, "-Mrm")
    yield plan_of(as_chosen(operation.items), context, [(exim, f"-qG{PREFIX}{job}", *rest) for job, _ in jobs])
    outcomes = Outcomes()
    for job, names in jobs:
        before = _those((yield from lying(instance, job)), by_id, names)
        yield from commands.quarantine(instance, "erase", job, names)
        left = _those((yield from lying(instance, job)), by_id, names)
        outcomes.put((name for name in names if name not in before), MessageState.ALREADY_GONE)
        outcomes.put((name for name in before if name not in left), MessageState.DONE)
        outcomes.put(left, MessageState.LEFT)
    return result_of(Chosen((), 0), outcomes)


def read_back_items(instance: InstanceFacts, operation: QuarantineRestore | QuarantineErase) -> Steps[Result]:
    """Where the items of a restore or an erase are now. Exim links before it removes, so no lock is needed to look."""
    by_id = {item.queue_id: item for item in operation.items}

    def look_in(job: str) -> Steps[dict[str, str]]:
        there = yield from lying(instance, job)
        return {name: by_id[name].place for name in _those(there, by_id, by_id)}

    jobs = _jobs(instance, operation.items)
    return (yield from readback.read_back_items(QUEUE, instance, operation, jobs, look_in))


def _those(there: dict[str, QueueEntry], by_id: dict[str, Quarantined], names: Iterable[str]) -> set[str]:
    return {name for name in names if name in there and is_same(there[name], fingerprint(by_id[name]))}


def _place(instance: InstanceFacts, job: str, queue_id: str) -> str:
    return f"{spool(instance)}/{PREFIX}{job}/input/{queue_id}"


def _job_of(instance: InstanceFacts, place: str) -> str:
    return place.removeprefix(f"{spool(instance)}/{PREFIX}").partition("/")[0]


def _jobs(instance: InstanceFacts, items: Iterable[Quarantined]) -> list[tuple[str, list[str]]]:
    return by_job(instance, items, partial(_place, instance), partial(_job_of, instance))


def in_quarantine(instance: InstanceFacts) -> Steps[InQuarantine]:
    """All that lies in named queues of ours; a -H file is what makes a message."""
    shape = Shape(
        path=re.compile(f"{PREFIX}(?P<job>[0-9a-f]{{24}})/input/(?:[0-9A-Za-z]/)?(?P<id>[^/]+)-H"),
        place=lambda directory, job, queue_id: _place(instance, job, queue_id),
        queue_id_error=queue_id_error,
        is_queue=lambda directory: directory == spool(instance),
    )
    return (yield from find(instance, (spool(instance),), shape))
