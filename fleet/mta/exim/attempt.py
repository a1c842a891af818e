"""message.deliver, with Exim's own dialogue and verdicts (exim -v -M)."""

import re
from collections.abc import Sequence
from functools import partial
from itertools import pairwise

from fleet.mta.errors import InDelivery, MessageNotFound, RemoteError
from fleet.mta.exim.commands import WAIT_SECONDS, deliver, program
from fleet.mta.exim.fates import STATUS, STATUS_OF_ALL, WHOLE, fate_of, take_fate
from fleet.mta.exim.fields import UnclearError
from fleet.mta.exim.parse import error_of
from fleet.mta.exim.queue import QUEUE
from fleet.mta.host.commands import lines_of
from fleet.mta.logs.rows import Delivery, Recipient
from fleet.mta.operations import MessageDeliver
from fleet.mta.queue import delivery
from fleet.mta.queue.delivery import Attempt, Judge, Try, attempted, not_attempted, outcome_of
from fleet.mta.queue.listing import Listing
from fleet.mta.queue.outcome import UNDER_WAY, fingerprint_of, is_same
from fleet.mta.records import Context, InstanceFacts, QueueEntry, Result
from fleet.mta.steps import Steps, run

NOT_FOUND = re.compile(r" *Spool (?:data )?file .*not (?:found|exist)| *Spool read error for .*-H: .*")
REPLY = re.compile(r": (?=[245]\d\d[ -])")


def attempt(
    instance: InstanceFacts, operation: MessageDeliver, context: Context, entry: QueueEntry, listing: Listing
) -> Try:
    """exim -v -M, which thaws a frozen one."""
    return Try([(program(instance), "-v", "-M", entry.queue_id)], partial(_attempt, instance, entry, operation.verbose))


def _attempt(instance: InstanceFacts, entry: QueueEntry, verbose: bool) -> Steps[Judge]:
    lines = lines_of((yield from run(deliver(instance, entry.queue_id))), "exim", error_of)
    return lambda after: attempt_result(entry, after, lines, verbose=verbose)


def own_lines(lines: Sequence[str], queue_id: str) -> list[str]:
    """Exim's output about this message; a notice that the attempt caused has its own "delivering ID"."""
    own: list[str] = []
    is_own = False
    for line in lines:
        if line.startswith("delivering "):
            is_own = line.split(" ")[1] == queue_id
        if is_own and line not in {"", "ended"}:
            own.append(line)
    return own


def logged_lines(lines: Sequence[str]) -> list[str]:
    """Exim's own log lines, those that "LOG: MAIN" announces."""
    return [line.strip() for announced, line in pairwise(lines) if announced.startswith("LOG: MAIN")]


def attempts_of(lines: Sequence[str]) -> tuple[Attempt, ...]:
    """The last verdict for each recipient among these log lines; one that was not understood is `unclear`."""
    known: dict[Recipient, Delivery] = {}
    unclear: list[Attempt] = []
    for line in (line for line in lines if line[:2] in STATUS):
        try:
            fate = fate_of(line, 0)
        except UnclearError:
            outcome = STATUS_OF_ALL[line[:2]] if WHOLE.match(line) else "unclear"
            unclear.append(Attempt("", outcome, reply=line))
            continue
        known[take_fate(fate, known)] = fate.delivery
    return (*(_attempt_of(recipient, each) for recipient, each in known.items()), *unclear)


def _attempt_of(recipient: Recipient, told: Delivery) -> Attempt:
    outcome = "bounced" if told.status == "expired" else told.status
    reply = REPLY.split(told.reply, maxsplit=1)[-1]
    return Attempt(recipient[0], outcome, "" if told.is_local else told.relay, reply, recipient[1])


def attempt_result(
    before: QueueEntry, after: QueueEntry | None, lines: Sequence[str], *, verbose: bool = False
) -> Result:
    """The result of one attempt. What left the queue without a word of Exim's is `left_queue`, never `sent`.

    Raises MessageNotFound when Exim did not find it any more.
    """
    own = own_lines(lines, before.queue_id)
    still = after if after is not None and is_same(after, fingerprint_of(before)) else None
    log = logged_lines(own)
    attempts = attempts_of(log)
    if still and "ended" not in lines:
        return not_attempted(before, InDelivery(f"the attempt had not ended after {WAIT_SECONDS} seconds"), log=log)
    if not still and not attempts and any(NOT_FOUND.fullmatch(line) for line in own):
        raise MessageNotFound(f"{before.queue_id} left the queue before the attempt")
    if still and not attempts:
        is_locked = any("is locked" in line for line in own) or still.state in UNDER_WAY
        error: InDelivery | RemoteError = RemoteError("Exim made no attempt", hint="look at the log", log=log[-5:])
        if is_locked:
            error = InDelivery(f"{before.queue_id} is being delivered without us right now")
        return not_attempted(before, error, log=log)
    outcome = outcome_of(attempts, is_queued=still is not None)
    dialogue = [line for line in own if line.startswith(("  SMTP", "         "))] if verbose else []
    return attempted(before, still, attempts, outcome, log=log, dialogue=dialogue)


DELIVERY = delivery.Delivery(QUEUE, attempt)
