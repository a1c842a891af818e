"""How messages are changed: each by one rename or removal, which fails where the daemon has renamed the file itself.

The quarantine is a directory for each job below the queue directory, where the daemon does not look.
"""

import re
from collections.abc import Iterable
from dataclasses import replace
from functools import partial

from fleet.mta.operations import ChangesMessages, Operation, QuarantineErase, QuarantineRestore
from fleet.mta.queue import readback
from fleet.mta.queue.driver import Act, QueueDriver
from fleet.mta.queue.in_quarantine import JOB, Shape, find
from fleet.mta.queue.outcome import Chosen, Outcomes, Verb, fingerprint_of, is_same, names, plan_of, result_of
from fleet.mta.queue.quarantine import as_chosen, by_job, fingerprint, queued_of, restored
from fleet.mta.records import Context, Fingerprint, InQuarantine, InstanceFacts, MessageState, Result
from fleet.mta.steps import Steps
from tests.toy.commands import change, change_argv
from tests.toy.parse import queue_id_error
from tests.toy.queue import QUEUE, read_queue

TOP = "mxfleet-quarantine"
SKIPPED = "messages that are being delivered have another name and are left alone"
ACTIONS = {Verb.HOLD: "hold", Verb.RELEASE: "release", Verb.DELETE: "delete", Verb.TAKE_OUT: "out"}


def act(instance: InstanceFacts, verb: Verb, operation: ChangesMessages, context: Context, chosen: Chosen) -> Act:
    action, is_out = ACTIONS[verb], verb is Verb.TAKE_OUT
    run = partial(change, instance, action, names(chosen.entries), context.job if is_out else "")
    wanted = [fingerprint_of(entry) for entry in chosen.entries]
    look_again = partial(look, instance, context.job, wanted) if is_out else None
    return Act([change_argv(instance, action)], run, [SKIPPED], look_again)


def look(instance: InstanceFacts, job: str, wanted: Iterable[Fingerprint]) -> Steps[dict[str, str]]:
    """The places of those of the messages that lie in the quarantine of this job."""
    by_id = {each.queue_id: each for each in wanted}
    there = yield from replace(QUEUE, read=partial(read_queue, job=job)).lookup(instance, by_id)
    return {name: place(instance, job, name) for name, entry in there.items() if is_same(entry, by_id[name])}


def place(instance: InstanceFacts, job: str, queue_id: str) -> str:
    return f"{instance.queue_dirs[0]}/{TOP}/{job}/{queue_id}"


def quarantine_restore(instance: InstanceFacts, operation: QuarantineRestore, context: Context) -> Steps[Result]:
    """`quarantine.restore`: back in the queue, held if it was."""
    by_id = {item.queue_id: item for item in operation.items}
    before = yield from queued_of(QUEUE, instance, operation.items)
    jobs = by_job(instance, operation.items, partial(place, instance))
    yield plan_of(as_chosen(operation.items), context, [change_argv(instance, "back")])
    left: dict[str, str] = {}
    for job, ids in jobs:
        yield from change(instance, "back", ids, job)
        left |= yield from look(instance, job, [fingerprint(by_id[each]) for each in ids])
    return restored(by_id, before, (yield from QUEUE.proof(instance, by_id)), left)


def quarantine_erase(instance: InstanceFacts, operation: QuarantineErase, context: Context) -> Steps[Result]:
    """`quarantine.erase`: removed for good; done is what the script removed and is not there any more."""
    by_id = {item.queue_id: fingerprint(item) for item in operation.items}
    jobs = by_job(instance, operation.items, partial(place, instance))
    yield plan_of(as_chosen(operation.items), context, [change_argv(instance, "erase")])
    outcomes = Outcomes()
    outcomes.put(by_id, MessageState.ALREADY_GONE)
    for job, ids in jobs:
        there = yield from look(instance, job, [by_id[each] for each in ids])
        said = yield from change(instance, "erase", there, job)
        outcomes.put(said.words, MessageState.DONE)
        outcomes.put((yield from look(instance, job, [by_id[each] for each in ids])), MessageState.LEFT)
    return result_of(Chosen((), 0), outcomes)


def in_quarantine(instance: InstanceFacts) -> Steps[InQuarantine]:
    """All that lies there, whoever put it there."""
    path = re.compile(rf"{TOP}/{JOB}/(?P<id>[^/.]+)(?:\.held)?")
    shape = Shape(path, lambda _, *mail: place(instance, *mail), queue_id_error, instance.queue_dirs.__contains__)
    return (yield from find(instance, instance.queue_dirs, shape))


def read_back(instance: InstanceFacts, operation: Operation, context: Context) -> Steps[Result | None]:
    """After an unknown outcome. One rename moves a message, so no lock is needed to look."""
    if isinstance(operation, QuarantineRestore | QuarantineErase):
        look_in = partial(look, instance, wanted=[fingerprint(item) for item in operation.items])
        jobs = by_job(instance, operation.items, partial(place, instance))
        return (yield from readback.read_back_items(QUEUE, instance, operation, jobs, look_in))
    if not isinstance(operation, ChangesMessages) or context.frozen is None:
        return None
    wanted = {each.queue_id: each for each in context.frozen}
    if not readback.is_quarantine(operation):
        return readback.told(operation, wanted, (yield from readback.placed_in_queue(QUEUE, instance, wanted)))
    there = partial(look, instance, context.job, context.frozen)
    return readback.told(operation, wanted, (yield from readback.placed_by_purge(QUEUE, instance, wanted, there)))


DRIVER = QueueDriver(QUEUE, act)
