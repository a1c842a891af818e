"""How messages are changed.

smtpctl says "paused" and "removed" of an envelope in flight too, which is delivered all the same (trap 2). The scripts
leave such messages alone, and what they did is looked at again.
"""

from collections.abc import Iterable
from functools import partial

from fleet.mta.errors import FleetError, OutcomeUnknown, UnparsedOutput
from fleet.mta.host.commands import chunks, script_argv
from fleet.mta.opensmtpd.commands import ACT, LOT, QUARANTINE, UNTOUCHED, act, places, smtpctl_argv
from fleet.mta.opensmtpd.parse import error_of
from fleet.mta.opensmtpd.quarantine import look, place, script
from fleet.mta.opensmtpd.queue import QUEUE
from fleet.mta.operations import ChangesMessages
from fleet.mta.queue.driver import Act, QueueDriver, Said
from fleet.mta.queue.outcome import Chosen, Verb, Word, names, same
from fleet.mta.records import Context, InstanceFacts, QueueEntry
from fleet.mta.steps import Steps, run

SKIPPED = "messages that are being delivered (inflight) are left alone"
FORGETS = "smtpd keeps a pause in memory only: its next restart releases every paused message"
RESTS = "smtpd may wait for up to 30 s before the attempts: a route rests after a temporary failure"


def action_of(instance: InstanceFacts, verb: Verb, operation: ChangesMessages, context: Context, chosen: Chosen) -> Act:
    """Paused, resumed, scheduled: never by `smtpctl schedule all`, which delivers what is paused too.

    Of what is taken away the message file goes first, so that what is not in flight then stays undelivered.
    """
    entries = chosen.entries
    match verb:
        case Verb.HOLD:
            command = smtpctl_argv(instance, "pause", "envelope", "MESSAGE_ID")
            return Act([command], partial(_said, instance, "pause", entries), [SKIPPED, FORGETS])
        case Verb.RELEASE:
            command = smtpctl_argv(instance, "resume", "envelope", "MESSAGE_ID")
            return Act([command], partial(_said, instance, "resume", entries))
        case Verb.ATTEMPT:
            command = smtpctl_argv(instance, "schedule", "MESSAGE_ID")
            return Act([command], partial(_attempted, instance, entries), [RESTS])
    is_delete = verb is Verb.DELETE
    action = "delete" if is_delete else "out"
    return Act(
        [script_argv(QUARANTINE, *places(instance), action), smtpctl_argv(instance, "remove", "MESSAGE_ID")],
        partial(_taken, instance, action, context.job, entries),
        [SKIPPED],
        look=None if is_delete else partial(look, instance, context.job),
    )


def _said(instance: InstanceFacts, action: str, entries: Iterable[QueueEntry]) -> Steps[Said]:
    return Said(dict.fromkeys((yield from _act(instance, action, entries)), Word.DONE))


def _attempted(instance: InstanceFacts, entries: tuple[QueueEntry, ...]) -> Steps[Said]:
    """What is in flight before or afterwards is being attempted."""
    said = set((yield from _act(instance, "schedule", entries)))
    now = yield from QUEUE.proof(instance, names(entries))
    for entry in entries:
        current = same(now, entry)
        if current and "active" in (entry.state, current.state):
            said.add(entry.queue_id)
    return Said(dict.fromkeys(said, Word.DONE), now)


def _taken(instance: InstanceFacts, action: str, job: str, entries: Iterable[QueueEntry]) -> Steps[Said]:
    moved = yield from script(instance, action, job, _lines(entries))
    words = dict.fromkeys(moved.busy, Word.BUSY)
    if action == "out":
        return Said(words, places={name: place(instance, job, name) for name in moved.there})
    # Of a deleted one that still lies there, something could not be removed.
    return Said(words | dict.fromkeys(moved.gone, Word.DONE) | dict.fromkeys(moved.there, Word.LEFT))


def _act(instance: InstanceFacts, action: str, entries: Iterable[QueueEntry]) -> Steps[frozenset[str]]:
    """One script for each lot. Returns the IDs of which smtpctl says that it changed an envelope.

    Raises what the first lot raises; once something may be changed, OutcomeUnknown.
    """
    said: set[str] = set()
    for lot in chunks(_lines(entries), LOT):
        done = yield from run(act(instance, action, lot))
        try:
            said |= _ids(done.stdout, done.exit_status)
        except UnparsedOutput as error:
            failure: FleetError = error_of(done, ACT) if done.exit_status else error
            if said or done.exit_status not in UNTOUCHED:
                raise OutcomeUnknown(f"some messages were changed, and then: {failure.detail}") from failure
            raise failure from error
    return frozenset(said)


def _ids(stdout: bytes, exit_status: int) -> set[str]:
    lines = stdout.decode("ascii", "replace").split("\n")
    if exit_status or lines[-2:] != ["end", ""]:
        raise UnparsedOutput(f"{ACT} did not come to its end")
    return set(lines[:-2])


def _lines(entries: Iterable[QueueEntry]) -> list[str]:
    """What names a message to a script: smtpd draws IDs by lot, and the time of creation tells two apart."""
    return [f"{entry.queue_id} {int(entry.arrival_time)}" for entry in entries]


DRIVER = QueueDriver(QUEUE, action_of)
