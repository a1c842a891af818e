"""How messages are changed: each by one rename or removal, which fails where the daemon has renamed the file itself.

The quarantine is a directory for each job below the queue directory, where the daemon does not look.
"""

from collections.abc import Sequence
from dataclasses import replace
from functools import partial

from fleet.mta.operations import ChangesMessages, Quarantined
from fleet.mta.queue.driver import Act, Jobs, Move, QueueDriver, Reported, Wanted
from fleet.mta.queue.in_quarantine import Layout
from fleet.mta.queue.outcome import Chosen, Verb, is_same, names
from fleet.mta.queue.quarantine import fingerprint
from fleet.mta.records import Context, InstanceFacts
from fleet.mta.steps import Steps
from tests.toy.commands import change, change_argv
from tests.toy.parse import queue_id_error
from tests.toy.queue import QUEUE, read_queue

LAYOUT = Layout(r"(?P<id>[^/.]+)(?:\.held)?", queue_id_error)
SKIPPED = "messages that are being delivered have another name and are left alone"
ACTIONS = {
    Verb.HOLD: "hold",
    Verb.RELEASE: "release",
    Verb.DELETE: "delete",
    Verb.TAKE_OUT: "out",
    Verb.PUT_BACK: "back",
    Verb.ERASE: "erase",
}


def act(instance: InstanceFacts, verb: Verb, operation: ChangesMessages, context: Context, chosen: Chosen) -> Act:
    action, is_out = ACTIONS[verb], verb is Verb.TAKE_OUT
    run = partial(change, instance, action, names(chosen.entries), context.job if is_out else "")
    return Act([change_argv(instance, action)], run, [SKIPPED], looks_again=is_out)


def lying(instance: InstanceFacts, job: str, verb: Verb, wanted: Wanted) -> Steps[Reported]:
    """One rename moves a message, so no lock is needed to look."""
    there = yield from replace(QUEUE, read=partial(read_queue, job=job)).lookup(instance, wanted)
    same = (name for name, entry in there.items() if is_same(entry, wanted[name]))
    return Reported(places=LAYOUT.places(instance, job, same))


def move(instance: InstanceFacts, verb: Verb, context: Context, jobs: Jobs) -> Move:
    """Back in the queue, held if it was."""
    return Move([change_argv(instance, ACTIONS[verb])], partial(_moved, instance, verb))


def _moved(instance: InstanceFacts, verb: Verb, job: str, items: Sequence[Quarantined]) -> Steps[Reported]:
    yield from change(instance, ACTIONS[verb], (item.queue_id for item in items), job)
    return (yield from lying(instance, job, verb, {item.queue_id: fingerprint(item) for item in items}))


DRIVER = QueueDriver(QUEUE, act, LAYOUT, lying, move, frozenset(ACTIONS))
