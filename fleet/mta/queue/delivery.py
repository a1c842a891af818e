"""message.deliver, what is the same on every MTA: what stands in the way, and how the end of an attempt is told."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from fleet.mta.errors import Conflict, FleetError, InDelivery, MessageNotFound, PlanStale
from fleet.mta.operations import MessageDeliver
from fleet.mta.queue.outcome import UNDER_WAY, is_same
from fleet.mta.records import Context, Ended, MessageOutcome, MessageState, QueueEntry, Result


@dataclass(frozen=True, slots=True)
class Attempt:
    """What came of one recipient. `outcome`: sent, deferred, bounced, or another word of the MTA's."""

    address: str
    outcome: str
    remote: str = ""
    reply: str = ""


def deliverable(
    entry: QueueEntry | None,
    operation: MessageDeliver,
    context: Context,
    under_way: frozenset[str] = UNDER_WAY,
) -> QueueEntry:
    """The message, when nothing stands in the way of an attempt. `under_way`: states that end in one by themselves.

    Raises MessageNotFound, PlanStale, InDelivery, Conflict (held; release not said).
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


def outcome_of(attempts: Iterable[Attempt], *, is_queued: bool, is_returned: bool = False) -> str:
    """One word for all recipients: queued still is deferred; gone is bounced when any was, sent when all were.

    What left the queue without a word of it is `left_queue`, never `sent`.
    """
    if is_queued:
        return "deferred"
    outcomes = {each.outcome for each in attempts}
    if is_returned or "bounced" in outcomes:
        return "bounced"
    return "sent" if outcomes == {"sent"} else "left_queue"


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
    data = {
        "outcome": outcome,
        "remote": telling.remote if telling else "",
        "reply": telling.reply if telling else "",
        "dialogue": list(dialogue),
        "log": list(log),
        "recipients": [
            {"address": each.address, "outcome": each.outcome, "remote": each.remote, "reply": each.reply}
            for each in attempts
        ],
    }
    return Result(
        Ended.SUCCEEDED,
        data,
        (MessageOutcome(before.queue_id, MessageState.DONE),),
        before={"queue_id": before.queue_id, "state": before.state},
        after={"queue_id": before.queue_id, "state": after.state if after else "absent"},
    )


def not_attempted(
    before: QueueEntry, error: FleetError, *, log: Sequence[str] = (), dialogue: Sequence[str] = ()
) -> Result:
    """The result when no end of an attempt was seen: in delivery, or left as it was."""
    outcome = MessageState.IN_DELIVERY if isinstance(error, InDelivery) else MessageState.LEFT
    data = {"log": list(log), "dialogue": list(dialogue)}
    return Result(Ended.FAILED, data, (MessageOutcome(before.queue_id, outcome),), error=error)
