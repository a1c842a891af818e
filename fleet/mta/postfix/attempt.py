"""One message: message.show as it is stored, message.deliver with what came of it by the log and the queue."""

from collections.abc import Sequence

from fleet.mta.errors import Conflict, InDelivery, MtaNotRunning, RemoteError
from fleet.mta.operations import MessageDeliver, MessageShow
from fleet.mta.postfix import content
from fleet.mta.postfix.attempt_log import attempts_of, log_lines, parse_lines, returned
from fleet.mta.postfix.commands import (
    DELIVER,
    DELIVER_SECONDS,
    WAIT_SECONDS,
    deliver_arguments,
    postsuper,
    postsuper_argv,
    program,
)
from fleet.mta.postfix.parse import ids_input, parse_verdicts
from fleet.mta.postfix.queue import DOWN, QUEUE
from fleet.mta.queue.delivery import attempted, deliverable, not_attempted, outcome_of
from fleet.mta.queue.outcome import UNDER_WAY, Chosen, fingerprint_of, is_same, plan_of
from fleet.mta.records import Context, Ended, InstanceFacts, QueueEntry, Result
from fleet.mta.steps import Command, Steps, run


def message_show(instance: InstanceFacts, operation: MessageShow, context: Context) -> Steps[Result]:
    """`message.show`. Raises MessageNotFound."""
    entry = yield from QUEUE.get(instance, operation.queue_id)
    return Result(Ended.SUCCEEDED, (yield from content.message_show(instance, operation, entry)))


def message_deliver(instance: InstanceFacts, operation: MessageDeliver, context: Context) -> Steps[Result]:
    """`message.deliver`. Raises MessageNotFound, InDelivery, MtaNotRunning, Conflict (held; release not said)."""
    entry, listing = yield from QUEUE.find(instance, operation.queue_id)
    entry = deliverable(entry, operation, context)
    if DOWN in listing.notes:
        raise MtaNotRunning("the mail system is down, so nothing can be attempted")
    name = entry.queue_id
    freed = [postsuper_argv(instance, "-H", "hold")] if entry.state == "hold" else []
    attempt = (program(instance, "postqueue"), "-c", instance.config_dir, "-i", name)
    yield plan_of(Chosen((entry,), listing.total), context, [*freed, attempt])
    if freed and name not in parse_verdicts((yield from run(postsuper(instance, "-H", "hold", [name])))):
        raise Conflict(f"{name} could not be released from hold")
    lines = yield from _attempt(instance, name)
    after, _ = yield from QUEUE.find(instance, name)
    return judged(entry, after, lines)


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
    still = after if after is not None and is_same(after, fingerprint_of(before)) else None
    attempts = tuple(attempts_of(lines, before.queue_id).values())
    if still and not attempts:
        error: InDelivery | RemoteError = RemoteError("no attempt was seen in the log", hint="look again later")
        if still.state in UNDER_WAY:
            error = InDelivery(f"the attempt had not ended after {WAIT_SECONDS} seconds")
        return not_attempted(before, error, log=lines)
    said = outcome_of(attempts, is_queued=still is not None, is_returned=before.queue_id in returned(lines))
    return attempted(before, still, attempts, said, log=lines)
