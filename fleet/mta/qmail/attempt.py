"""message.deliver, with what came of it by the queue and by qmail-send's log (qmail-log(5)).

The log tells of deliveries by number, and of the bounce of a message.
"""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from functools import partial

from fleet.mta.errors import Conflict, FleetError, InDelivery, MessageNotFound, RemoteError, Unsupported
from fleet.mta.host.commands import lines_of, reading
from fleet.mta.logs.heads import without_times
from fleet.mta.operations import MessageDeliver
from fleet.mta.qmail.commands import NOT_STOPPED, STOPS, UP, WATCH, Answer, change, change_argv, log_source
from fleet.mta.qmail.lines import BOUNCE, STARTING, ended_line, words_of
from fleet.mta.qmail.queue import QUEUE
from fleet.mta.qmail.virtual import NONE, Virtual
from fleet.mta.queue.delivery import Attempt, Delivery, Judge, Try, attempted, is_told, not_attempted, outcome_of
from fleet.mta.queue.listing import Listing
from fleet.mta.queue.outcome import same
from fleet.mta.records import Context, Ended, InstanceFacts, MessageOutcome, MessageState, QueueEntry, Result
from fleet.mta.steps import Steps, run

WAIT_SECONDS = 40
DELIVERED = "sent"


def check_watchable(instance: InstanceFacts) -> None:
    """Raises Unsupported where qmail-send's log cannot be read: nothing could be proven."""
    if log_source(instance) == "none":
        raise Unsupported("qmail-send's log is nowhere to be read, so what comes of an attempt cannot be told")


def watch(instance: InstanceFacts, messages: Sequence[QueueEntry], answer: Answer) -> Steps[list[str]]:
    """The log's lines about these messages' attempts since qmail-send was down; waits for their end, at most 40 s."""
    if not messages or answer.mark is None:
        return []
    wanted = "".join(f"{each.queue_id} {to_do(each)}\n" for each in messages)
    command = reading(
        WATCH,
        (log_source(instance),),
        f"{answer.mark[0]} {answer.mark[1]} {WAIT_SECONDS}\n{wanted}".encode(),
        most=16 << 20,
    )
    return lines_of((yield from run(command)), WATCH)


def to_do(entry: QueueEntry) -> int:
    """How many recipients are not done."""
    return sum(each.state != "delivered" for each in entry.recipients)


def said_in(lines: Iterable[str]) -> Iterator[str]:
    """qmail-send's words in lines of its log."""
    return map(words_of, without_times(lines))


def attempts_of(lines: Sequence[str], queue_id: str, virtual: Virtual = NONE) -> tuple[Attempt, ...]:
    """The message's last attempt for each recipient, with an empty outcome while it goes on.

    Delivery numbers begin anew with every start of qmail-send.
    """
    attempts: dict[str, Attempt] = {}
    live: dict[str, str] = {}
    for text in said_in(lines):
        began, ended = STARTING.fullmatch(text), ended_line(text)
        if began:
            live.pop(began[1], None)
        if began and began[2] == queue_id:
            address = began[4]
            known = virtual.known(address) if began[3] == "local" else address
            attempts[address] = Attempt(known, "", orig_to="" if known == address else address)
            live[began[1]] = address
        elif ended and ended.number in live:
            address = live.pop(ended.number)
            outcome = "bounced" if ended.status == "expired" else ended.status
            attempts[address] = replace(attempts[address], outcome=outcome, remote=ended.host, reply=ended.reply)
    return tuple(attempts.values())


def returned(lines: Sequence[str]) -> frozenset[str]:
    """The messages that were given up: bounced to their sender, or discarded as a bounce that bounced twice."""
    matches = map(BOUNCE.fullmatch, said_in(lines))
    return frozenset(match[1] or match[2] for match in matches if match)


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
    return lambda after: attempt_result(entry, after, lines, Virtual.of(instance))


def _failed(answer: Answer, entry: QueueEntry) -> FleetError | None:
    if answer.is_stopping:
        return InDelivery(NOT_STOPPED, hint="try again when the delivery has ended", status=answer.status)
    if not answer.was_up:
        return Conflict("qmail-send is down, so nothing is attempted", hint="start it, then try again")
    if entry.queue_id in answer.are("done"):
        return None
    if entry.queue_id in answer.are("gone"):
        return MessageNotFound(f"{entry.queue_id} left the queue meanwhile")
    return Conflict(f"{entry.queue_id}: {answer.verdicts.get(entry.queue_id, 'nothing was said of it')}")


def attempt_result(
    before: QueueEntry, after: QueueEntry | None, lines: Sequence[str], virtual: Virtual = NONE
) -> Result:
    """The result of one attempt. What left the queue without a word in the log is `left_queue`, never `sent`."""
    name = before.queue_id
    still = same({name: after} if after else {}, before)
    attempts = attempts_of(lines, name, virtual)
    ended = tuple(each for each in attempts if each.outcome)
    if still and (not ended or len(ended) < len(attempts)):
        error: FleetError = RemoteError("no attempt was seen in the log", hint="look again later")
        if attempts:
            error = InDelivery(f"the attempt had not ended after {WAIT_SECONDS} seconds")
        return not_attempted(before, error, log=lines)
    is_whole = is_told(before, ended)
    outcome = outcome_of(ended, is_queued=still is not None, is_returned=name in returned(lines), is_whole=is_whole)
    return attempted(before, still, attempts, outcome, log=lines)


DELIVERY = Delivery(QUEUE, attempt, check_watchable, check_up)
