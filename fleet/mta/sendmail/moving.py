"""Flush and bounce: what makes Sendmail work on messages at once, each named by its whole queue ID."""

import re
from collections.abc import Iterable

from fleet.mta.errors import Unsupported
from fleet.mta.host.commands import chunks
from fleet.mta.operations import QueueBounce, QueueFlush
from fleet.mta.queue.outcome import Outcomes, changed, names, plan_of
from fleet.mta.queue.selection import choose, everything, not_held
from fleet.mta.records import Context, InstanceFacts, MessageState, QueueEntry, Result
from fleet.mta.sendmail.commands import RUN, RUN_LOT, RUN_SECONDS, change_argv, run_argv, run_queue
from fleet.mta.sendmail.driver import ABSENT, SKIPPED, act, same
from fleet.mta.sendmail.parse import changed_lines, messages_input, verdicts
from fleet.mta.sendmail.queue import QUEUE, proof
from fleet.mta.steps import Steps, run

RUNNING = re.compile(r"Running /[^ ]*/([0-9A-Za-z]+) \(sequence \d+ of \d+\)")
LOCKED = re.compile(r"([0-9A-Za-z]+): locked")
EXPIRED = "... Cannot send message for too long"


def queue_flush(instance: InstanceFacts, operation: QueueFlush, context: Context) -> Steps[Result]:
    """`queue.flush`: an attempt for each message, held ones never. Proof: Sendmail says that it runs the message."""
    chosen = yield from choose(QUEUE, instance, operation, context, not_held)
    yield plan_of(chosen, context, [run_argv(instance, "attempt")], [SKIPPED])
    outcomes = Outcomes()
    _, told = yield from run_messages(instance, "attempt", chosen.entries)
    now = yield from proof(instance, names(chosen.entries))
    for entry in chosen.entries:
        outcomes.put([entry.queue_id], _attempted(entry, same(now, entry), told))
    return changed(chosen, outcomes, now)


def _attempted(entry: QueueEntry, current: QueueEntry | None, told: dict[str, set[str]]) -> MessageState:
    name = entry.queue_id
    if name in told["locked"]:
        return MessageState.IN_DELIVERY
    if name in told["ran"]:
        return MessageState.DONE
    return MessageState.ALREADY_GONE if current is None else MessageState.LEFT


def queue_bounce(instance: InstanceFacts, operation: QueueBounce, context: Context) -> Steps[Result]:
    """`queue.bounce`: a queue run of these messages for which every message is too old (Timeout.queuereturn).

    Held ones are released first. Proof: Sendmail says "Cannot send message for too long" and the message is gone.
    Raises Unsupported without notice.
    """
    if not operation.notify:
        raise Unsupported("Sendmail always sends the notice", hint="purge the messages instead")
    chosen = yield from choose(QUEUE, instance, operation, context, everything)
    held = [entry for entry in chosen.entries if entry.state == "hold"]
    steps = [change_argv(instance, "release")] if held else []
    notes = [SKIPPED, "a message from <> is not returned to anybody: its report goes to DoubleBounceAddress"]
    yield plan_of(chosen, context, [*steps, run_argv(instance, "bounce")], notes)
    outcomes = Outcomes()
    yield from act(instance, "release", context.job, held)
    said, told = yield from run_messages(instance, "bounce", chosen.entries)
    now = yield from proof(instance, names(chosen.entries))
    stuck = [entry for entry in held if entry.queue_id in now and now[entry.queue_id].state != "hold"]
    yield from act(instance, "hold", context.job, stuck)
    if stuck:
        now = yield from proof(instance, names(chosen.entries))
    for entry in chosen.entries:
        name = entry.queue_id
        current = same(now, entry)
        if current is not None:
            is_busy = name in told["locked"] or current.state == "active"
            outcomes.put([name], MessageState.IN_DELIVERY if is_busy else MessageState.LEFT)
        else:
            is_proven = name in told["expired"] and said.get(name) not in ABSENT
            outcomes.put([name], MessageState.DONE if is_proven else MessageState.ALREADY_GONE)
    return changed(chosen, outcomes, now)


def run_messages(
    instance: InstanceFacts, action: str, entries: Iterable[QueueEntry]
) -> Steps[tuple[dict[str, str], dict[str, set[str]]]]:
    """sendmail_run.sh for each lot. Returns its words for what it did not run, and what Sendmail told of the others."""
    by_id = {entry.queue_id: entry for entry in entries}
    said: dict[str, str] = {}
    told: dict[str, set[str]] = {"ran": set(), "locked": set(), "expired": set()}
    for lot in chunks(by_id, RUN_LOT):
        stdin = messages_input(str(RUN_SECONDS), (by_id[name] for name in lot))
        lines = changed_lines((yield from run(run_queue(instance, action, stdin))), RUN)
        at = lines.index("run") if "run" in lines else len(lines)
        said |= verdicts(lines[:at])
        for kind, found in read_run(lines[at + 1 :]).items():
            told[kind] |= found & set(lot)
    return said, told


def read_run(lines: Iterable[str]) -> dict[str, set[str]]:
    """Of a verbose queue run, the IDs that were run, those that were locked, and those that were too old."""
    told: dict[str, set[str]] = {"ran": set(), "locked": set(), "expired": set()}
    name = ""
    for line in lines:
        if found := RUNNING.fullmatch(line):
            name = found[1]
            told["ran"].add(name)
        elif (found := LOCKED.fullmatch(line)) and found[1] == name:
            told["ran"].discard(name)
            told["locked"].add(name)
        elif line.endswith(EXPIRED) and not line[:3].isdigit():
            told["expired"].add(name)
    return told
