"""Hold, release, purge and bounce. Each is one run of qmail_change.sh, which names the messages by fingerprint again.

What is in delivery cannot be seen in the files, and need not be: files change only while qmail-send is down, and it
goes down only when no delivery runs.
"""

from typing import Any

from fleet.mta.errors import Unsupported
from fleet.mta.operations import QueueBounce, QueueHold, QueuePurge, QueueRelease
from fleet.mta.qmail.attempt_log import DELIVERED, attempts_of, check_watchable, returned, watch
from fleet.mta.qmail.change_script import STOPS, Answer, change, put_verdicts, told
from fleet.mta.qmail.commands import change_argv
from fleet.mta.qmail.queue import QUEUE, proof
from fleet.mta.queue.outcome import Chosen, Outcomes, changed, fingerprint_of, is_same, names, plan_of
from fleet.mta.queue.selection import choose, everything, not_held, releasable
from fleet.mta.records import Context, InstanceFacts, MessageState, QueueEntry, Result
from fleet.mta.steps import Steps

AWAY = (
    "held means: moved to mxfleet-hold/ in the queue directory, unseen by qmail's own tools; queuelifetime goes on, so"
    " what is older is attempted once more after its release, and then bounced"
)
LAST_ATTEMPT = (
    "qmail bounces after one last attempt: where that succeeds, the message is delivered; mail of the null sender goes"
    " to doublebounceto, that of #@[] is discarded"
)


def queue_hold(instance: InstanceFacts, operation: QueueHold, context: Context) -> Steps[Result]:
    """`queue.hold`: out of qmail's sight, into mxfleet-hold/. Messages held already stay so."""
    chosen = yield from choose(QUEUE, instance, operation, context, not_held)
    yield plan_of(chosen, context, [change_argv(instance, "hold")], [STOPS, AWAY])
    return (yield from _moved(instance, "hold", context, chosen, wanted="hold"))


def queue_release(instance: InstanceFacts, operation: QueueRelease, context: Context) -> Steps[Result]:
    """`queue.release`: back into the queue, with the time of the next attempt that it had."""
    chosen = yield from choose(QUEUE, instance, operation, context, releasable(operation.selection, context))
    yield plan_of(chosen, context, [change_argv(instance, "release")], [STOPS])
    return (yield from _moved(instance, "release", context, chosen, wanted=""))


def _moved(instance: InstanceFacts, action: str, context: Context, chosen: Chosen, *, wanted: str) -> Steps[Result]:
    """Hold or release, seen in the queue afterwards. What was released may have been delivered by then."""
    answer = yield from change(instance, action, context.job, chosen.entries)
    now = yield from proof(instance, names(chosen.entries))
    outcomes = Outcomes()
    put_verdicts(answer, names(chosen.entries), outcomes)
    for entry in chosen.entries:
        current = now.get(entry.queue_id)
        is_queued = current is not None and is_same(current, fingerprint_of(entry))
        is_held = is_queued and current is not None and current.state == "hold"
        if entry.queue_id in answer.are("done") and is_held != (wanted == "hold"):
            outcomes.put([entry.queue_id], MessageState.LEFT)
    return finished(chosen, outcomes, now, answer)


def queue_purge(instance: InstanceFacts, operation: QueuePurge, context: Context) -> Steps[Result]:
    """`queue.purge`: deleted, or moved to mxfleet-quarantine/JOB/. Those in todo/ and held ones too."""
    chosen = yield from choose(QUEUE, instance, operation, context, everything)
    action = "delete" if operation.mode == "delete" else "quarantine"
    yield plan_of(chosen, context, [change_argv(instance, action)], [STOPS])
    answer = yield from change(instance, action, context.job, chosen.entries)
    now = yield from proof(instance, names(chosen.entries))
    outcomes = Outcomes()
    put_verdicts(answer, names(chosen.entries), outcomes)
    same = {e.queue_id: now[e.queue_id] for e in chosen.entries if still_there(now, e)}
    outcomes.put(same, MessageState.LEFT)
    places = {name: place(instance, context.job, name) for name in outcomes.of(MessageState.DONE)}
    return finished(chosen, outcomes, same, answer, places=places if action == "quarantine" else {})


def queue_bounce(instance: InstanceFacts, operation: QueueBounce, context: Context) -> Steps[Result]:
    """`queue.bounce`: made older than queuelifetime and due, so that qmail-send's next attempt is the last.

    Proof: qmail-send's log says "bounce msg ID". Raises Unsupported where it must not notify, or has no log to read.
    """
    if not operation.notify:
        raise Unsupported("qmail always notifies the sender of a bounce")
    check_watchable(instance)
    chosen = yield from choose(QUEUE, instance, operation, context, not_held)
    yield plan_of(chosen, context, [change_argv(instance, "bounce")], [STOPS, LAST_ATTEMPT])
    answer = yield from change(instance, "bounce", context.job, chosen.entries)
    due = [entry for entry in chosen.entries if entry.queue_id in answer.are("done")]
    lines = yield from watch(instance, due, answer)
    now = yield from proof(instance, names(chosen.entries))
    bounced = returned(lines)
    outcomes = Outcomes()
    put_verdicts(answer, names(chosen.entries), outcomes)
    for entry in due:
        name = entry.queue_id
        if still_there(now, entry):
            began = attempts_of(lines, name)
            outcomes.put([name], MessageState.IN_DELIVERY if began else MessageState.LEFT)
        else:
            outcomes.put([name], MessageState.DONE if name in bounced else MessageState.ALREADY_GONE)
    delivered = [
        e.queue_id for e in due if any(a.outcome == DELIVERED for a in attempts_of(lines, e.queue_id).values())
    ]
    return finished(chosen, outcomes, now, answer, delivered=delivered)


def still_there(now: dict[str, QueueEntry], entry: QueueEntry) -> bool:
    """Whether that message, and no other under its ID, is in the queue."""
    current = now.get(entry.queue_id)
    return current is not None and is_same(current, fingerprint_of(entry))


def place(instance: InstanceFacts, job: str, queue_id: str) -> str:
    """Where a quarantined message lies: mess/, info/ and the others in that job's directory."""
    return f"{instance.queue_dirs[0]}/mxfleet-quarantine/{job}/{queue_id}"


def finished(chosen: Chosen, outcomes: Outcomes, now: dict[str, QueueEntry], answer: Answer, **data: Any) -> Result:
    """The result with what the queue held before and after. Raises OutcomeUnknown when qmail-send did not come up."""
    answer.check_running()
    return told(changed(chosen, outcomes, now, service=answer.status, **data), answer)
