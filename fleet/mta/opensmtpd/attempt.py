"""One message: message.show as it is stored, message.deliver with what came of it by the log and the queue."""

import re
from collections.abc import Sequence

from fleet.mta.errors import (
    InDelivery,
    MtaNotRunning,
    OutcomeUnknown,
    RemoteError,
    UnparsedOutput,
)
from fleet.mta.host.commands import READ_SECONDS
from fleet.mta.opensmtpd import content
from fleet.mta.opensmtpd.commands import (
    DELIVER,
    DELIVER_SECONDS,
    LOG,
    UNTOUCHED,
    WAIT_SECONDS,
    deliver_arguments,
    log_source,
    smtpctl_argv,
)
from fleet.mta.opensmtpd.parse import error_of
from fleet.mta.opensmtpd.queue import QUEUE
from fleet.mta.operations import MessageDeliver, MessageShow
from fleet.mta.queue.delivery import Attempt, attempted, deliverable, not_attempted, outcome_of
from fleet.mta.queue.outcome import UNDER_WAY, Chosen, fingerprint_of, is_same, plan_of
from fleet.mta.records import Context, Ended, InstanceFacts, QueueEntry, Result
from fleet.mta.steps import Command, Completed, Steps, run

# smtpd's own words around others' texts: a line in which the middle part occurs twice is not read at all.
RESULT = re.compile(
    r" m[td]a delivery evpid=(?P<message>[0-9a-f]{8})[0-9a-f]{8} from=<[^>]*> to=<(?P<to>[^>]*)> rcpt=<[^>]*>"
    r"(?P<middle>.*) delay=\S+ result=\"?(?P<result>\w+)\"? stat=\"?(?P<reply>.*?)\"?$"
)
RELAY = re.compile(r' relay="([^"]*)"')
OUTCOMES = {"Ok": "sent", "TempFail": "deferred", "PermFail": "bounced", "Loop": "bounced", "LoopError": "bounced"}


def message_show(instance: InstanceFacts, operation: MessageShow, context: Context) -> Steps[Result]:
    """`message.show`. Raises MessageNotFound."""
    entry = yield from QUEUE.get(instance, operation.queue_id)
    return Result(Ended.SUCCEEDED, (yield from content.message_show(instance, operation, entry)))


def message_deliver(instance: InstanceFacts, operation: MessageDeliver, context: Context) -> Steps[Result]:
    """`message.deliver`. Raises MessageNotFound, InDelivery, MtaNotRunning, Conflict (held; release not said)."""
    entry, listing = yield from QUEUE.find(instance, operation.queue_id)
    if entry is not None and entry.native_state == "offline":
        raise MtaNotRunning("smtpd is not running, so nothing can be attempted")
    entry = deliverable(entry, operation, context)
    name = entry.queue_id
    freed = [smtpctl_argv(instance, "resume", "envelope", name)] if entry.state == "hold" else []
    yield plan_of(Chosen((entry,), listing.total), context, [*freed, smtpctl_argv(instance, "schedule", name)])
    lines = yield from _attempt(instance, name, is_held=bool(freed))
    after, _ = yield from QUEUE.find(instance, name)
    return judged(entry, after, lines)


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
    done = yield from run(command)
    if done.exit_status and done.exit_status not in UNTOUCHED:
        raise OutcomeUnknown(f"it broke off: {error_of(done, DELIVER).detail}")
    return parse_lines(done, DELIVER)


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
    still = after if after is not None and is_same(after, fingerprint_of(before)) else None
    attempts = tuple(attempts_of(lines, before.queue_id).values())
    if still and not attempts:
        error: InDelivery | RemoteError = RemoteError("no attempt was seen in the log", hint="look again later")
        if still.state in UNDER_WAY:
            error = InDelivery(f"the attempt had not ended after {WAIT_SECONDS} seconds")
        return not_attempted(before, error, log=lines)
    return attempted(before, still, attempts, outcome_of(attempts, is_queued=still is not None), log=lines)
