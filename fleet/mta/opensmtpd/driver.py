"""Hold, release, purge and flush.

smtpctl says "paused" and "removed" of an envelope in flight too, which is delivered all the same (trap 2). The scripts
leave such messages alone, and what they did is looked at again here.
"""

from collections.abc import Iterable
from functools import partial

from fleet.mta.errors import FleetError, OutcomeUnknown, UnparsedOutput
from fleet.mta.host.commands import chunks, script_argv
from fleet.mta.opensmtpd.commands import ACT, LOT, QUARANTINE, UNTOUCHED, act, places, smtpctl_argv
from fleet.mta.opensmtpd.parse import error_of
from fleet.mta.opensmtpd.quarantine import look, place, script
from fleet.mta.opensmtpd.queue import QUEUE
from fleet.mta.operations import QueueFlush, QueueHold, QueuePurge, QueueRelease
from fleet.mta.queue import readback
from fleet.mta.queue.outcome import Outcomes, changed, fingerprint_of, is_same, names, plan_of
from fleet.mta.queue.selection import choose, everything, not_held, releasable
from fleet.mta.records import Context, InstanceFacts, MessageState, QueueEntry, Result
from fleet.mta.steps import Steps, run

SKIPPED = "messages that are being delivered (inflight) are left alone"
FORGETS = "smtpd keeps a pause in memory only: its next restart releases every paused message"
RESTS = "smtpd may wait for up to 30 s before the attempts: a route rests after a temporary failure"


def queue_hold(instance: InstanceFacts, operation: QueueHold, context: Context) -> Steps[Result]:
    """`queue.hold`. Messages that are held already are none of ours and stay so."""
    chosen = yield from choose(QUEUE, instance, operation, context, not_held)
    yield plan_of(chosen, context, [smtpctl_argv(instance, "pause", "envelope", "MESSAGE_ID")], [SKIPPED, FORGETS])
    said = yield from _act(instance, "pause", chosen.entries)
    now = yield from QUEUE.proof(instance, names(chosen.entries))
    outcomes = Outcomes()
    others = 0
    for entry in chosen.entries:
        current = now.get(entry.queue_id)
        if current is None or not is_same(current, fingerprint_of(entry)):
            outcomes.put([entry.queue_id], MessageState.ALREADY_GONE)
        elif current.state == "hold" and entry.queue_id in said:
            outcomes.put([entry.queue_id], MessageState.DONE)
        elif current.state == "hold":
            others += 1
        else:
            is_active = current.state == "active" or entry.state == "active"
            outcomes.put([entry.queue_id], MessageState.IN_DELIVERY if is_active else MessageState.LEFT)
    return changed(chosen, outcomes, now, already=chosen.already + others)


def queue_release(instance: InstanceFacts, operation: QueueRelease, context: Context) -> Steps[Result]:
    """`queue.release`: smtpd tries them in its own time."""
    chosen = yield from choose(QUEUE, instance, operation, context, releasable(operation.selection, context))
    yield plan_of(chosen, context, [smtpctl_argv(instance, "resume", "envelope", "MESSAGE_ID")])
    said = yield from _act(instance, "resume", chosen.entries)
    now = yield from QUEUE.proof(instance, names(chosen.entries))
    outcomes = Outcomes()
    for entry in chosen.entries:
        current = now.get(entry.queue_id)
        if current and is_same(current, fingerprint_of(entry)) and current.state == "hold":
            outcomes.put([entry.queue_id], MessageState.LEFT)
        else:
            is_ours = entry.queue_id in said
            outcomes.put([entry.queue_id], MessageState.DONE if is_ours else MessageState.ALREADY_GONE)
    return changed(chosen, outcomes, now)


def queue_purge(instance: InstanceFacts, operation: QueuePurge, context: Context) -> Steps[Result]:
    """`queue.purge`: the message file is taken away first, so that what is not in flight then stays undelivered."""
    chosen = yield from choose(QUEUE, instance, operation, context, everything)
    action = "delete" if operation.mode == "delete" else "out"
    steps = [script_argv(QUARANTINE, *places(instance), action), smtpctl_argv(instance, "remove", "MESSAGE_ID")]
    yield plan_of(chosen, context, steps, [SKIPPED])
    if not chosen.entries:
        return changed(chosen, Outcomes(), {})
    moved = yield from script(instance, action, context.job, _lines(chosen.entries))
    now = yield from QUEUE.proof(instance, names(chosen.entries))
    outcomes = Outcomes()
    # Of a deleted one that still lies there, something could not be removed.
    away, kept = (moved.gone, moved.there) if action == "delete" else (moved.there, frozenset())
    for entry in chosen.entries:
        name = entry.queue_id
        current = now.get(name)
        if current is not None and is_same(current, fingerprint_of(entry)):
            is_active = name in moved.busy or current.state == "active"
            outcomes.put([name], MessageState.IN_DELIVERY if is_active else MessageState.LEFT)
        else:
            is_left = MessageState.LEFT if name in kept else MessageState.ALREADY_GONE
            outcomes.put([name], MessageState.DONE if name in away else is_left)
    at = {name: place(instance, context.job, name) for name in outcomes.of(MessageState.DONE) if action == "out"}
    if action == "out":
        at |= yield from readback.seen_after_all(partial(look, instance, context.job), outcomes)
    return changed(chosen, outcomes, now, places=at)


def queue_flush(instance: InstanceFacts, operation: QueueFlush, context: Context) -> Steps[Result]:
    """`queue.flush`: attempts were asked for, one message after the other. Paused envelopes never.

    `smtpctl schedule all` is not used: it delivers what is paused too.
    """
    chosen = yield from choose(QUEUE, instance, operation, context, not_held)
    yield plan_of(chosen, context, [smtpctl_argv(instance, "schedule", "MESSAGE_ID")], [RESTS])
    said = yield from _act(instance, "schedule", chosen.entries)
    now = yield from QUEUE.proof(instance, names(chosen.entries))
    outcomes = Outcomes()
    for entry in chosen.entries:
        current = now.get(entry.queue_id)
        is_queued = current is not None and is_same(current, fingerprint_of(entry))
        if entry.queue_id in said or (is_queued and entry.state == "active"):
            outcomes.put([entry.queue_id], MessageState.DONE)
        elif not is_queued:
            outcomes.put([entry.queue_id], MessageState.ALREADY_GONE)
        else:
            is_active = current is not None and current.state == "active"
            outcomes.put([entry.queue_id], MessageState.DONE if is_active else MessageState.LEFT)
    return changed(chosen, outcomes, now)


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
