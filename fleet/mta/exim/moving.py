"""Flush and bounce: what makes Exim do something at once."""

from fleet.mta.errors import Unsupported
from fleet.mta.exim.commands import attempt, bounce, change_argv, program
from fleet.mta.exim.driver import SKIPPED, same
from fleet.mta.exim.queue import QUEUE
from fleet.mta.operations import QueueBounce, QueueFlush
from fleet.mta.queue.outcome import Outcomes, changed, names, plan_of
from fleet.mta.queue.selection import choose, everything, not_held
from fleet.mta.records import Context, InstanceFacts, MessageState, Result
from fleet.mta.steps import Steps

DROPPED = "a message from <> is dropped: there is nobody to return it to"


def queue_flush(instance: InstanceFacts, operation: QueueFlush, context: Context) -> Steps[Result]:
    """`queue.flush`: a forced queue run for each message (-R takes substrings). Done: Exim says that it delivers it."""
    chosen = yield from choose(QUEUE, instance, operation, context, not_held)
    yield plan_of(chosen, context, [(program(instance), "-qf", "ID", "ID")])
    begun = yield from attempt(instance, names(chosen.entries))
    now = yield from QUEUE.proof(instance, names(chosen.entries))
    outcomes = Outcomes()
    for entry in chosen.entries:
        current = same(now, entry)
        if entry.queue_id in begun:
            outcomes.put([entry.queue_id], MessageState.DONE)
        elif current is None:
            outcomes.put([entry.queue_id], MessageState.ALREADY_GONE)
        else:
            is_delivering = current.state == "active"
            outcomes.put([entry.queue_id], MessageState.IN_DELIVERY if is_delivering else MessageState.LEFT)
    return changed(chosen, outcomes, now)


def queue_bounce(instance: InstanceFacts, operation: QueueBounce, context: Context) -> Steps[Result]:
    """`queue.bounce`: given up (-Mg), frozen ones too. Done: Exim says it cancelled it, and it is gone.

    Raises Unsupported without notice.
    """
    if not operation.notify:
        raise Unsupported("Exim always sends the notice", hint="purge the messages instead")
    chosen = yield from choose(QUEUE, instance, operation, context, everything)
    yield plan_of(chosen, context, [change_argv(instance, "-Mg")], [SKIPPED, DROPPED])
    cancelled = yield from bounce(instance, names(chosen.entries))
    now = yield from QUEUE.proof(instance, names(chosen.entries))
    outcomes = Outcomes()
    for entry in chosen.entries:
        current = same(now, entry)
        if current is None:
            is_ours = entry.queue_id in cancelled
            outcomes.put([entry.queue_id], MessageState.DONE if is_ours else MessageState.ALREADY_GONE)
        else:
            is_delivering = current.state == "active"
            outcomes.put([entry.queue_id], MessageState.IN_DELIVERY if is_delivering else MessageState.LEFT)
    return changed(chosen, outcomes, now)
