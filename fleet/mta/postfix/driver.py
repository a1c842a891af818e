"""Hold, release and purge.

A message that is being delivered is in memory of the queue manager: taking its file away stops nothing (trap 2). So
every change begins with `postsuper -h - deferred`: postsuper renames out of that one directory, and the rename fails
when the queue manager was faster. What then lies in hold/ is nobody's but ours, and is looked at again by fingerprint.
"""

from collections.abc import Iterable

from fleet.mta.errors import Refused
from fleet.mta.host.commands import chunks
from fleet.mta.operations import QueueHold, QueuePurge, QueueRelease
from fleet.mta.postfix.commands import postsuper, postsuper_argv
from fleet.mta.postfix.parse import parse_verdicts
from fleet.mta.postfix.quarantine import plan_quarantine, put_away
from fleet.mta.postfix.queue import QUEUE, proof
from fleet.mta.queue.outcome import Outcomes, changed, fingerprint_of, is_same, names, plan_of
from fleet.mta.queue.selection import choose, everything, not_held, releasable
from fleet.mta.records import Context, InstanceFacts, MessageState, QueueEntry, Result
from fleet.mta.steps import Steps, run

SKIPPED = "messages that are being delivered (active, incoming, maildrop) are left alone"


def queue_hold(instance: InstanceFacts, operation: QueueHold, context: Context) -> Steps[Result]:
    """`queue.hold`. Messages that are held already are none of ours and stay so."""
    chosen = yield from choose(QUEUE, instance, operation, context, not_held)
    yield plan_of(chosen, context, [postsuper_argv(instance, "-h", "deferred")], [SKIPPED])
    outcomes = Outcomes()
    held, said = yield from freeze(instance, chosen.entries, outcomes)
    outcomes.put((name for name in held if name in said), MessageState.DONE)
    others = sum(name not in said for name in held)
    return changed(chosen, outcomes, held, already=chosen.already + others)


def queue_release(instance: InstanceFacts, operation: QueueRelease, context: Context) -> Steps[Result]:
    """`queue.release`: back to deferred, where the queue manager tries them in its own time."""
    chosen = yield from choose(QUEUE, instance, operation, context, releasable(operation.selection, context))
    yield plan_of(chosen, context, [postsuper_argv(instance, "-H", "hold")])
    outcomes = Outcomes()
    said = yield from act(instance, "-H", "hold", names(chosen.entries))
    now = yield from proof(instance, names(chosen.entries))
    for entry in chosen.entries:
        current = now.get(entry.queue_id)
        if current and is_same(current, fingerprint_of(entry)) and current.state == "hold":
            outcomes.put([entry.queue_id], MessageState.LEFT)
        else:
            is_ours = entry.queue_id in said
            outcomes.put([entry.queue_id], MessageState.DONE if is_ours else MessageState.ALREADY_GONE)
    return changed(chosen, outcomes, now)


def queue_purge(instance: InstanceFacts, operation: QueuePurge, context: Context) -> Steps[Result]:
    """`queue.purge`: held first, looked at again, then deleted or moved to the host's quarantine."""
    chosen = yield from choose(QUEUE, instance, operation, context, everything)
    hold = postsuper_argv(instance, "-h", "deferred")
    if operation.mode == "delete":
        yield plan_of(chosen, context, [hold, postsuper_argv(instance, "-d", "hold")], [SKIPPED])
    else:
        commands, notes = plan_quarantine(instance)
        yield plan_of(chosen, context, [hold, *commands], [SKIPPED, *notes])
    outcomes = Outcomes()
    held, said = yield from freeze(instance, chosen.entries, outcomes)
    places: dict[str, str] = {}
    try:
        if operation.mode == "delete":
            left = yield from _delete(instance, held, outcomes)
        else:
            left, places = yield from put_away(instance, held, context.job, outcomes)
    except Refused:
        yield from thaw(instance, said)
        raise
    yield from thaw(instance, [name for name in left if name in said])
    return changed(chosen, outcomes, left, places=places)


def _delete(instance: InstanceFacts, held: dict[str, QueueEntry], outcomes: Outcomes) -> Steps[dict[str, QueueEntry]]:
    """Deletes what is on hold. Returns what is still queued of it."""
    said = yield from act(instance, "-d", "hold", held)
    now = yield from proof(instance, held)
    left = {name: entry for name, entry in now.items() if is_same(entry, fingerprint_of(held[name]))}
    outcomes.put((name for name in held if name in said and name not in left), MessageState.DONE)
    outcomes.put((name for name in held if name not in said and name not in left), MessageState.ALREADY_GONE)
    outcomes.put(left, MessageState.LEFT)
    return left


def freeze(
    instance: InstanceFacts, entries: Iterable[QueueEntry], outcomes: Outcomes
) -> Steps[tuple[dict[str, QueueEntry], frozenset[str]]]:
    """Puts the deferred ones on hold and looks again. Returns what is on hold now, and which of it postsuper moved.

    The others' outcomes are written down. A message that came under a used ID in between is released at once.
    """
    wanted = {entry.queue_id: entry for entry in entries}
    if not wanted:
        return {}, frozenset()
    said = yield from act(instance, "-h", "deferred", (n for n, entry in wanted.items() if entry.state == "deferred"))
    now = yield from proof(instance, wanted)
    held: dict[str, QueueEntry] = {}
    strangers = []
    for name, entry in wanted.items():
        current = now.get(name)
        if current is None or not is_same(current, fingerprint_of(entry)):
            outcomes.put([name], MessageState.ALREADY_GONE)
            if current and name in said:
                strangers.append(name)
        elif current.state == "hold":
            held[name] = current
        elif current.state == "deferred":
            outcomes.put([name], MessageState.LEFT)
        else:
            outcomes.put([name], MessageState.IN_DELIVERY)
    yield from thaw(instance, strangers)
    return held, said


def thaw(instance: InstanceFacts, queue_ids: Iterable[str]) -> Steps[None]:
    """Takes back our own hold."""
    yield from act(instance, "-H", "hold", queue_ids)


def act(instance: InstanceFacts, flag: str, queue: str, queue_ids: Iterable[str]) -> Steps[frozenset[str]]:
    """One postsuper for each lot of IDs. Returns the IDs that it says it changed; without IDs nothing is run."""
    said: set[str] = set()
    for lot in chunks(queue_ids):
        said |= parse_verdicts((yield from run(postsuper(instance, flag, queue, lot))))
    return frozenset(said)
