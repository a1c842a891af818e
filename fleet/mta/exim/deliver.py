"""One message: message.show as it is stored, message.deliver with Exim's own dialogue and verdicts (exim -v -M)."""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

from fleet.mta.changed import Chosen, fingerprint_of, is_same, plan_of
from fleet.mta.errors import Conflict, InDelivery, MessageNotFound, PlanStale, RemoteError
from fleet.mta.exim import content
from fleet.mta.exim.commands import WAIT_SECONDS, deliver, program
from fleet.mta.exim.listing import QUEUE
from fleet.mta.exim.parse import said_lines
from fleet.mta.operations import MessageDeliver, MessageShow
from fleet.mta.types import (
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

OUTCOMES = {"=>": "sent", "->": "sent", ">>": "sent", "==": "deferred", "**": "bounced"}
# log line flags (spec, "Log files"); the address may be followed by that of its parent
LOGGED = re.compile(
    r"  (?P<flag>=>|->|>>|==|\*\*) (?P<address>.*?)(?: <(?P<parent>.*)>)? (?:[FPRT]=|defer |: )(?P<rest>.*)"
)
HOST = re.compile(r"(?:^| )H=(\S+(?: \[[^]]*\])?(?::\d+)?)")
CONFIRMATION = re.compile(r' C="(.*?)"(?: [A-Z]+=|$)')
REPLY = re.compile(r": (?=[245]\d\d[ -])")


@dataclass(frozen=True, slots=True)
class Attempt:
    """What came of one recipient."""

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
    """`message.deliver`. Raises MessageNotFound, InDelivery, PlanStale, Conflict (frozen; release not said)."""
    entry, listing = yield from QUEUE.find(instance, operation.queue_id)
    check(entry, operation, context)
    assert entry is not None  # noqa: S101 - check() raises; this is for the type checker
    yield plan_of(Chosen((entry,), listing.total), context, [(program(instance), "-v", "-M", entry.queue_id)])
    lines = said_lines((yield from run(deliver(instance, entry.queue_id))), "exim")
    after, _ = yield from QUEUE.find(instance, entry.queue_id)
    return judged(entry, after, lines, verbose=operation.verbose)


def check(entry: QueueEntry | None, operation: MessageDeliver, context: Context) -> None:
    """Raises what stands in the way of an attempt."""
    if entry is None:
        raise MessageNotFound(f"{operation.queue_id} is not queued")
    if context.frozen is not None and not any(is_same(entry, wanted) for wanted in context.frozen):
        raise PlanStale(f"{operation.queue_id} now names another message", hint="plan again")
    if entry.state == "active":
        raise InDelivery(f"{operation.queue_id} is being delivered right now")
    if entry.state == "hold" and not operation.release:
        raise Conflict(f"{operation.queue_id} is frozen", hint="set release: true to thaw and deliver it")


def own_lines(lines: Sequence[str], queue_id: str) -> list[str]:
    """What Exim said of this message; a notice that the attempt caused has its own "delivering ID"."""
    found: list[str] = []
    is_own = False
    for line in lines:
        if line.startswith("delivering "):
            is_own = line.split(" ")[1] == queue_id
        if is_own and line not in {"", "ended"}:
            found.append(line)
    return found


def attempts_of(lines: Sequence[str]) -> dict[str, Attempt]:
    """The last verdict for each recipient among Exim's own log lines, those that "LOG: MAIN" announces."""
    found: dict[str, Attempt] = {}
    for announced, line in pairwise(lines):
        told = LOGGED.match(line) if announced.startswith("LOG: MAIN") else None
        if told is None:
            continue
        host, said = HOST.search(line), CONFIRMATION.search(line)
        reply = said[1] if said else REPLY.split(line, maxsplit=1)[-1] if REPLY.search(line) else told["rest"]
        address = told["parent"] or told["address"]
        found[address] = Attempt(address, OUTCOMES[told["flag"]], host[1] if host else "", reply)
    return found


def judged(before: QueueEntry, after: QueueEntry | None, lines: Sequence[str], *, verbose: bool = False) -> Result:
    """The result of one attempt. What left the queue without a word of Exim's is `left_queue`, never `sent`."""
    name = before.queue_id
    own = own_lines(lines, name)
    is_queued = after is not None and is_same(after, fingerprint_of(before))
    attempts = attempts_of(own)
    log = [line.strip() for announced, line in pairwise(own) if announced.startswith("LOG: MAIN")]
    if is_queued and not attempts:
        is_locked = any("is locked" in line for line in own) or (after is not None and after.state == "active")
        error: InDelivery | RemoteError = RemoteError("Exim made no attempt", hint="look at the log", log=log[-5:])
        if is_locked:
            error = InDelivery(f"it is being delivered, and that had not ended after {WAIT_SECONDS} seconds")
        outcome = MessageState.IN_DELIVERY if is_locked else MessageState.LEFT
        return Result(Ended.FAILED, {"log": log}, (MessageOutcome(name, outcome),), error=error)
    said = outcome_of(attempts, is_queued=is_queued)
    telling = next((each for each in attempts.values() if each.outcome == said), None)
    data = {
        "outcome": said,
        "remote": telling.remote if telling else "",
        "reply": telling.reply if telling else "",
        "dialogue": [line for line in own if line.startswith(("  SMTP", "         "))] if verbose else [],
        "log": log,
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
