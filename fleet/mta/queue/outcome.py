"""What every adapter's changes of messages share: which messages, within which limits, and what became of each.

A message is named by its fingerprint, never by its queue ID alone. Counts: operations.md, general rules.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from functools import wraps
from typing import ParamSpec

from fleet.match import Entry
from fleet.mta.errors import Conflict, FleetError, InDelivery, OutcomeUnknown, PlanStale, Refused, TooMany
from fleet.mta.operations import Limits
from fleet.mta.records import Context, Ended, Fingerprint, MessageOutcome, MessageState, QueueEntry, Result
from fleet.mta.results.changing import MessageCounts, MessagesChanged, MessagesSeen, MoreOfChanges
from fleet.mta.steps import Command, Plan, Steps, T

P = ParamSpec("P")
SHOWN = 20
UNDER_WAY = frozenset({"active", "incoming", "maildrop"})
"""States of a queued message that end by themselves, without us: it is being delivered, or is not yet in the queue."""


class Verb(StrEnum):
    """What is done to a message of the queue, or of the quarantine."""

    HOLD = "hold"
    RELEASE = "release"
    DELETE = "delete"
    TAKE_OUT = "take_out"
    PUT_BACK = "put_back"
    ERASE = "erase"
    ATTEMPT = "attempt"
    BOUNCE = "bounce"
    REQUEUE = "requeue"


class Word(StrEnum):
    """What the host reported of one message: done, busy, or something of it was left. It may report nothing."""

    DONE = "done"
    BUSY = "busy"
    LEFT = "left"


@dataclass(frozen=True, slots=True)
class Chosen:
    """The messages that an operation is about.

    `entries`: what is queued of them now. `gone`: queue IDs asked for that are not queued. `stale`: queue IDs asked for
    that now name another message; `kept_back`: those that somebody else has put on hold since the plan. Neither are
    touched. `new`: messages that would match and that the plan does not name. `total`: messages in the queue.
    `already`: how many are in the wanted state and so were not chosen. `freed`: our holds that are none any more.
    """

    entries: tuple[QueueEntry, ...]
    total: int
    gone: tuple[str, ...] = ()
    stale: tuple[str, ...] = ()
    kept_back: tuple[str, ...] = ()
    new: int = 0
    already: int = 0
    notes: tuple[str, ...] = ()
    freed: tuple[Fingerprint, ...] = ()


@dataclass(slots=True)
class Outcomes:
    """What became of each message, collected while an operation goes on."""

    states: dict[str, MessageState] = field(default_factory=dict)
    new_ids: dict[str, str] = field(default_factory=dict)

    def put(self, queue_ids: Iterable[str], state: MessageState) -> None:
        for queue_id in queue_ids:
            self.states[queue_id] = state

    def of(self, state: MessageState) -> tuple[str, ...]:
        return tuple(queue_id for queue_id, each in self.states.items() if each is state)

    def messages(self) -> tuple[MessageOutcome, ...]:
        return tuple(MessageOutcome(name, state, self.new_ids.get(name, "")) for name, state in self.states.items())


def fingerprint_of(entry: Entry) -> Fingerprint:
    """What names the message, with what an approver wants to see of it: state, five recipients, subject."""
    return Fingerprint(
        queue_id=entry.queue_id,
        arrival_time=entry.arrival_time,
        sender=entry.sender,
        size=entry.size,
        state=entry.state,
        recipients=tuple(recipient.address for recipient in entry.recipients[:5]),
        subject=(entry.subject or "") if isinstance(entry, QueueEntry) else "",
    )


def is_same(entry: QueueEntry, wanted: Fingerprint) -> bool:
    """Whether the entry is the message that the fingerprint names, whatever its state."""
    return fingerprint_of(entry) == wanted


def same(now: Mapping[str, QueueEntry], entry: QueueEntry) -> QueueEntry | None:
    """What is queued now of this very message."""
    current = now.get(entry.queue_id)
    return current if current and is_same(current, fingerprint_of(entry)) else None


def judge(verb: Verb, now: QueueEntry | None, word: Word | None, *, is_lying: bool = False) -> MessageState | None:
    """What became of a message: what the host reported of it and what is there afterwards must agree.

    `now`: the very message as it is queued after all, or None. `is_lying`: it lies in the job's quarantine, or cannot
    come back from there, since another message has its ID. None: it was in the wanted state already, and not by us, so
    it never counts as ours.
    """
    if word is Word.BUSY:
        return MessageState.IN_DELIVERY
    if verb in (Verb.ATTEMPT, Verb.REQUEUE) and word is Word.DONE:
        return MessageState.DONE
    if now is None:
        return _gone(verb, word, is_lying=is_lying)
    if verb is Verb.PUT_BACK:
        return MessageState.DONE
    if verb in (Verb.HOLD, Verb.RELEASE) and (now.state == "hold") == (verb is Verb.HOLD):
        return MessageState.DONE if word is Word.DONE else None
    is_reported = word is Word.LEFT or (verb is Verb.HOLD and word is Word.DONE)
    is_under_way = now.state in UNDER_WAY and not is_reported
    return MessageState.IN_DELIVERY if is_under_way else MessageState.LEFT


def _gone(verb: Verb, word: Word | None, *, is_lying: bool) -> MessageState:
    """Of a message that is not queued. What was released or put back may have been delivered since, what was held not.

    Only what lay in the quarantine is asked after when it is erased.
    """
    if verb is Verb.ERASE:
        return MessageState.LEFT if is_lying or word is Word.LEFT else MessageState.DONE
    if verb is Verb.PUT_BACK and is_lying and word is not Word.DONE:
        return MessageState.LEFT
    if verb is Verb.TAKE_OUT:
        return MessageState.DONE if is_lying else MessageState.ALREADY_GONE
    if word is Word.LEFT:
        return MessageState.LEFT
    is_ours = word is Word.DONE and verb in (Verb.RELEASE, Verb.DELETE, Verb.BOUNCE, Verb.PUT_BACK)
    return MessageState.DONE if is_ours else MessageState.ALREADY_GONE


def unless_changed(flow: Callable[P, Steps[T]]) -> Callable[P, Steps[T]]:
    """The same flow, and OutcomeUnknown for what the host refuses after a changing command that it carried out.

    Many messages take several commands, and no refusal of a later one says what the earlier ones have done. A refusal
    after which the flow put that right stays one: `is_put_right`.
    """

    @wraps(flow)
    def guarded(*args: P.args, **kwargs: P.kwargs) -> Steps[T]:
        steps = flow(*args, **kwargs)
        has_changed, answer, step = False, None, None
        while True:
            try:
                following = steps.send(answer)
            except StopIteration as end:
                result: T = end.value
                return result
            except Refused as error:
                if error.is_put_right or not has_changed:
                    raise
                detail = f"some messages were changed, and then: {error.detail}"
                raise OutcomeUnknown(detail, hint=error.hint, cause=error.code) from error
            has_changed = has_changed or (isinstance(step, Command) and step.mutates)
            step = following
            answer = yield step

    return guarded


def check_limits(limits: Limits, matched: int, total: int) -> None:
    """Raises TooMany when more messages of one queue are selected than the request allows."""
    if matched > limits.max_messages:
        raise TooMany(
            f"{matched} messages match, max_messages is {limits.max_messages}",
            hint="narrow the match or raise params.max_messages",
            matched=matched,
            limit=limits.max_messages,
        )
    if limits.max_fraction is not None and total and matched / total > limits.max_fraction:
        raise TooMany(
            f"{matched} of {total} messages match, max_fraction is {limits.max_fraction:g}",
            hint="narrow the match or raise params.max_fraction",
            matched=matched,
            total=total,
            limit=limits.max_fraction,
        )


def check_stale(chosen: Chosen) -> None:
    """Raises PlanStale when nothing of the plan is left and one of its queue IDs names another message now."""
    if chosen.stale and not chosen.entries:
        raise PlanStale(
            f"{len(chosen.stale)} queue IDs of the plan now name other messages, and none of its messages is left",
            hint="plan again",
            queue_ids=list(chosen.stale[:SHOWN]),
        )


def plan_of(chosen: Chosen, context: Context, commands: Sequence[tuple[str, ...]], notes: Iterable[str] = ()) -> Plan:
    """The plan for the chosen messages. `foreign_holds` are those that no job of ours put on hold."""
    selected = tuple(fingerprint_of(entry) for entry in chosen.entries)
    return Plan(
        selected=selected,
        queue_total=chosen.total,
        bytes=sum(each.size for each in selected),
        commands=tuple(commands) if selected else (),
        notes=(*chosen.notes, *stale_notes(chosen), *notes),
        foreign_holds=sum(each.state == "hold" and each not in context.ours for each in selected),
        gone=len(chosen.gone) + len(chosen.stale),
        new=chosen.new,
        freed=chosen.freed,
    )


def stale_notes(chosen: Chosen) -> tuple[str, ...]:
    """The sentences about what the plan names and is left alone."""
    notes = []
    if chosen.stale:
        shown = " ".join(chosen.stale[:SHOWN])
        notes.append(f"queue IDs that now name other messages, which are left alone: {len(chosen.stale)} ({shown})")
    if chosen.kept_back:
        shown = " ".join(chosen.kept_back[:SHOWN])
        notes.append(f"messages that somebody put on hold since the plan: {len(chosen.kept_back)} are left ({shown})")
    return tuple(notes)


def evidence(entries: Mapping[str, QueueEntry], queue_ids: Sequence[str]) -> MessagesSeen:
    """Counts per state and the first 20 queue IDs with their states, "absent" for what is not queued."""
    states = [entries[name].state if name in entries else "absent" for name in queue_ids]
    return {
        "count": len(queue_ids),
        "states": {state: states.count(state) for state in sorted(set(states))},
        "messages": [
            {"queue_id": name, "state": state} for name, state in zip(queue_ids[:SHOWN], states, strict=False)
        ],
    }


def names(entries: Iterable[QueueEntry]) -> tuple[str, ...]:
    """Their queue IDs."""
    return tuple(entry.queue_id for entry in entries)


def changed(chosen: Chosen, outcomes: Outcomes, now: Mapping[str, QueueEntry], more: MoreOfChanges) -> Result:
    """The result with what the queue held before and holds `now` as its evidence."""
    requested = names(chosen.entries)
    return result_of(
        chosen,
        outcomes,
        before=evidence({entry.queue_id: entry for entry in chosen.entries}, requested),
        after=evidence(now, requested),
        more=more,
    )


def result_of(
    chosen: Chosen,
    outcomes: Outcomes,
    *,
    before: MessagesSeen | None = None,
    after: MessagesSeen | None = None,
    more: MoreOfChanges | None = None,
) -> Result:
    """The result from what became of each message; queue IDs gone or stale count as already gone.

    Succeeded only when every message asked for is done, gone from the queue since, or already gone; only the last:
    unchanged.
    """
    outcomes.put((*chosen.gone, *chosen.stale), MessageState.ALREADY_GONE)
    outcomes.put(chosen.kept_back, MessageState.LEFT)
    counts: MessageCounts = {
        "done": len(outcomes.of(MessageState.DONE)),
        "already_gone": len(outcomes.of(MessageState.ALREADY_GONE)),
        "left_queue": len(outcomes.of(MessageState.LEFT_QUEUE)),
        "in_delivery": len(outcomes.of(MessageState.IN_DELIVERY)),
        "left": len(outcomes.of(MessageState.LEFT)),
    }
    notes = [*chosen.notes, *stale_notes(chosen)]
    data: MessagesChanged = {"asked": len(outcomes.states), **counts, "notes": notes, **(more or {})}
    return Result(
        ended=_ended(counts),
        data=data,
        messages=outcomes.messages(),
        before=before,
        after=after,
        error=_error(counts),
    )


def _ended(counts: MessageCounts) -> Ended:
    if counts["in_delivery"] or counts["left"]:
        return Ended.FAILED
    return Ended.SUCCEEDED if counts["done"] or counts["left_queue"] else Ended.UNCHANGED


def _error(counts: MessageCounts) -> FleetError | None:
    if counts["left"]:
        return Conflict(f"{counts['left']} messages are as they were", hint="look why, then retry the job", **counts)
    if counts["in_delivery"]:
        return InDelivery(f"{counts['in_delivery']} messages are being delivered and were left alone", **counts)
    return None
