"""Hold, release and purge, each message under the lock that Sendmail itself takes on its queue file.

While Sendmail works on a message it holds flock(2) on the queue file, so a message in delivery is told from the others
and left alone. `sendmail -Q` would do for hold, but -qI matches substrings and says nothing of a message's identity.
"""

from collections.abc import Iterable
from dataclasses import replace
from functools import partial

from fleet.mta.errors import Unsupported
from fleet.mta.host.commands import chunks
from fleet.mta.operations import QueueHold, QueuePurge, QueueRelease
from fleet.mta.queue import readback
from fleet.mta.queue.outcome import Outcomes, changed, fingerprint_of, is_same, names, plan_of
from fleet.mta.queue.selection import choose, everything, not_held, releasable
from fleet.mta.records import Context, InstanceFacts, MessageState, QueueEntry, Result
from fleet.mta.sendmail.commands import CHANGE, LOT, change, change_argv
from fleet.mta.sendmail.parse import changed_lines, messages_input, verdicts
from fleet.mta.sendmail.quarantine import bare_notes, look, place_of, quarantined_in
from fleet.mta.sendmail.queue import QUEUE, proof
from fleet.mta.steps import Steps, run

SKIPPED = "messages that Sendmail works on at that moment are left alone"
NO_FLOCK = "this Sendmail was built without flock(2), so its messages cannot be locked from outside"
ABSENT = frozenset({"absent", "other"})


def queue_hold(instance: InstanceFacts, operation: QueueHold, context: Context) -> Steps[Result]:
    """`queue.hold`: quarantined as by sendmail -Q (qf becomes hf). Messages that are held already stay as they are."""
    chosen = yield from choose(QUEUE, instance, operation, context, not_held)
    yield plan_of(chosen, context, [change_argv(instance, "hold")], [SKIPPED])
    outcomes = Outcomes()
    said = yield from act(instance, "hold", context.job, chosen.entries)
    now = yield from proof(instance, names(chosen.entries))
    for entry in chosen.entries:
        current = same(now, entry)
        is_held = current is not None and current.state == "hold"
        outcomes.put([entry.queue_id], _state(said.get(entry.queue_id), current, is_done=is_held))
    return changed(chosen, outcomes, now)


def queue_release(instance: InstanceFacts, operation: QueueRelease, context: Context) -> Steps[Result]:
    """`queue.release`: hf becomes qf again, and Sendmail tries it at its next queue run."""
    chosen = yield from choose(QUEUE, instance, operation, context, releasable(operation.selection, context))
    yield plan_of(chosen, context, [change_argv(instance, "release")])
    outcomes = Outcomes()
    said = yield from act(instance, "release", context.job, chosen.entries)
    now = yield from proof(instance, names(chosen.entries))
    for entry in chosen.entries:
        current = same(now, entry)
        is_held = current is not None and current.state == "hold"
        outcomes.put([entry.queue_id], _state(said.get(entry.queue_id), current, is_done=not is_held))
    return changed(chosen, outcomes, now)


def queue_purge(instance: InstanceFacts, operation: QueuePurge, context: Context) -> Steps[Result]:
    """`queue.purge`: queue file and data file removed, or moved to the host's quarantine."""
    chosen = yield from choose(QUEUE, instance, operation, context, everything)
    action = "delete" if operation.mode == "delete" else "out"
    yield plan_of(chosen, context, [change_argv(instance, action)], [SKIPPED])
    outcomes = Outcomes()
    lines: list[str] = []
    said = yield from act(instance, action, context.job, chosen.entries, lines)
    now = yield from proof(instance, names(chosen.entries))
    away = quarantined_in(lines)
    places: dict[str, str] = {}
    for entry in chosen.entries:
        name = entry.queue_id
        current = same(now, entry)
        if action == "out" and current is None and name in away:
            places[name] = place_of(away[name], context.job, name)
            outcomes.put([name], MessageState.DONE)
        else:
            is_deleted = action == "delete" and current is None
            has_left_data = is_deleted and said.get(name) == "failed"
            state = _state(said.get(name), current, is_done=is_deleted)
            outcomes.put([name], MessageState.LEFT if has_left_data else state)
    if action == "out":
        places |= yield from readback.seen_after_all(partial(look, instance, context.job), outcomes)
    told = replace(chosen, notes=(*chosen.notes, *bare_notes(said)))
    return changed(told, outcomes, now, places=places)


def _state(said: str | None, current: QueueEntry | None, *, is_done: bool) -> MessageState:
    """What became of a message: what the script says of it and what the second look shows must agree.

    `current`: the very message, when it is queued still. Somebody else may have renamed its file (sendmail -Q) in the
    moment when the script did not find it.
    """
    if said == "busy":
        return MessageState.IN_DELIVERY
    if said == "done" and is_done:
        return MessageState.DONE
    if current is None:
        return MessageState.ALREADY_GONE
    return MessageState.IN_DELIVERY if current.state == "active" else MessageState.LEFT


def same(now: dict[str, QueueEntry], entry: QueueEntry) -> QueueEntry | None:
    """What is queued now of this very message."""
    current = now.get(entry.queue_id)
    return current if current and is_same(current, fingerprint_of(entry)) else None


def act(
    instance: InstanceFacts, action: str, job: str, entries: Iterable[QueueEntry], lines: list[str] | None = None
) -> Steps[dict[str, str]]:
    """One script for each lot. Returns what it says of each message; without messages nothing is run.

    `lines`: gets the script's other lines of the last lot. Raises Unsupported, OutcomeUnknown and others.
    """
    by_id = {entry.queue_id: entry for entry in entries}
    if by_id and not instance.options.get("has_flock"):
        raise Unsupported(NO_FLOCK)
    said: dict[str, str] = {}
    for lot in chunks(by_id, LOT):
        stdin = messages_input(job, (by_id[name] for name in lot))
        told = changed_lines((yield from run(change(instance, action, stdin))), CHANGE)
        said |= verdicts(told)
        if lines is not None:
            lines[:] = [line for line in told if line.startswith("in ")]
    return said
