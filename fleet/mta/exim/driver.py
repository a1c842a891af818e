"""How messages are changed. Exim locks a message before it changes it and refuses one that is being delivered."""

from collections.abc import Iterable
from functools import partial

from fleet.mta.errors import Unsupported
from fleet.mta.exim import quarantine
from fleet.mta.exim.commands import attempt, bounce, change, change_argv, program
from fleet.mta.exim.parse import Verdicts
from fleet.mta.exim.queue import QUEUE
from fleet.mta.operations import ChangesMessages, QueueBounce
from fleet.mta.queue.driver import Act, QueueDriver, Said
from fleet.mta.queue.outcome import Chosen, Verb, Word, fingerprint_of, names
from fleet.mta.records import Context, InstanceFacts
from fleet.mta.steps import Steps

SKIPPED = "messages that are being delivered are locked by Exim and left alone"
DROPPED = "a message from <> is dropped: there is nobody to return it to"
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
        return Act([(program(instance), "-qf", "ID", "ID")], partial(_told, attempt(instance, ids)))
    if verb is Verb.TAKE_OUT:
        return _take_out(instance, context.job, chosen)
    commands = [change_argv(instance, FLAGS[verb])]
    if verb is Verb.BOUNCE:
        return Act(commands, partial(_told, bounce(instance, ids)), [SKIPPED, DROPPED])
    notes = {Verb.HOLD: [SKIPPED, *frozen_notes(instance)], Verb.DELETE: [SKIPPED]}
    return Act(commands, partial(_said, change(instance, FLAGS[verb], ids)), notes.get(verb, []))


def _take_out(instance: InstanceFacts, job: str, chosen: Chosen) -> Act:
    return Act(
        [(program(instance), "-MG", quarantine.PREFIX + quarantine.short(job), "ID...")],
        partial(_said, quarantine.move_out(instance, job, names(chosen.entries))),
        [SKIPPED, quarantine.NOTE],
        look=partial(quarantine.look, instance, job, [fingerprint_of(entry) for entry in chosen.entries]),
    )


def _said(steps: Steps[Verdicts]) -> Steps[Said]:
    said = yield from steps
    return Said(_words(said.changed, said.locked))


def _told(steps: Steps[frozenset[str]]) -> Steps[Said]:
    return Said(_words((yield from steps), ()))


def _words(done: Iterable[str], busy: Iterable[str]) -> dict[str, Word]:
    return dict.fromkeys(done, Word.DONE) | dict.fromkeys(busy, Word.BUSY)


def frozen_notes(instance: InstanceFacts) -> list[str]:
    """What Exim does to frozen messages by itself."""
    limit = str(instance.options.get("timeout_frozen_after", "0s"))
    if limit in {"0s", "", "0"}:
        return []
    return [
        f"timeout_frozen_after is {limit}: a frozen message that has been queued longer than that is given up at the "
        "next queue run: a bounce is deleted, other mail is returned to its sender; quarantine keeps it longer"
    ]


DRIVER = QueueDriver(QUEUE, act, check)
