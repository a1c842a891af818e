"""One message: message.show as it is stored, message.deliver with what came of it by the log and the queue."""

import re
from collections.abc import Sequence
from dataclasses import dataclass

from fleet.mta.changed import Chosen, fingerprint_of, is_same, plan_of
from fleet.mta.commands import READ_SECONDS
from fleet.mta.errors import (
    Conflict,
    InDelivery,
    MessageNotFound,
    MtaNotRunning,
    PlanStale,
    RemoteError,
    UnparsedOutput,
)
from fleet.mta.opensmtpd import content
from fleet.mta.opensmtpd.commands import (
    DELIVER,
    DELIVER_SECONDS,
    LOG,
    WAIT_SECONDS,
    deliver_arguments,
    log_source,
    smtpctl_argv,
)
from fleet.mta.opensmtpd.listing import QUEUE
from fleet.mta.opensmtpd.parse import error_of
from fleet.mta.operations import MessageDeliver, MessageShow
from fleet.mta.types import (
    Command,
    Completed,
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

# smtpd's own words around others' texts: a line in which the middle part occurs twice is not read at all.
RESULT = re.compile(
    r" m[td]a delivery evpid=(?P<message>[0-9a-f]{8})[0-9a-f]{8} from=<[^>]*> to=<(?P<to>[^>]*)> rcpt=<[^>]*>"
    r"(?P<middle>.*) delay=\S+ result=\"?(?P<result>\w+)\"? stat=\"?(?P<reply>.*?)\"?$"
)
RELAY = re.compile(r' relay="([^"]*)"')
OUTCOMES = {"Ok": "sent", "TempFail": "deferred", "PermFail": "bounced", "Loop": "bounced", "LoopError": "bounced"}


@dataclass(frozen=True, slots=True)
class Attempt:
    """The last attempt for one recipient. `outcome`: sent, deferred, bounced or smtpd's own word."""

    address: str
    outcome: str
    remote: str
    reply: str


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
    assert entry is not None  # noqa: S101 - check() raises; this is for the type checker
    name = entry.queue_id
    freed = [smtpctl_argv(instance, "resume", "envelope", name)] if entry.state == "hold" else []
    yield plan_of(Chosen((entry,), listing.total), context, [*freed, smtpctl_argv(instance, "schedule", name)])
    lines = yield from _attempt(instance, name, is_held=bool(freed))
    after, _ = yield from QUEUE.find(instance, name)
    return judged(entry, after, lines)


def check(entry: QueueEntry | None, operation: MessageDeliver, context: Context) -> None:
    """Raises what stands in the way of an attempt."""
    if entry is None:
        raise MessageNotFound(f"{operation.queue_id} is not queued")
    if context.frozen is not None and not any(is_same(entry, wanted) for wanted in context.frozen):
        raise PlanStale(f"{operation.queue_id} now names another message", hint="plan again")
    if entry.native_state == "offline":
        raise MtaNotRunning("smtpd is not running, so nothing can be attempted")
    if entry.state == "active":
        raise InDelivery(f"{operation.queue_id} is being delivered right now")
    if entry.state == "hold" and not operation.release:
        raise Conflict(f"{operation.queue_id} is paused", hint="set release: true to release and deliver it")


def _attempt(instance: InstanceFacts, queue_id: str, *, is_held: bool) -> Steps[list[str]]:
    command = Command(
        deliver_arguments(instance),
        script=DELIVER,
        stdin=f"{queue_id}{' release' if is_held else ''}\n".encode(),
        become=True,
        mutates=True,
        timeout=DELIVER_SECONDS,
        max_output=4 << 20,
    )
    return parse_lines((yield from run(command)), DELIVER)


def parse_lines(done: Completed, program: str) -> list[str]:
    """Lines up to "end". Raises UnparsedOutput without it."""
    if done.exit_status:
        raise error_of(done, program)
    lines = done.stdout.decode("utf-8", "backslashreplace").split("\n")
    if lines[-2:] != ["end", ""]:
        raise UnparsedOutput(f"{program} did not come to its end")
    return lines[:-2]


def read_back_deliver(instance: InstanceFacts, operation: MessageDeliver, context: Context) -> Steps[Result | None]:
    """How an attempt ended whose answer was lost. None when neither queue nor log can tell.

    Of a message that is queued still, older attempts are in the log too, so that nothing says that ours was made.
    """
    if not context.frozen or log_source(instance) == "none":
        return None
    wanted = context.frozen[0]
    after, _ = yield from QUEUE.find(instance, wanted.queue_id)
    if after is not None and is_same(after, wanted):
        return None
    command = Command(
        (log_source(instance),),
        script=LOG,
        stdin=f"{wanted.queue_id}\n".encode(),
        become=True,
        timeout=READ_SECONDS,
        max_output=16 << 20,
    )
    lines = parse_lines((yield from run(command)), LOG)
    before = QueueEntry(
        wanted.queue_id, wanted.state, wanted.state, wanted.arrival_time, wanted.sender, (), wanted.size
    )
    result = judged(before, None, lines)
    result.data["notes"] = ["by the last attempt in the log, which may be older than this job"]
    return result


def attempts_of(lines: Sequence[str], queue_id: str) -> dict[str, Attempt]:
    """The last attempt for each recipient of the message."""
    found: dict[str, Attempt] = {}
    for line in lines:
        told = RESULT.search(line)
        if told and told["message"] == queue_id and line.count(" result=") == 1:
            relay = RELAY.search(told["middle"])
            outcome = OUTCOMES.get(told["result"], told["result"])
            found[told["to"]] = Attempt(told["to"], outcome, relay[1] if relay else "", told["reply"])
    return found


def judged(before: QueueEntry, after: QueueEntry | None, lines: Sequence[str]) -> Result:
    """The result of one attempt. What left the queue without a word in the log is `left_queue`, never `sent`."""
    name = before.queue_id
    is_queued = after is not None and is_same(after, fingerprint_of(before))
    attempts = attempts_of(lines, name)
    if is_queued and not attempts:
        state = after.state if after else "absent"
        error: InDelivery | RemoteError = RemoteError("no attempt was seen in the log", hint="look again later")
        if state == "active":
            error = InDelivery(f"the attempt had not ended after {WAIT_SECONDS} seconds")
        outcome = MessageState.IN_DELIVERY if isinstance(error, InDelivery) else MessageState.LEFT
        return Result(Ended.FAILED, {"log": list(lines)}, (MessageOutcome(name, outcome),), error=error)
    said = outcome_of(attempts, is_queued=is_queued)
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


def outcome_of(attempts: dict[str, Attempt], *, is_queued: bool) -> str:
    """One word for all recipients: queued still is deferred; gone is bounced when any was, sent when all were."""
    if is_queued:
        return "deferred"
    outcomes = {each.outcome for each in attempts.values()}
    if "bounced" in outcomes:
        return "bounced"
    return "sent" if outcomes == {"sent"} else "left_queue"
