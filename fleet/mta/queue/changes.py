"""Changes of messages, the flow of all MTAs: choose, plan, act, look again, judge."""

from collections.abc import Mapping
from dataclasses import replace

from fleet.mta.errors import FleetError, OutcomeUnknown
from fleet.mta.operations import (
    ChangesMessages,
    QueueBounce,
    QueueFlush,
    QueueHold,
    QueuePurge,
    QueueRelease,
    QueueRequeue,
)
from fleet.mta.queue.driver import QueueDriver, Reported, Wanted
from fleet.mta.queue.outcome import (
    Chosen,
    Outcomes,
    Verb,
    changed,
    fingerprint_of,
    judge,
    names,
    plan_of,
    same,
    unless_changed,
)
from fleet.mta.queue.selection import Relevant, choose, everything, means_held, not_held, releasable
from fleet.mta.records import Context, InstanceFacts, MessageState, QueueEntry, Result
from fleet.mta.results.changing import MoreOfChanges
from fleet.mta.steps import Steps

VERBS: dict[type[ChangesMessages], Verb] = {
    QueueHold: Verb.HOLD,
    QueueRelease: Verb.RELEASE,
    QueueFlush: Verb.ATTEMPT,
    QueueBounce: Verb.BOUNCE,
    QueueRequeue: Verb.REQUEUE,
}


def verb_of(operation: ChangesMessages) -> Verb:
    if isinstance(operation, QueuePurge):
        return Verb.DELETE if operation.mode == "delete" else Verb.TAKE_OUT
    return VERBS[type(operation)]


@unless_changed
def change(driver: QueueDriver, instance: InstanceFacts, operation: ChangesMessages, context: Context) -> Steps[Result]:
    """Any operation that changes messages of the queue."""
    verb = verb_of(operation)
    driver.check(instance, verb, operation)
    relevant = _relevant(driver, verb, operation, context)
    chosen = yield from choose(driver.queue, instance, operation, context, relevant)
    act = driver.act(instance, verb, operation, context, chosen)
    yield plan_of(chosen, context, act.commands, act.notes)
    reported = (yield from act.run()) if chosen.entries else Reported(now={})
    now = reported.now
    if now is None:
        now = yield from driver.queue.proof(instance, names(chosen.entries))
    places = dict(reported.places)
    if act.looks_again:
        gone = {entry.queue_id: fingerprint_of(entry) for entry in chosen.entries if same(now, entry) is None}
        places |= yield from _places_of_gone(driver, instance, context.job, gone, places)
    return _result(verb, chosen, reported, now, places)


def _relevant(driver: QueueDriver, verb: Verb, operation: ChangesMessages, context: Context) -> Relevant:
    """A requeued message leaves hold, so held ones are requeued only when the request names them."""
    if verb is Verb.RELEASE:
        return releasable(operation.selection, context)
    takes_held = {
        Verb.DELETE: True,
        Verb.TAKE_OUT: True,
        Verb.BOUNCE: driver.bounces_held,
        Verb.REQUEUE: means_held(operation.selection),
    }
    return everything if takes_held.get(verb, False) else not_held


def _places_of_gone(
    driver: QueueDriver, instance: InstanceFacts, job: str, gone: Wanted, places: Mapping[str, str]
) -> Steps[dict[str, str]]:
    """Of what would be reported as gone, the places of what lies in the quarantine all the same.

    Where a script lists the quarantine, it did so before the queue was looked at. What moved in between, by a part of
    the script that outlived the rest of it, was seen in neither; so the target is read again, after the source.
    """
    doubtful = {name: each for name, each in gone.items() if name not in places}
    if not doubtful:
        return {}
    try:
        there = yield from driver.lying(instance, job, Verb.TAKE_OUT, doubtful)
    except FleetError as error:
        raise OutcomeUnknown(f"changed, but then the quarantine could not be read: {error.detail}") from error
    return {name: there.places[name] for name in doubtful if name in there.places}


def _result(
    verb: Verb, chosen: Chosen, reported: Reported, now: Mapping[str, QueueEntry], places: Mapping[str, str]
) -> Result:
    outcomes = Outcomes(new_ids=dict(reported.new_ids))
    already = chosen.already
    for entry in chosen.entries:
        name = entry.queue_id
        state = judge(verb, same(now, entry), reported.words.get(name), is_lying=name in places)
        if state is None:
            already += 1
        else:
            outcomes.put([name], state)
    more: MoreOfChanges = {**reported.data, "already": already}
    if verb in (Verb.DELETE, Verb.TAKE_OUT):
        more["places"] = {name: places[name] for name in outcomes.of(MessageState.DONE) if name in places}
    return reported.applied(changed(replace(chosen, notes=(*chosen.notes, *reported.notes)), outcomes, now, more))
