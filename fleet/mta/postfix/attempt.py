"""message.deliver, with what came of it by the log and the queue."""

from collections.abc import Sequence
from functools import partial

from fleet.mta.errors import Conflict, InDelivery, MtaNotRunning, RemoteError
from fleet.mta.operations import MessageDeliver
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
from fleet.mta.queue.delivery import Delivery, Judge, Try, attempted, not_attempted, outcome_of
from fleet.mta.queue.listing import Listing
from fleet.mta.queue.outcome import UNDER_WAY, fingerprint_of, is_same
from fleet.mta.records import Context, InstanceFacts, QueueEntry, Result
from fleet.mta.steps import Command, Steps, run


def attempt(
    instance: InstanceFacts, operation: MessageDeliver, context: Context, entry: QueueEntry, listing: Listing
) -> Try:
    """Released when it is on hold, then postqueue -i. Raises MtaNotRunning."""
    if DOWN in listing.notes:
        raise MtaNotRunning("the mail system is down, so nothing can be attempted")
    freed = [postsuper_argv(instance, "-H", "hold")] if entry.state == "hold" else []
    command = (program(instance, "postqueue"), "-c", instance.config_dir, "-i", entry.queue_id)
    return Try([*freed, command], partial(_attempt, instance, entry))


def _attempt(instance: InstanceFacts, entry: QueueEntry) -> Steps[Judge]:
    name = entry.queue_id
    if entry.state == "hold" and name not in parse_verdicts(
        (yield from run(postsuper(instance, "-H", "hold", [name])))
    ):
        raise Conflict(f"{name} could not be released from hold")
    command = Command(
        deliver_arguments(instance),
        script=DELIVER,
        stdin=ids_input([name]),
        become=True,
        mutates=True,
        timeout=DELIVER_SECONDS,
        max_output=4 << 20,
    )
    lines = parse_lines((yield from run(command)), "postqueue")
    return lambda after: judged(entry, after, lines)


def from_log(instance: InstanceFacts, before: QueueEntry) -> Steps[Result | None]:
    """How the last attempt of a message that left the queue ended."""
    return judged(before, None, (yield from log_lines(instance, [f": {before.queue_id}: "])))


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


DELIVERY = Delivery(QUEUE, attempt, from_log=from_log)
