"""How messages are changed.

smtpctl says "paused" and "removed" of an envelope in flight too, which is delivered all the same (trap 2). The scripts
leave such messages alone, and what they did is looked at again.

In the quarantine lie message and envelopes, taken out of the spool and put back under the same ID, byte for byte.
`smtpctl discover` makes smtpd take up what lies in its queue, so nothing is sent through SMTP again: no new ID, no
further Received line, and a blocked sender does not stand in the way of his own mail.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import partial

from fleet.mta.errors import Conflict, FleetError, OutcomeUnknown, Unsupported
from fleet.mta.host.commands import batched, lines_of, script_argv
from fleet.mta.opensmtpd import commands
from fleet.mta.opensmtpd.commands import ACT, BACK_BATCH, BATCH, QUARANTINE, UNTOUCHED, act, places, smtpctl_argv
from fleet.mta.opensmtpd.parse import error_of, queue_id_error
from fleet.mta.opensmtpd.queue import QUEUE
from fleet.mta.operations import ChangesMessages, Quarantined
from fleet.mta.queue.driver import Act, Jobs, Move, QueueDriver, Reported, Wanted
from fleet.mta.queue.in_quarantine import Layout
from fleet.mta.queue.outcome import Chosen, Verb, Word, names, same
from fleet.mta.records import Context, InstanceFacts, QueueEntry
from fleet.mta.steps import Completed, Steps, run

SKIPPED = "messages that are being delivered (inflight) are left alone"
FORGETS = "smtpd keeps a pause in memory only: its next restart releases every paused message"
AGE = "a restored message keeps its age: one that is older than the queue's ttl is returned to its sender at once"
LAYOUT = Layout("(?P<id>[^/]+)/message", queue_id_error)
RESTS = "smtpd may wait for up to 30 s before the attempts: a route rests after a temporary failure"


def action_of(instance: InstanceFacts, verb: Verb, operation: ChangesMessages, context: Context, chosen: Chosen) -> Act:
    """Paused, resumed, scheduled: never by `smtpctl schedule all`, which delivers what is paused too.

    Of what is taken away the message file goes first, so that what is not in flight then stays undelivered.
    """
    entries = chosen.entries
    match verb:
        case Verb.HOLD:
            command = smtpctl_argv(instance, "pause", "envelope", "MESSAGE_ID")
            return Act([command], partial(_reported, instance, "pause", entries), [SKIPPED, FORGETS])
        case Verb.RELEASE:
            command = smtpctl_argv(instance, "resume", "envelope", "MESSAGE_ID")
            return Act([command], partial(_reported, instance, "resume", entries))
        case Verb.ATTEMPT:
            command = smtpctl_argv(instance, "schedule", "MESSAGE_ID")
            return Act([command], partial(_attempted, instance, entries), [RESTS])
    is_delete = verb is Verb.DELETE
    action = "delete" if is_delete else "out"
    return Act(
        [script_argv(QUARANTINE, *places(instance), action), smtpctl_argv(instance, "remove", "MESSAGE_ID")],
        partial(_taken, instance, action, context.job, entries),
        [SKIPPED],
        looks_again=not is_delete,
    )


def _reported(instance: InstanceFacts, action: str, entries: Iterable[QueueEntry]) -> Steps[Reported]:
    return Reported(dict.fromkeys((yield from _act(instance, action, entries)), Word.DONE))


def _attempted(instance: InstanceFacts, entries: tuple[QueueEntry, ...]) -> Steps[Reported]:
    """What is in flight before or afterwards is being attempted."""
    done = set((yield from _act(instance, "schedule", entries)))
    now = yield from QUEUE.proof(instance, names(entries))
    for entry in entries:
        current = same(now, entry)
        if current and "active" in (entry.state, current.state):
            done.add(entry.queue_id)
    return Reported(dict.fromkeys(done, Word.DONE), now)


def _taken(instance: InstanceFacts, action: str, job: str, entries: Sequence[QueueEntry]) -> Steps[Reported]:
    """Without those that were in flight when the queue was listed: the script takes a file before it looks."""
    in_flight = [entry.queue_id for entry in entries if entry.state == "active"]
    moved = yield from script(instance, action, job, _lines(entry for entry in entries if entry.state != "active"))
    words = dict.fromkeys((*in_flight, *moved.busy), Word.BUSY)
    if action == "out":
        return Reported(words, places=LAYOUT.places(instance, job, moved.there))
    # Of a deleted one that still lies there, something could not be removed.
    return Reported(words | dict.fromkeys(moved.gone, Word.DONE) | dict.fromkeys(moved.there, Word.LEFT))


def _act(instance: InstanceFacts, action: str, entries: Iterable[QueueEntry]) -> Steps[frozenset[str]]:
    """One script for each batch. Returns the IDs of which smtpctl says that it changed an envelope.

    Raises what the first batch raises; once something may be changed, OutcomeUnknown.
    """
    changed: set[str] = set()
    for batch in batched(_lines(entries), BATCH):
        done = yield from run(act(instance, action, batch))
        try:
            changed.update(lines_of(done, ACT, error_of))
        except FleetError as failure:
            if changed or done.exit_status not in UNTOUCHED:
                raise OutcomeUnknown(f"some messages were changed, and then: {failure.detail}") from failure
            raise
    return frozenset(changed)


def _lines(entries: Iterable[QueueEntry]) -> list[str]:
    """What names a message to a script: smtpd draws IDs by lot, and the time of creation tells two apart."""
    return [f"{entry.queue_id} {int(entry.arrival_time)}" for entry in entries]


@dataclass(frozen=True, slots=True)
class Moved:
    """Of opensmtpd_quarantine.sh. `there`: lies in the quarantine and not in the queue; `gone`: removed now."""

    there: frozenset[str]
    busy: frozenset[str]
    gone: frozenset[str]


def script(instance: InstanceFacts, action: str, job: str, lines: Iterable[str]) -> Steps[Moved]:
    """Runs opensmtpd_quarantine.sh for each batch.

    Raises Conflict, Unsupported, MtaNotRunning and others when nothing was changed, else OutcomeUnknown.
    """
    is_change = action != "look"
    has_changed = False
    there: set[str] = set()
    busy: set[str] = set()
    gone: set[str] = set()
    for batch in list(batched(lines, BACK_BATCH if action == "back" else BATCH)) or [()]:
        done = yield from run(commands.move(instance, action, job, batch))
        try:
            output = lines_of(done, QUARANTINE, _failure)
        except FleetError as error:
            if has_changed or (is_change and done.exit_status not in UNTOUCHED):
                raise OutcomeUnknown(f"it broke off: {error.detail}", cause=error.code) from error
            raise
        has_changed = is_change
        there = {line for line in output if " " not in line}  # each answer tells of the whole directory
        for line in output:
            word, _, name = line.partition(" ")
            if name and word in ("busy", "gone"):
                (busy if word == "busy" else gone).add(name)
    return Moved(frozenset(there), frozenset(busy), frozenset(gone))


def _failure(done: Completed, program: str) -> FleetError:
    message = done.stderr.decode("utf-8", "backslashreplace").strip()
    if done.exit_status == 75:
        return Unsupported(f"the queue cannot be moved: {message}")
    if done.exit_status == 76:
        return Conflict(f"nothing was changed: {message}", hint="try again")
    return error_of(done, program)


def lying(instance: InstanceFacts, job: str, verb: Verb, wanted: Wanted) -> Steps[Reported]:
    """What lies there once what a dead run left half done is settled."""
    moved = yield from script(instance, "look", job, ())
    return Reported(places=LAYOUT.places(instance, job, moved.there))


def move(instance: InstanceFacts, verb: Verb, context: Context, jobs: Jobs) -> Move:
    """Paused envelopes come back paused."""
    action, mode, notes = ("erase", "-", []) if verb is Verb.ERASE else ("back", "schedule", [AGE])
    if action == "back" and context.undo:
        mode = "wait"
    return Move([script_argv(QUARANTINE, *places(instance), action)], partial(_moved, instance, action, mode), notes)


def _moved(instance: InstanceFacts, action: str, mode: str, job: str, items: Sequence[Quarantined]) -> Steps[Reported]:
    moved = yield from script(instance, action, job, (f"{item.queue_id} {mode}" for item in items))
    return Reported(places=LAYOUT.places(instance, job, moved.there))


def is_back(item: Quarantined, entry: QueueEntry) -> bool:
    """What was paused is restored once it is paused again."""
    return item.state != "hold" or entry.state == "hold"


DRIVER = QueueDriver(
    QUEUE,
    action_of,
    LAYOUT,
    lying,
    move,
    frozenset(Verb) - {Verb.BOUNCE, Verb.REQUEUE},
    is_back=is_back,
    holds_first=True,
    settles=frozenset({Verb.DELETE}),
)
