"""message.deliver, with Exim's own dialogue and verdicts (exim -v -M)."""

import re
from collections.abc import Sequence
from functools import partial
from itertools import pairwise

from fleet.mta.errors import InDelivery, MessageNotFound, RemoteError
from fleet.mta.exim.commands import WAIT_SECONDS, deliver, program
from fleet.mta.exim.parse import error_of
from fleet.mta.exim.queue import QUEUE
from fleet.mta.host.commands import lines_of
from fleet.mta.operations import MessageDeliver
from fleet.mta.queue.delivery import Attempt, Delivery, Judge, Try, attempted, not_attempted, outcome_of
from fleet.mta.queue.listing import Listing
from fleet.mta.queue.outcome import UNDER_WAY, fingerprint_of, is_same
from fleet.mta.records import Context, InstanceFacts, QueueEntry, Result
from fleet.mta.steps import Steps, run

OUTCOMES = {"=>": "sent", "->": "sent", ">>": "sent", "==": "deferred", "**": "bounced"}
# log line flags (spec, "Log files"); the address may be followed by that of its parent
LOGGED = re.compile(
    r"  (?P<flag>=>|->|>>|==|\*\*) (?P<address>.*?)(?: <(?P<parent>.*)>)? (?:[FPRT]=|defer |: )(?P<rest>.*)"
)
HOST = re.compile(r"(?:^| )H=(\S+(?: \[[^]]*\])?(?::\d+)?)")
CONFIRMATION = re.compile(r' C="(.*?)"(?: [A-Z]+=|$)')
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


def attempts_of(lines: Sequence[str]) -> dict[str, Attempt]:
    """The last verdict for each recipient among Exim's own log lines, those that "LOG: MAIN" announces."""
    attempts: dict[str, Attempt] = {}
    for announced, line in pairwise(lines):
        match = LOGGED.match(line) if announced.startswith("LOG: MAIN") else None
        if match is None:
            continue
        host, confirmed = HOST.search(line), CONFIRMATION.search(line)
        reply = (
            confirmed[1] if confirmed else REPLY.split(line, maxsplit=1)[-1] if REPLY.search(line) else match["rest"]
        )
        address = match["parent"] or match["address"]
        attempts[address] = Attempt(address, OUTCOMES[match["flag"]], host[1] if host else "", reply)
    return attempts


def attempt_result(
    before: QueueEntry, after: QueueEntry | None, lines: Sequence[str], *, verbose: bool = False
) -> Result:
    """The result of one attempt. What left the queue without a word of Exim's is `left_queue`, never `sent`.

    Raises MessageNotFound when Exim did not find it any more.
    """
    own = own_lines(lines, before.queue_id)
    still = after if after is not None and is_same(after, fingerprint_of(before)) else None
    attempts = tuple(attempts_of(own).values())
    log = [line.strip() for announced, line in pairwise(own) if announced.startswith("LOG: MAIN")]
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


DELIVERY = Delivery(QUEUE, attempt)
