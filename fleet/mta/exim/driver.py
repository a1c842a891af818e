"""How messages are changed. Exim locks a message before it changes it and refuses one that is being delivered.

The quarantine is a named queue per job (spec, "queue_name"). Exim moves a message there and back by hard links under
its own lock, so that its files keep every byte; no queue run, no -bp and no -M looks there.
"""

from collections.abc import Mapping, Sequence
from functools import partial

from fleet.mta.errors import UnparsedOutput, Unsupported
from fleet.mta.exim.commands import attempt, bounce, change, change_argv, program, quarantine
from fleet.mta.exim.parse import Verdicts, queue_id_error
from fleet.mta.exim.queue import QUEUE, read_queue
from fleet.mta.operations import ChangesMessages, Quarantined, QueueBounce
from fleet.mta.queue.driver import Act, Jobs, Move, QueueDriver, Reported, Wanted
from fleet.mta.queue.in_quarantine import Layout
from fleet.mta.queue.listing import StreamedEntry
from fleet.mta.queue.outcome import Chosen, Verb, Word, is_same, names
from fleet.mta.queue.quarantine import fingerprint
from fleet.mta.records import Context, InstanceFacts, QueueEntry
from fleet.mta.steps import Steps

SKIPPED = "messages that are being delivered are locked by Exim and left alone"
DROPPED = "a message from <> is dropped: there is nobody to return it to"
MOVES = "quarantine is a named queue of Exim; spool files and message log keep every byte, on the way back too"
PREFIX = "mxfleet-"
READABLE = frozenset({Verb.HOLD, Verb.RELEASE, Verb.DELETE, Verb.TAKE_OUT, Verb.BOUNCE})
FLAGS = {Verb.HOLD: "-Mf", Verb.RELEASE: "-Mt", Verb.DELETE: "-Mrm", Verb.BOUNCE: "-Mg"}


def check(instance: InstanceFacts, verb: Verb, operation: ChangesMessages) -> None:
    """Raises Unsupported for a bounce without notice."""
    if isinstance(operation, QueueBounce) and not operation.notify:
        raise Unsupported("Exim always sends the notice", hint="purge the messages instead")


def act(instance: InstanceFacts, verb: Verb, operation: ChangesMessages, context: Context, chosen: Chosen) -> Act:
    """Frozen, thawed, removed, moved to a named queue of the job where no queue run looks, given up (-Mg), attempted.

    An attempt is a queue run for each message (-qf ID ID): -R takes substrings.
    """
    ids = names(chosen.entries)
    if verb is Verb.ATTEMPT:
        return Act([(program(instance), "-qf", "ID", "ID")], partial(_from_verdicts, attempt(instance, ids)))
    if verb is Verb.TAKE_OUT:
        return _take_out(instance, context.job, chosen)
    commands = [change_argv(instance, FLAGS[verb])]
    if verb is Verb.BOUNCE:
        return Act(commands, partial(_from_verdicts, bounce(instance, ids)), [SKIPPED, DROPPED])
    notes = {Verb.HOLD: [SKIPPED, *frozen_notes(instance)], Verb.DELETE: [SKIPPED]}
    return Act(commands, partial(_from_verdicts, change(instance, FLAGS[verb], ids)), notes.get(verb, []))


def _take_out(instance: InstanceFacts, job: str, chosen: Chosen) -> Act:
    return Act(
        [(program(instance), "-MG", PREFIX + short(job), "ID...")],
        partial(_from_verdicts, quarantine(instance, "out", short(job), names(chosen.entries))),
        [SKIPPED, MOVES],
        looks_again=True,
    )


def _from_verdicts(steps: Steps[Verdicts]) -> Steps[Reported]:
    verdicts = yield from steps
    return Reported(dict.fromkeys(verdicts.changed, Word.DONE) | dict.fromkeys(verdicts.locked, Word.BUSY))


def frozen_notes(instance: InstanceFacts) -> list[str]:
    """What Exim does to frozen messages by itself."""
    limit = str(instance.options.get("timeout_frozen_after", "0s"))
    if limit in {"0s", "", "0"}:
        return []
    return [
        f"timeout_frozen_after is {limit}: a frozen message that has been queued longer than that is given up at the "
        "next queue run: a bounce is deleted, other mail is returned to its sender; quarantine keeps it longer"
    ]


def short(job: str) -> str:
    """The job's part of its queue's name: of a UUID the last 24 digits, most of them random.

    Since 4.98.2 Exim takes messages into a queue with a longer name than 32 characters, and none out of it.
    """
    return job.replace("-", "")[-24:]


LAYOUT = Layout(
    "input/(?:[0-9A-Za-z]/)?(?P<id>[^/]+)-H",
    queue_id_error,
    top=PREFIX,
    inner="input/",
    job="(?P<job>[0-9a-f]{24})",
    name_of=short,
)


def lying(instance: InstanceFacts, job: str, verb: Verb, wanted: Wanted) -> Steps[Reported]:
    """By fingerprint, and with a recipient left. Exim links before it removes, so no lock is needed to look.

    Where Exim was killed in the middle of a move and then delivered the message from the main queue, the message log,
    which both queues share, tells that it is done.
    """
    entries: dict[str, QueueEntry] = {}

    def take(message: StreamedEntry) -> None:
        if message.queue_id in wanted and any(each.state != "delivered" for each in message.recipients):
            entries[message.queue_id] = message.entry()

    listing = yield from read_queue(instance, take, PREFIX + short(job))
    if listing.refused:
        raise UnparsedOutput(listing.notes[-1])
    there = (name for name, entry in entries.items() if is_same(entry, wanted[name]))
    return Reported(places=LAYOUT.places(instance, job, there))


def move(instance: InstanceFacts, verb: Verb, context: Context, jobs: Jobs) -> Move:
    """Back into the main queue, then an attempt of what came and is not frozen."""
    exim, *remove = change_argv(instance, "-Mrm")
    words, run = (remove, _erased) if verb is Verb.ERASE else (["-MG", "", "ID..."], _brought_back)
    commands = [(exim, f"-qG{PREFIX}{job}", *words) for job in jobs]
    settle = None if verb is Verb.ERASE or context.undo else partial(_attempt_free, instance)
    return Move(commands, partial(run, instance), settle=settle)


def _brought_back(instance: InstanceFacts, job: str, items: Sequence[Quarantined]) -> Steps[Reported]:
    wanted = {item.queue_id: fingerprint(item) for item in items}
    before = yield from lying(instance, job, Verb.PUT_BACK, wanted)
    yield from quarantine(instance, "back", job, before.places)
    after = yield from lying(instance, job, Verb.PUT_BACK, wanted)
    return Reported(dict.fromkeys(before.places.keys() - after.places.keys(), Word.DONE), places=after.places)


def _erased(instance: InstanceFacts, job: str, items: Sequence[Quarantined]) -> Steps[Reported]:
    yield from quarantine(instance, "erase", job, (item.queue_id for item in items))
    return (yield from lying(instance, job, Verb.ERASE, {item.queue_id: fingerprint(item) for item in items}))


def _attempt_free(instance: InstanceFacts, queued: Mapping[str, QueueEntry], reported: Reported) -> Steps[Reported]:
    yield from attempt(
        instance, [name for name, each in queued.items() if each.state == "deferred" and name in reported.words]
    )
    return Reported()


DRIVER = QueueDriver(QUEUE, act, LAYOUT, lying, move, frozenset(Verb) - {Verb.REQUEUE}, check, readable=READABLE)
