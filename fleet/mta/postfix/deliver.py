"""One message: message.show as it is stored, message.deliver with what came of it by the log and the queue."""

from collections.abc import Sequence

from fleet.mta.changed import Chosen, fingerprint_of, is_same, plan_of
from fleet.mta.errors import Conflict, InDelivery, MessageNotFound, MtaNotRunning, PlanStale, RemoteError
from fleet.mta.operations import MessageDeliver, MessageShow
from fleet.mta.postfix import content
from fleet.mta.postfix.commands import (
    DELIVER,
    DELIVER_SECONDS,
    WAIT_SECONDS,
    deliver_arguments,
    postsuper,
    postsuper_argv,
    program,
)
from fleet.mta.postfix.listing import DOWN, QUEUE
from fleet.mta.postfix.log import Attempt, attempts_of, log_lines, parse_lines, returned
from fleet.mta.postfix.parse import ids_input, parse_verdicts
from fleet.mta.types import (
    Command,
    Context,
    Ended,
    InstanceFacts,
    MessageOutcome,
    MessageState,
    QueueEntry,
    Result,
    Steps,
    run,
)


def message_show(instance: InstanceFacts, operation: MessageShow, context: Context) -> Steps[Result]:
    """`message.show`. Raises MessageNotFound."""
    entry, _ = yield from QUEUE.find(instance, operation.queue_id)
    if entry is None:
        raise MessageNotFound(f"{operation.queue_id} is not queued")
    return Result(Ended.SUCCEEDED, (yield from content.message_show(instance, operation, entry)))


def message_deliver(instance: InstanceFacts, operation: MessageDeliver, context: Context) -> Steps[Result]:
    """`message.deliver`. Raises MessageNotFound, InDelivery, MtaNotRunning, Conflict (held; release not said)."""
    entry, listing = yield from QUEUE.find(instance, operation.queue_id)
    check(entry, operation, context)
    if DOWN in listing.notes:
        raise MtaNotRunning("the mail system is down, so nothing can be attempted")
    assert entry is not None  # noqa: S101 - check() raises; this is for the type checker
    name = entry.queue_id
    freed = [postsuper_argv(instance, "-H", "hold")] if entry.state == "hold" else []
    attempt = (program(instance, "postqueue"), "-c", instance.config_dir, "-i", name)
    yield plan_of(Chosen((entry,), listing.total), context, [*freed, attempt])
    if freed and name not in parse_verdicts((yield from run(postsuper(instance, "-H", "hold", [name])))):
        raise Conflict(f"{name} could not be released from hold")
    lines = yield from _attempt(instance, name)
    after, _ = yield from QUEUE.find(instance, name)
    return judged(entry, after, lines)


def check(entry: QueueEntry | None, operation: MessageDeliver, context: Context) -> None:
    """Raises what stands in the way of an attempt."""
    if entry is None:
        raise MessageNotFound(f"{operation.queue_id} is not queued")
    if context.frozen is not None and not any(is_same(entry, wanted) for wanted in context.frozen):
        raise PlanStale(f"{operation.queue_id} now names another message", hint="plan again")
    if entry.state in {"active", "incoming", "maildrop"}:
        raise InDelivery(f"{operation.queue_id} is being delivered right now")
    if entry.state == "hold" and not operation.release:
        raise Conflict(f"{operation.queue_id} is on hold", hint="set release: true to release and deliver it")


def _attempt(instance: InstanceFacts, queue_id: str) -> Steps[list[str]]:
    command = Command(
        deliver_arguments(instance),
        script=DELIVER,
        stdin=ids_input([queue_id]),
        become=True,
        mutates=True,
        timeout=DELIVER_SECONDS,
        max_output=4 << 20,
    )
    return parse_lines((yield from run(command)), "postqueue")


def read_back_deliver(instance: InstanceFacts, operation: MessageDeliver, context: Context) -> Steps[Result | None]:
    """How an attempt ended whose answer was lost. None when neither queue nor log can tell.

    Of a message that is queued still, older attempts are in the log too, so that nothing says that ours was made.
    """
    if not context.frozen:
        return None
    wanted = context.frozen[0]
    after, _ = yield from QUEUE.find(instance, wanted.queue_id)
    lines = yield from log_lines(instance, [f": {wanted.queue_id}: "])
    before = QueueEntry(
        wanted.queue_id, wanted.state, wanted.state, wanted.arrival_time, wanted.sender, (), wanted.size
    )
    result = judged(before, after, lines)
    result.data["notes"] = ["by the last attempt in the log, which may be older than this job"]
    return result if result.ended is Ended.SUCCEEDED and result.data["outcome"] != "deferred" else None


def judged(before: QueueEntry, after: QueueEntry | None, lines: Sequence[str]) -> Result:
    """The result of one attempt. What left the queue without a word in the log is `left_queue`, never `sent`."""
    name = before.queue_id
    is_queued = after is not None and is_same(after, fingerprint_of(before))
    attempts = attempts_of(lines, name)
    if is_queued and not attempts:
        state = after.state if after else "absent"
        error: InDelivery | RemoteError = RemoteError("no attempt was seen in the log", hint="look again later")
        if state in {"active", "incoming"}:
            error = InDelivery(f"the attempt had not ended after {WAIT_SECONDS} seconds")
        outcome = MessageState.IN_DELIVERY if isinstance(error, InDelivery) else MessageState.LEFT
        return Result(Ended.FAILED, {"log": list(lines)}, (MessageOutcome(name, outcome),), error=error)
    said = outcome_of(attempts, is_queued=is_queued, is_returned=name in returned(lines))
    telling = next((each for each in attempts.values() if each.outcome == said), None)
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


def outcome_of(attempts: dict[str, Attempt], *, is_queued: bool, is_returned: bool) -> str:
    """One word for all recipients: queued still is deferred; gone is bounced when any was, sent when all were."""
    if is_queued:
        return "deferred"
    outcomes = {each.outcome for each in attempts.values()}
    if is_returned or "bounced" in outcomes:
        return "bounced"
    return "sent" if outcomes == {"sent"} else "left_queue"
