"""message.deliver, with what came of it by the log and the queue."""

from collections.abc import Sequence
from functools import partial

from fleet.mta.errors import Conflict, FleetError, InDelivery, MessageNotFound, RemoteError
from fleet.mta.operations import MessageDeliver
from fleet.mta.qmail.attempt_log import WAIT_SECONDS, attempts_of, check_watchable, returned, watch
from fleet.mta.qmail.change_script import NOT_STOPPED, STOPS, UP, Answer, change
from fleet.mta.qmail.commands import change_argv
from fleet.mta.qmail.queue import QUEUE
from fleet.mta.queue.delivery import Delivery, Judge, Try, attempted, not_attempted, outcome_of
from fleet.mta.queue.listing import Listing
from fleet.mta.queue.outcome import same
from fleet.mta.records import Context, Ended, InstanceFacts, MessageOutcome, MessageState, QueueEntry, Result
from fleet.mta.steps import Steps


def check_up(instance: InstanceFacts, context: Context) -> Steps[None]:
    """Raises Conflict while qmail-send is down."""
    if not UP.search((yield from change(instance, "look", context.job, ())).status):
        raise Conflict("qmail-send is down, so nothing would be attempted", hint="start it, then try again")


def attempt(
    instance: InstanceFacts, operation: MessageDeliver, context: Context, entry: QueueEntry, listing: Listing
) -> Try:
    """Due at once, by the time of its files in remote/ and local/, read at the start of qmail-send."""
    actions = ["release", "try"] if entry.state == "hold" else ["try"]
    commands = [change_argv(instance, each) for each in actions]
    return Try(commands, partial(_attempt, instance, context.job, entry, actions), [STOPS])


def _attempt(instance: InstanceFacts, job: str, entry: QueueEntry, actions: Sequence[str]) -> Steps[Judge]:
    for action in actions:
        answer = yield from change(instance, action, job, [entry])
        if error := _failed(answer, entry):
            left = (MessageOutcome(entry.queue_id, MessageState.LEFT),)
            result = Result(Ended.FAILED, {}, left, error=error)
            return lambda after: result
    answer.check_running()
    lines = yield from watch(instance, [entry], answer)
    return lambda after: judged(entry, after, lines)


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


def judged(before: QueueEntry, after: QueueEntry | None, lines: Sequence[str]) -> Result:
    """The result of one attempt. What left the queue without a word in the log is `left_queue`, never `sent`."""
    name = before.queue_id
    still = same({name: after} if after else {}, before)
    attempts = tuple(attempts_of(lines, name).values())
    ended = tuple(each for each in attempts if each.outcome)
    if still and (not ended or len(ended) < len(attempts)):
        error: FleetError = RemoteError("no attempt was seen in the log", hint="look again later")
        if attempts:
            error = InDelivery(f"the attempt had not ended after {WAIT_SECONDS} seconds")
        return not_attempted(before, error, log=lines)
    said = outcome_of(ended, is_queued=still is not None, is_returned=name in returned(lines))
    return attempted(before, still, attempts, said, log=lines)


DELIVERY = Delivery(QUEUE, attempt, check_watchable, check_up)
