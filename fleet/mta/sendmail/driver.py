"""How messages are changed: each under the lock that Sendmail itself takes on its queue file.

While Sendmail works on a message it holds flock(2) on the queue file, so a message in delivery is told from the others
and left alone. `sendmail -Q` would do for hold, but -qI matches substrings and says nothing of a message's identity.

The quarantine is mxfleet-quarantine/JOB in a message's own queue directory. Queue file and data file get there and back
by rename(2), so names, owners and bytes stay. Sendmail never looks into a sub-directory of a queue directory other than
qf, df and xf.
"""

import re
from collections.abc import Iterable, Mapping
from fnmatch import fnmatchcase
from functools import partial

from fleet.mta.errors import Unsupported
from fleet.mta.host.commands import batched
from fleet.mta.operations import ChangesMessages, Quarantined, QueueBounce
from fleet.mta.queue.driver import Act, Jobs, Move, QueueDriver, Reported, Wanted
from fleet.mta.queue.in_quarantine import Layout
from fleet.mta.queue.outcome import SHOWN, Chosen, Verb, Word, names
from fleet.mta.records import Context, InstanceFacts, QueueEntry
from fleet.mta.sendmail.commands import (
    BATCH,
    CHANGE,
    RUN,
    RUN_LOT,
    RUN_SECONDS,
    change,
    change_argv,
    queues,
    run_argv,
    run_queue,
)
from fleet.mta.sendmail.parse import changed_lines, ids_input, messages_input, queue_id_error, verdicts
from fleet.mta.sendmail.queue import QUEUE
from fleet.mta.steps import Steps, run

SKIPPED = "messages that Sendmail works on at that moment are left alone"
UNRETURNED = "a message from <> is not returned to anybody: its report goes to DoubleBounceAddress"
NO_FLOCK = "this Sendmail was built without flock(2), so its messages cannot be locked from outside"
ABSENT = frozenset({"absent", "other"})
ACTIONS = {Verb.HOLD: "hold", Verb.RELEASE: "release", Verb.DELETE: "delete", Verb.TAKE_OUT: "out"}
WORDS = {"done": Word.DONE, "busy": Word.BUSY}
RUNNING = re.compile(r"Running /[^ ]*/([0-9A-Za-z]+) \(sequence \d+ of \d+\)")
LOCKED = re.compile(r"([0-9A-Za-z]+): locked")
EXPIRED = "... Cannot send message for too long"
MESSAGE = "qh"
"""The files that make a message in quarantine."""
ERASABLE = "qhd"
"""What an erase removes: data alone are what is left when it was cut off."""
READABLE = frozenset({Verb.HOLD, Verb.RELEASE, Verb.DELETE, Verb.TAKE_OUT, Verb.BOUNCE})


def check(instance: InstanceFacts, verb: Verb, operation: ChangesMessages) -> None:
    """Raises Unsupported for a bounce without notice."""
    if isinstance(operation, QueueBounce) and not operation.notify:
        raise Unsupported("Sendmail always sends the notice", hint="purge the messages instead")


def plan(instance: InstanceFacts, verb: Verb, operation: ChangesMessages, context: Context, chosen: Chosen) -> Act:
    """Quarantined as by sendmail -Q (qf becomes hf) and back, removed, moved to the host's quarantine, attempted.

    A bounce is a queue run for which every message is too old (Timeout.queuereturn); held ones are released first.
    """
    entries = chosen.entries
    if verb is Verb.ATTEMPT:
        return Act([run_argv(instance, "attempt")], partial(_attempted, instance, entries), [SKIPPED])
    if verb is Verb.BOUNCE:
        held = [entry for entry in entries if entry.state == "hold"]
        steps = [change_argv(instance, "release")] if held else []
        bounced = partial(_bounced, instance, context.job, entries, held)
        return Act([*steps, run_argv(instance, "bounce")], bounced, [SKIPPED, UNRETURNED])
    return Act(
        [change_argv(instance, ACTIONS[verb])],
        partial(_changed, instance, verb, context.job, entries),
        [] if verb is Verb.RELEASE else [SKIPPED],
        looks_again=verb is Verb.TAKE_OUT,
    )


def _changed(instance: InstanceFacts, verb: Verb, job: str, entries: Iterable[QueueEntry]) -> Steps[Reported]:
    lines: list[str] = []
    answers = yield from act(instance, ACTIONS[verb], job, entries, lines)
    words = {name: WORDS[word] for name, word in answers.items() if word in WORDS}
    if verb is Verb.DELETE:  # its queue file went, and its data could not
        words |= {name: Word.LEFT for name, word in answers.items() if word == "failed"}
    return Reported(words, places=_places_in(lines, job, MESSAGE), notes=_bare_notes(answers))


def _attempted(instance: InstanceFacts, entries: Iterable[QueueEntry]) -> Steps[Reported]:
    """Sendmail says that it runs a message, or that somebody has it locked."""
    _, runs = yield from run_messages(instance, "attempt", entries)
    return Reported(dict.fromkeys(runs["ran"], Word.DONE) | dict.fromkeys(runs["locked"], Word.BUSY))


def _bounced(
    instance: InstanceFacts, job: str, entries: tuple[QueueEntry, ...], held: list[QueueEntry]
) -> Steps[Reported]:
    """Sendmail says "Cannot send message for too long". What it left is put on hold again."""
    yield from act(instance, "release", job, held)
    answers, runs = yield from run_messages(instance, "bounce", entries)
    now = yield from QUEUE.proof(instance, names(entries))
    stuck = [entry for entry in held if entry.queue_id in now and now[entry.queue_id].state != "hold"]
    yield from act(instance, "hold", job, stuck)
    if stuck:
        now = yield from QUEUE.proof(instance, names(entries))
    expired = (name for name in runs["expired"] if answers.get(name) not in ABSENT)
    words: Mapping[str, Word] = dict.fromkeys(expired, Word.DONE) | dict.fromkeys(runs["locked"], Word.BUSY)
    return Reported(words, now)


def act(
    instance: InstanceFacts, action: str, job: str, entries: Iterable[QueueEntry], lines: list[str] | None = None
) -> Steps[dict[str, str]]:
    """One script for each batch. Returns what it says of each message; without messages nothing is run.

    `lines`: gets the script's other lines of the last batch. Raises Unsupported, OutcomeUnknown and others.
    """
    by_id = {entry.queue_id: entry for entry in entries}
    if by_id and not instance.options.get("has_flock"):
        raise Unsupported(NO_FLOCK)
    answers: dict[str, str] = {}
    for batch in batched(by_id, BATCH):
        stdin = messages_input(job, (by_id[name] for name in batch))
        output = changed_lines((yield from run(change(instance, action, stdin))), CHANGE)
        answers |= verdicts(output)
        if lines is not None:
            lines[:] = [line for line in output if line.startswith("in ")]
    return answers


def run_messages(
    instance: InstanceFacts, action: str, entries: Iterable[QueueEntry]
) -> Steps[tuple[dict[str, str], dict[str, set[str]]]]:
    """sendmail_run.sh for each batch. Returns its words for what it did not run, and what Sendmail says of the rest."""
    by_id = {entry.queue_id: entry for entry in entries}
    answers: dict[str, str] = {}
    runs: dict[str, set[str]] = {"ran": set(), "locked": set(), "expired": set()}
    for batch in batched(by_id, RUN_LOT):
        stdin = messages_input(str(RUN_SECONDS), (by_id[name] for name in batch))
        lines = changed_lines((yield from run(run_queue(instance, action, stdin))), RUN)
        at = lines.index("run") if "run" in lines else len(lines)
        answers |= verdicts(lines[:at])
        for kind, queue_ids in read_run(lines[at + 1 :]).items():
            runs[kind] |= queue_ids & set(batch)
    return answers, runs


def read_run(lines: Iterable[str]) -> dict[str, set[str]]:
    """Of a verbose queue run, the IDs that were run, those that were locked, and those that were too old."""
    runs: dict[str, set[str]] = {"ran": set(), "locked": set(), "expired": set()}
    name = ""
    for line in lines:
        if match := RUNNING.fullmatch(line):
            name = match[1]
            runs["ran"].add(name)
        elif (match := LOCKED.fullmatch(line)) and match[1] == name:
            runs["ran"].discard(name)
            runs["locked"].add(name)
        elif line.endswith(EXPIRED) and not line[:3].isdigit():
            runs["expired"].add(name)
    return runs


def _is_queue(instance: InstanceFacts, directory: str) -> bool:
    patterns = [*instance.options["queue_patterns"], instance.options["client_queue"]]
    return any(fnmatchcase(directory, each) and directory.count("/") == each.count("/") for each in patterns)


LAYOUT = Layout("[qh]f(?P<id>[^/]+)", queue_id_error, directories=queues, is_queue=_is_queue)


def lying(instance: InstanceFacts, job: str, verb: Verb, wanted: Wanted) -> Steps[Reported]:
    """Queue files are renamed, so no lock is needed to look."""
    return (yield from _in_quarantine(instance, "look", ERASABLE if verb is Verb.ERASE else MESSAGE, job))


def move(instance: InstanceFacts, verb: Verb, context: Context, jobs: Jobs) -> Move:
    """Back where they were, then a queue run of those that were not held."""
    if verb is Verb.ERASE:
        return Move([change_argv(instance, "erase")], partial(_in_quarantine, instance, "erase", ERASABLE))
    back = partial(_in_quarantine, instance, "back", MESSAGE)
    if context.undo:
        return Move([change_argv(instance, "back")], back)
    was_held = {item.queue_id for items in jobs.values() for item in items if item.state == "hold"}
    commands = [change_argv(instance, "back"), run_argv(instance, "attempt")]
    return Move(commands, back, settle=partial(_attempt_free, instance, was_held))


def _in_quarantine(
    instance: InstanceFacts, action: str, files: str, job: str, items: Iterable[Quarantined] = ()
) -> Steps[Reported]:
    places: dict[str, str] = {}
    answers: dict[str, str] = {}
    for batch in list(batched((item.queue_id for item in items), BATCH)) or [()]:
        lines = changed_lines((yield from run(change(instance, action, ids_input(batch, job)))), CHANGE)
        places = _places_in(lines, job, files)
        answers |= verdicts(lines)
    return Reported(places=places, notes=_bare_notes(answers))


def _places_in(lines: Iterable[str], job: str, files: str) -> dict[str, str]:
    words = (line.split(" ") for line in lines)
    there = (word for word in words if len(word) == 4 and word[0] == "in" and word[3] in files)
    return {name: LAYOUT.place(directory, job, name) for _, name, directory, _ in there}


def _bare_notes(answers: Mapping[str, str]) -> tuple[str, ...]:
    """The sentence about messages that the script did not move since their data are nowhere."""
    bare = sorted(name for name, word in answers.items() if word == "bare")
    if not bare:
        return ()
    first = ", ".join(bare[:SHOWN])
    return (f"{len(bare)} messages have no data file (df) and stay where they are: {first}",)


def _attempt_free(
    instance: InstanceFacts, was_held: set[str], queued: Mapping[str, QueueEntry], reported: Reported
) -> Steps[Reported]:
    free = [entry for name, entry in queued.items() if name not in was_held and entry.state != "hold"]
    yield from run_messages(instance, "attempt", free)
    return Reported()


DRIVER = QueueDriver(QUEUE, plan, LAYOUT, lying, move, frozenset(Verb) - {Verb.REQUEUE}, check, readable=READABLE)
