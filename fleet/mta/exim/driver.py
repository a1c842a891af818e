"""Hold, release and purge. Exim locks a message before it changes it and refuses one that is being delivered."""

from fleet.mta.exim.commands import change, change_argv
from fleet.mta.exim.parse import Verdicts
from fleet.mta.exim.quarantine import plan_quarantine, put_away
from fleet.mta.exim.queue import QUEUE
from fleet.mta.operations import QueueHold, QueuePurge, QueueRelease
from fleet.mta.queue.outcome import Outcomes, changed, fingerprint_of, is_same, names, plan_of
from fleet.mta.queue.selection import choose, everything, not_held, releasable
from fleet.mta.records import Context, InstanceFacts, MessageState, QueueEntry, Result
from fleet.mta.steps import Steps

SKIPPED = "messages that are being delivered are locked by Exim and left alone"


def queue_hold(instance: InstanceFacts, operation: QueueHold, context: Context) -> Steps[Result]:
    """`queue.hold`: frozen. Messages that are frozen already are none of ours and stay so."""
    chosen = yield from choose(QUEUE, instance, operation, context, not_held)
    yield plan_of(chosen, context, [change_argv(instance, "-Mf")], [SKIPPED, *frozen_notes(instance)])
    said = yield from change(instance, "-Mf", names(chosen.entries))
    now = yield from QUEUE.proof(instance, names(chosen.entries))
    outcomes = Outcomes()
    others = 0
    for entry in chosen.entries:
        current = same(now, entry)
        is_ours = entry.queue_id in said.changed
        if current and current.native_state == "frozen":
            others += not is_ours
            if is_ours:
                outcomes.put([entry.queue_id], MessageState.DONE)
        else:
            outcomes.put([entry.queue_id], undone(entry, current, said))
    return changed(chosen, outcomes, now, already=chosen.already + others)


def frozen_notes(instance: InstanceFacts) -> list[str]:
    """What Exim does to frozen messages by itself."""
    limit = str(instance.options.get("timeout_frozen_after", "0s"))
    if limit in {"0s", "", "0"}:
        return []
    return [
        f"timeout_frozen_after is {limit}: a frozen message that has been queued longer than that is given up at the "
        "next queue run: a bounce is deleted, other mail is returned to its sender; quarantine keeps it longer"
    ]


def queue_release(instance: InstanceFacts, operation: QueueRelease, context: Context) -> Steps[Result]:
    """`queue.release`: thawed; Exim tries the message at its next queue run."""
    chosen = yield from choose(QUEUE, instance, operation, context, releasable(operation.selection, context))
    yield plan_of(chosen, context, [change_argv(instance, "-Mt")])
    said = yield from change(instance, "-Mt", names(chosen.entries))
    now = yield from QUEUE.proof(instance, names(chosen.entries))
    outcomes = Outcomes()
    for entry in chosen.entries:
        current = same(now, entry)
        if current and current.state == "hold":
            outcomes.put([entry.queue_id], MessageState.LEFT)
        elif entry.queue_id in said.changed:
            outcomes.put([entry.queue_id], MessageState.DONE)
        elif current and entry.queue_id in said.locked:
            outcomes.put([entry.queue_id], MessageState.IN_DELIVERY)
        else:
            outcomes.put([entry.queue_id], MessageState.ALREADY_GONE)
    return changed(chosen, outcomes, now)


def queue_purge(instance: InstanceFacts, operation: QueuePurge, context: Context) -> Steps[Result]:
    """`queue.purge`: removed, or moved to a named queue of the job, where no queue run looks."""
    chosen = yield from choose(QUEUE, instance, operation, context, everything)
    if operation.mode == "delete":
        yield plan_of(chosen, context, [change_argv(instance, "-Mrm")], [SKIPPED])
    else:
        commands, notes = plan_quarantine(instance, context.job)
        yield plan_of(chosen, context, commands, [SKIPPED, *notes])
    outcomes = Outcomes()
    if operation.mode != "delete":
        wanted = {entry.queue_id: entry for entry in chosen.entries}
        now, places = yield from put_away(instance, wanted, context.job, outcomes)
        return changed(chosen, outcomes, now, places=places)
    said = yield from change(instance, "-Mrm", names(chosen.entries))
    now = yield from QUEUE.proof(instance, names(chosen.entries))
    for entry in chosen.entries:
        is_done = entry.queue_id in said.changed and not same(now, entry)
        state = MessageState.DONE if is_done else undone(entry, same(now, entry), said)
        outcomes.put([entry.queue_id], state)
    return changed(chosen, outcomes, now, places={})


def same(now: dict[str, QueueEntry], entry: QueueEntry) -> QueueEntry | None:
    """What is queued now of this very message."""
    current = now.get(entry.queue_id)
    return current if current and is_same(current, fingerprint_of(entry)) else None


def undone(entry: QueueEntry, current: QueueEntry | None, said: Verdicts) -> MessageState:
    """What became of a message that was not changed."""
    if current is None:
        return MessageState.ALREADY_GONE
    is_delivering = entry.queue_id in said.locked or current.state == "active"
    return MessageState.IN_DELIVERY if is_delivering else MessageState.LEFT
