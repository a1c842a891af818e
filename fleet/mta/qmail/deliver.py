"""One message: message.show as it is stored, message.deliver with what came of it by the log and the queue."""

from collections.abc import Sequence

from fleet.mta.changed import Chosen, is_same, plan_of
from fleet.mta.errors import Conflict, FleetError, InDelivery, MessageNotFound, PlanStale, RemoteError
from fleet.mta.operations import MessageDeliver, MessageShow
from fleet.mta.qmail import content
from fleet.mta.qmail.changes import still_there
from fleet.mta.qmail.changing import NOT_STOPPED, STOPS, Answer, change
from fleet.mta.qmail.commands import change_argv
from fleet.mta.qmail.listing import QUEUE
from fleet.mta.qmail.watching import WAIT_SECONDS, attempts_of, check_watchable, returned, watch
from fleet.mta.types import (
    Context,
    Ended,
    InstanceFacts,
    MessageOutcome,
    MessageState,
    QueueEntry,
    Result,
    Steps,
)


def message_show(instance: InstanceFacts, operation: MessageShow, context: Context) -> Steps[Result]:
    """`message.show`. Raises MessageNotFound."""
    entry, _ = yield from QUEUE.find(instance, operation.queue_id)
    if entry is None:
        raise MessageNotFound(f"{operation.queue_id} is not queued")
    return Result(Ended.SUCCEEDED, (yield from content.message_show(instance, operation, entry)))


def message_deliver(instance: InstanceFacts, operation: MessageDeliver, context: Context) -> Steps[Result]:
    """`message.deliver`: due at once, by the time of its files in remote/ and local/, read at the start.

    Raises MessageNotFound, InDelivery, Conflict (held; release not said; qmail-send is down), Unsupported.
    """
    check_watchable(instance)
    entry, listing = yield from QUEUE.find(instance, operation.queue_id)
    check(entry, operation, context)
    assert entry is not None  # noqa: S101 - check() raises; this is for the type checker
    actions = ["release", "try"] if entry.state == "hold" else ["try"]
    yield plan_of(Chosen((entry,), listing.total), context, [change_argv(instance, each) for each in actions], [STOPS])
    for action in actions:
        answer = yield from change(instance, action, context.job, [entry])
        if error := _failed(answer, entry):
            return Result(Ended.FAILED, {}, (MessageOutcome(entry.queue_id, MessageState.LEFT),), error=error)
    answer.check_running()
    lines = yield from watch(instance, [entry], answer)
    after, _ = yield from QUEUE.find(instance, entry.queue_id)
    return judged(entry, after, lines)


def _failed(answer: Answer, entry: QueueEntry) -> FleetError | None:
    if answer.is_stopping:
        return InDelivery(NOT_STOPPED, hint="try again when the delivery has ended", status=answer.status)
    if not answer.was_up:
        return Conflict("qmail-send is down, so nothing is attempted", hint="start it, then try again")
    if entry.queue_id in answer.are("done"):
        return None
    if entry.queue_id in answer.are("gone"):
        return MessageNotFound(f"{entry.queue_id} left the queue meanwhile")
    return Conflict(f"{entry.queue_id}: {answer.said.get(entry.queue_id, 'nothing was said of it')}")


def check(entry: QueueEntry | None, operation: MessageDeliver, context: Context) -> None:
    """Raises what stands in the way of an attempt."""
    if entry is None:
        raise MessageNotFound(f"{operation.queue_id} is not queued")
    if context.frozen is not None and not any(is_same(entry, wanted) for wanted in context.frozen):
        raise PlanStale(f"{operation.queue_id} now names another message", hint="plan again")
    if entry.state == "incoming":
        raise InDelivery(f"{operation.queue_id} is in todo/: qmail-send attempts it as soon as it takes it in")
    if entry.state == "hold" and not operation.release:
        raise Conflict(f"{operation.queue_id} is on hold", hint="set release: true to release and deliver it")


def judged(before: QueueEntry, after: QueueEntry | None, lines: Sequence[str]) -> Result:
    """The result of one attempt. What left the queue without a word in the log is `left_queue`, never `sent`."""
    name = before.queue_id
    is_queued = still_there({name: after} if after else {}, before)
    attempts = attempts_of(lines, name)
    ended = [each for each in attempts.values() if each.outcome]
    if is_queued and (not ended or len(ended) < len(attempts)):
        error: FleetError = RemoteError("no attempt was seen in the log", hint="look again later")
        if attempts:
            error = InDelivery(f"the attempt had not ended after {WAIT_SECONDS} seconds")
        outcome = MessageState.IN_DELIVERY if attempts else MessageState.LEFT
        return Result(Ended.FAILED, {"log": list(lines)}, (MessageOutcome(name, outcome),), error=error)
    said = outcome_of([each.outcome for each in ended], is_queued=is_queued, is_returned=name in returned(lines))
    telling = next((each for each in ended if each.outcome == said), None)
    data = {
        "outcome": said,
        "remote": telling.remote if telling else "",
        "reply": telling.reply if telling else "",
        "dialogue": [],
        "log": list(lines),
        "recipients": [
            {"address": each.address, "outcome": each.outcome, "remote": each.remote, "reply": each.reply}
            for each in attempts.values()
        ],
    }
    return Result(
        Ended.SUCCEEDED,
        data,
        (MessageOutcome(name, MessageState.DONE),),
        before={"queue_id": name, "state": before.state},
        after={"queue_id": name, "state": after.state if after and is_queued else "absent"},
    )


def outcome_of(outcomes: Sequence[str], *, is_queued: bool, is_returned: bool) -> str:
    """One word for all recipients: queued still is deferred; gone is bounced when any was, sent when all were."""
    if is_queued:
        return "deferred"
    if is_returned or "bounced" in outcomes:
        return "bounced"
    return "sent" if set(outcomes) == {"sent"} else "left_queue"
