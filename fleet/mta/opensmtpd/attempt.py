"""message.deliver, with what came of it by the log and the queue."""

from collections.abc import Iterator, Sequence
from contextlib import suppress
from functools import partial

from fleet.mta.bounds import OutOfBounds
from fleet.mta.errors import MtaNotRunning, OutcomeUnknown
from fleet.mta.host.commands import changing, lines_of, reading
from fleet.mta.logs.heads import SYSLOG, without_times
from fleet.mta.logs.source import log_source
from fleet.mta.opensmtpd.commands import (
    DELIVER,
    DELIVER_SECONDS,
    LOG,
    UNTOUCHED,
    WAIT_SECONDS,
    deliver_arguments,
    smtpctl_argv,
)
from fleet.mta.opensmtpd.lines import SESSION, Attempted, delivery_line, envelope_of
from fleet.mta.opensmtpd.parse import error_of
from fleet.mta.opensmtpd.queue import QUEUE
from fleet.mta.operations import MessageDeliver
from fleet.mta.queue.delivery import Attempt, Delivery, Judge, Try, result_by_log
from fleet.mta.queue.listing import Listing
from fleet.mta.records import Context, InstanceFacts, QueueEntry, Result
from fleet.mta.steps import Steps, run

ATTEMPTS = frozenset({"mta", "mda"})


def attempt(
    instance: InstanceFacts, operation: MessageDeliver, context: Context, entry: QueueEntry, listing: Listing
) -> Try:
    """Resumed when it is paused, and scheduled. Raises MtaNotRunning."""
    if entry.native_state == "offline":
        raise MtaNotRunning("smtpd is not running, so nothing can be attempted")
    freed = [smtpctl_argv(instance, "resume", "envelope", entry.queue_id)] if entry.state == "hold" else []
    return Try([*freed, smtpctl_argv(instance, "schedule", entry.queue_id)], partial(_attempt, instance, entry))


def _attempt(instance: InstanceFacts, entry: QueueEntry) -> Steps[Judge]:
    command = changing(
        DELIVER,
        deliver_arguments(instance),
        f"{entry.queue_id}{' release' if entry.state == 'hold' else ''}\n".encode(),
        seconds=DELIVER_SECONDS,
        most=4 << 20,
    )
    done = yield from run(command)
    if done.exit_status and done.exit_status not in UNTOUCHED:
        raise OutcomeUnknown(f"it broke off: {error_of(done, DELIVER).detail}")
    lines = lines_of(done, DELIVER, error_of)
    return lambda after: attempt_result(entry, after, lines)


def from_log(instance: InstanceFacts, before: QueueEntry) -> Steps[Result | None]:
    """How the last attempt of a message that left the queue ended."""
    if log_source(instance) == "none":
        return None
    command = reading(LOG, (log_source(instance),), f"{before.queue_id}\n".encode(), most=16 << 20)
    return attempt_result(before, None, lines_of((yield from run(command)), LOG, error_of))


def attempts_of(lines: Sequence[str], queue_id: str) -> tuple[Attempt, ...]:
    """The last attempt for each recipient of the message; a line that was not understood tells one to somebody that is
    `unclear`."""
    attempts: dict[tuple[str, str], Attempt] = {}
    for fields in _deliveries(lines):
        told = _told(fields)
        if told is None and envelope_of(fields) == queue_id:
            attempts["", fields] = Attempt("", "unclear", reply=fields)
        elif told is not None and told.queue_id == queue_id:
            outcome = "bounced" if told.status == "expired" else told.status
            relay = "" if told.is_local else told.relay
            attempts[told.recipient, told.orig_to] = Attempt(told.recipient, outcome, relay, told.reply, told.orig_to)
    return tuple(attempts.values())


def _deliveries(lines: Sequence[str]) -> Iterator[str]:
    """What lines of deliveries tell; commands of clients are logged too."""
    for line in without_times(lines):
        parsed = SYSLOG.fullmatch(line)
        match = SESSION.fullmatch(parsed["text"]) if parsed else None
        if match and match[2] in ATTEMPTS and match[3] == "delivery":
            yield match[4]


def _told(fields: str) -> Attempted | None:
    with suppress(OutOfBounds):
        return delivery_line(fields)
    return None


def attempt_result(before: QueueEntry, after: QueueEntry | None, lines: Sequence[str]) -> Result:
    """The result of one attempt, by the log's lines."""
    attempts = attempts_of(lines, before.queue_id)
    return result_by_log(before, after, attempts, lines, waited=WAIT_SECONDS)


DELIVERY = Delivery(QUEUE, attempt, from_log=from_log)
