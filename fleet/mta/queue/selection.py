"""Which messages a change is about: by expression, by queue IDs, or those that a plan has frozen."""

from collections.abc import Callable
from dataclasses import replace

from fleet.match import Entry
from fleet.mta.operations import ChangesMessages, Selection
from fleet.mta.queue.holds import Holds
from fleet.mta.queue.listing import Queue, StreamedEntry, TopMatches, select
from fleet.mta.queue.outcome import Chosen, check_limits, check_stale, fingerprint_of, is_same
from fleet.mta.records import Context, Fingerprint, InstanceFacts
from fleet.mta.steps import Steps

Relevant = Callable[[Entry], bool]


def not_held(entry: Entry) -> bool:
    """Messages that no hold keeps back."""
    return entry.state != "hold"


def everything(entry: Entry) -> bool:
    """Every message, held or not."""
    return True


def releasable(selection: Selection, context: Context) -> Relevant:
    """Held messages; others' holds only when the request says so by `state:hold` or by queue IDs."""
    if means_held(selection):
        return lambda entry: entry.state == "hold"
    return lambda entry: entry.state == "hold" and fingerprint_of(entry) in context.ours


def means_held(selection: Selection) -> bool:
    """Whether the request names held messages: by queue IDs, or with state:hold."""
    return selection.match is None or selection.match.mentions_hold()


def choose(
    queue: Queue, instance: InstanceFacts, operation: ChangesMessages, context: Context, relevant: Relevant
) -> Steps[Chosen]:
    """The messages to change. With `context.frozen` those and no others. Raises TooMany, PlanStale, Unsupported."""
    holds = Holds(context.ours)
    chosen = yield from _chosen(holds.watched(queue), instance, operation, context, relevant)
    return replace(chosen, freed=holds.freed)


def _chosen(
    queue: Queue, instance: InstanceFacts, operation: ChangesMessages, context: Context, relevant: Relevant
) -> Steps[Chosen]:
    if context.frozen is not None:
        return (yield from choose_frozen(queue, instance, operation.selection, context, relevant))
    if operation.selection.match is None:
        chosen = yield from choose_by_id(queue, instance, operation.selection.queue_ids, relevant)
    else:
        chosen = yield from _choose_matching(queue, instance, operation, context, relevant)
    check_limits(operation.limits, len(chosen.entries), chosen.total)
    return chosen


def choose_frozen(
    queue: Queue, instance: InstanceFacts, selection: Selection, context: Context, relevant: Relevant
) -> Steps[Chosen]:
    """What is left of the plan: the same message under the same ID. Raises PlanStale."""
    wanted = {each.queue_id: each for each in context.frozen or ()}
    judge = selection.match.compile(context.now) if selection.match else None
    new: set[str] = set()

    def see(message: StreamedEntry) -> None:
        if judge is not None and judge(message) and relevant(message):
            new.add(message.queue_id)

    queued, listing = yield from queue.listed(instance, wanted, see)
    same = {name: entry for name, entry in queued.items() if is_same(entry, wanted[name])}
    found = [entry for entry in same.values() if relevant(entry)]
    kept_back = {entry.queue_id for entry in found if _is_held_since(wanted[entry.queue_id], entry, context)}
    chosen = Chosen(
        entries=tuple(entry for entry in found if entry.queue_id not in kept_back),
        kept_back=tuple(kept_back),
        total=listing.total,
        gone=tuple(name for name in wanted if name not in queued),
        stale=tuple(name for name in queued if name not in same),
        new=len(new),
        already=sum(not relevant(entry) for entry in same.values()),
        notes=listing.notes,
    )
    check_stale(chosen)
    return chosen


def _is_held_since(planned: Fingerprint, entry: Entry, context: Context) -> bool:
    """Whether somebody else has put it on hold since the plan: who does so wants that nobody touches it."""
    return entry.state == "hold" and planned.state != "hold" and planned not in context.ours


def choose_by_id(
    queue: Queue, instance: InstanceFacts, queue_ids: tuple[str, ...], relevant: Relevant
) -> Steps[Chosen]:
    """The messages of these queue IDs; those not queued are gone."""
    queued, listing = yield from queue.listed(instance, queue_ids)
    return Chosen(
        entries=tuple(entry for entry in queued.values() if relevant(entry)),
        total=listing.total,
        gone=tuple(name for name in dict.fromkeys(queue_ids) if name not in queued),
        already=sum(not relevant(entry) for entry in queued.values()),
        notes=listing.notes,
    )


def _choose_matching(
    queue: Queue, instance: InstanceFacts, operation: ChangesMessages, context: Context, relevant: Relevant
) -> Steps[Chosen]:
    expression = operation.selection.match
    assert expression is not None  # noqa: S101 - the caller has looked; this is for the type checker
    judge = expression.compile(context.now)
    kept = TopMatches(keep=operation.limits.max_messages + 1, relevant=relevant)
    listing = yield from select(queue, instance, expression, kept, judge)
    check_limits(operation.limits, kept.matched, listing.total)
    return Chosen(tuple(kept.best()), listing.total, already=kept.already, notes=listing.notes)
