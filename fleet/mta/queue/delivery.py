"""message.deliver, the flow of all MTAs: what stands in the way, plan, attempt, look again, tell how it ended."""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace

from fleet.mta.errors import (
    Conflict,
    FleetError,
    InDelivery,
    MessageNotFound,
    OutcomeUnknown,
    PlanStale,
    Refused,
    RemoteError,
)
from fleet.mta.operations import MessageDeliver
from fleet.mta.queue.listing import Listing, Queue
from fleet.mta.queue.outcome import UNDER_WAY, Chosen, fingerprint_of, is_same, plan_of
from fleet.mta.records import (
    WORST_FIRST,
    Context,
    Ended,
    InstanceFacts,
    MessageOutcome,
    MessageState,
    QueueEntry,
    Result,
)
from fleet.mta.results.changing import MessageDeliverResult, MessageSeen, RecipientAttempt
from fleet.mta.steps import Steps

FROM_THE_LOG = "by the last attempt in the log, which may be older than this job"
ENDS = frozenset({"sent", "bounced", "discarded"})
Judge = Callable[[QueueEntry | None], Result]
"""The result of an attempt, from the message as it is queued afterwards. Raises MessageNotFound."""


@dataclass(frozen=True, slots=True)
class Try:
    """One attempt. `commands`, `notes`: for the plan. `run`: makes it, and returns who can tell its result."""

    commands: Sequence[tuple[str, ...]]
    run: Callable[[], Steps[Judge]]
    notes: Sequence[str] = ()


def _always_ready(instance: InstanceFacts, context: Context) -> Steps[None]:
    """The default of `ready`."""
    yield from ()


@dataclass(frozen=True, slots=True)
class Delivery:
    """How one message of an MTA is attempted.

    `check` raises what needs no look at the host, `ready` what needs one besides the queue. `under_way`: states that
    end in an attempt by themselves. `from_log`: how the last attempt of a message ended that is queued no more; None
    where no log tells.
    """

    queue: Queue
    attempt: Callable[[InstanceFacts, MessageDeliver, Context, QueueEntry, Listing], Try]
    check: Callable[[InstanceFacts], None] = lambda instance: None
    ready: Callable[[InstanceFacts, Context], Steps[None]] = _always_ready
    under_way: frozenset[str] = UNDER_WAY
    from_log: Callable[[InstanceFacts, QueueEntry], Steps[Result | None]] | None = None


def message_deliver(
    delivery: Delivery, instance: InstanceFacts, operation: MessageDeliver, context: Context
) -> Steps[Result]:
    """`message.deliver`. Raises MessageNotFound, PlanStale, InDelivery, MtaNotRunning, Conflict (held, no release)."""
    delivery.check(instance)
    queued, listing = yield from delivery.queue.find(instance, operation.queue_id)
    entry = deliverable(queued, operation, context, delivery.under_way)
    yield from delivery.ready(instance, context)
    attempt = delivery.attempt(instance, operation, context, entry, listing)
    yield plan_of(Chosen((entry,), listing.total), context, attempt.commands, attempt.notes)
    judge = yield from attempt.run()
    return judge((yield from _found_after(delivery, instance, entry.queue_id)))


def _found_after(delivery: Delivery, instance: InstanceFacts, queue_id: str) -> Steps[QueueEntry | None]:
    """The message after the attempt. Raises OutcomeUnknown where the queue does not tell."""
    try:
        after, listing = yield from delivery.queue.find(instance, queue_id)
    except Refused as error:
        raise OutcomeUnknown(f"attempted, but then the queue could not be read: {error.detail}") from error
    if after is None and listing.refused:
        raise OutcomeUnknown(f"attempted, but then {queue_id} was not found: {listing.notes[-1]}")
    return after


def read_back_deliver(delivery: Delivery, instance: InstanceFacts, context: Context) -> Steps[Result | None]:
    """How an attempt ended whose answer was lost. None when neither queue nor log can tell.

    Of a message that is queued still, older attempts are in the log too, so that nothing says that ours was made. Nor
    is one known to have left that was not found among messages that could not be read.
    """
    if not context.frozen or delivery.from_log is None:
        return None
    wanted = context.frozen[0]
    after, listing = yield from delivery.queue.find(instance, wanted.queue_id)
    may_be_queued = listing.refused > 0 if after is None else is_same(after, wanted)
    if may_be_queued:
        return None
    state = wanted.state
    before = QueueEntry(wanted.queue_id, state, state, wanted.arrival_time, wanted.sender, (), wanted.size)
    result = yield from delivery.from_log(instance, before)
    return replace(result, data={**result.data, "notes": [FROM_THE_LOG]}) if result is not None else None


@dataclass(frozen=True, slots=True)
class Attempt:
    """What came of one recipient. `outcome`: sent, deferred, bounced, discarded, or another word of the MTA's.
    `orig_to`: the address before an alias, "" where it is the same."""

    address: str
    outcome: str
    remote: str = ""
    reply: str = ""
    orig_to: str = ""

    def as_json(self) -> RecipientAttempt:
        return {
            "address": self.address,
            "outcome": self.outcome,
            "remote": self.remote,
            "reply": self.reply,
            "orig_to": self.orig_to,
        }


def deliverable(
    entry: QueueEntry | None,
    operation: MessageDeliver,
    context: Context,
    under_way: frozenset[str] = UNDER_WAY,
) -> QueueEntry:
    """The message, when nothing stands in the way of an attempt. `under_way`: states that end in one by themselves.

    Raises MessageNotFound, PlanStale, InDelivery, Conflict (held; release not requested).
    """
    if entry is None:
        raise MessageNotFound(f"{operation.queue_id} is not queued")
    if context.frozen is not None and not any(is_same(entry, wanted) for wanted in context.frozen):
        raise PlanStale(f"{operation.queue_id} now names another message", hint="plan again")
    if entry.state in under_way:
        raise InDelivery(f"{operation.queue_id} is {entry.native_state}: it is being attempted without us right now")
    if entry.state == "hold" and not operation.release:
        raise Conflict(
            f"{operation.queue_id} is on hold ({entry.native_state})",
            hint="set release: true to release and deliver it",
        )
    return entry


def is_told(before: QueueEntry, attempts: Iterable[Attempt]) -> bool:
    """Whether a log tells an attempt for each recipient: syslog drops lines of who logs much (rate limits)."""
    waiting = {each.address.casefold() for each in before.recipients if each.state != "delivered"}
    return len({(each.address, each.orig_to) for each in attempts}) >= len(waiting)


def outcome_of(
    attempts: Iterable[Attempt], *, is_queued: bool, is_returned: bool = False, is_whole: bool = True
) -> str:
    """One word for all recipients, the worst of theirs. What left the queue without a word of it is `left_queue`, never
    `sent`. `is_whole`: an attempt is told of each recipient."""
    outcomes = {each.outcome for each in attempts}
    if is_returned:
        outcomes.add("bounced")
    if is_queued:
        outcomes.add("deferred")
    elif not is_whole or not outcomes or not outcomes <= ENDS:
        outcomes.add("left_queue")
    return next((outcome for outcome in WORST_FIRST if outcome in outcomes), "sent")


def attempted(
    before: QueueEntry,
    after: QueueEntry | None,
    attempts: Sequence[Attempt],
    outcome: str,
    *,
    log: Sequence[str] = (),
    dialogue: Sequence[str] = (),
) -> Result:
    """The result of an attempt that was made. `after`: the same message when it is queued still."""
    telling = next((each for each in attempts if each.outcome == outcome), None)
    data: MessageDeliverResult = {
        "outcome": outcome,
        "remote": telling.remote if telling else "",
        "reply": telling.reply if telling else "",
        "dialogue": list(dialogue),
        "log": list(log),
        "recipients": [each.as_json() for each in attempts],
    }
    earlier: MessageSeen = {"queue_id": before.queue_id, "state": before.state}
    later: MessageSeen = {"queue_id": before.queue_id, "state": after.state if after else "absent"}
    done = (MessageOutcome(before.queue_id, MessageState.DONE),)
    return Result(Ended.SUCCEEDED, data, done, before=earlier, after=later)


def result_by_log(
    before: QueueEntry,
    after: QueueEntry | None,
    attempts: Sequence[Attempt],
    lines: Sequence[str],
    *,
    waited: int,
    is_returned: bool = False,
) -> Result:
    """The result of one attempt of which the log tells. What left the queue without a word in it is `left_queue`, never
    `sent`.

    `lines`: of the log, and `attempts` what they tell of this message. `waited`: seconds for its end.
    """
    still = after if after is not None and is_same(after, fingerprint_of(before)) else None
    if still and not attempts:
        error: FleetError = RemoteError("no attempt was seen in the log", hint="look again later")
        if still.state in UNDER_WAY:
            error = InDelivery(f"the attempt had not ended after {waited} seconds")
        return not_attempted(before, error, log=lines)
    is_whole = is_told(before, attempts)
    outcome = outcome_of(attempts, is_queued=still is not None, is_returned=is_returned, is_whole=is_whole)
    return attempted(before, still, attempts, outcome, log=lines)


def not_attempted(
    before: QueueEntry, error: FleetError, *, log: Sequence[str] = (), dialogue: Sequence[str] = ()
) -> Result:
    """The result when no end of an attempt was seen: in delivery, or left as it was."""
    outcome = MessageState.IN_DELIVERY if isinstance(error, InDelivery) else MessageState.LEFT
    data: MessageDeliverResult = {"log": list(log), "dialogue": list(dialogue)}
    return Result(Ended.FAILED, data, (MessageOutcome(before.queue_id, outcome),), error=error)
