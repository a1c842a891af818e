"""One message: message.show as it is stored, message.deliver with Sendmail's own dialogue."""

import re
from collections.abc import Sequence
from typing import Any

from fleet.mta.changed import Chosen, fingerprint_of, is_same, plan_of
from fleet.mta.errors import Conflict, InDelivery, MessageNotFound, PlanStale, RemoteError
from fleet.mta.operations import MessageDeliver, MessageShow
from fleet.mta.sendmail import content
from fleet.mta.sendmail.changes import act, verdicts
from fleet.mta.sendmail.commands import DELIVER_SECONDS, RUN, change_argv, run_argv, run_queue
from fleet.mta.sendmail.listing import QUEUE
from fleet.mta.sendmail.moving import read_run
from fleet.mta.sendmail.parse import messages_input, script_lines
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

CONNECTING = re.compile(r".*\.\.\. (?:Connecting to|Using cached \S+ connection to) (\S+?)\.? via ")
# What a server says begins with its code, what Sendmail says to it with >>>; the rest are Sendmail's own words.
SERVER = re.compile(r"[0-9]{3}[ -]")
FAILED = re.compile(r"[45][0-9]{2}[ -]")
WORDS = (("Sent", "sent"), ("Deferred", "deferred"), ("queued", "deferred"))
NO_VERDICT = ("Connecting to ", "Using cached ")


def message_show(instance: InstanceFacts, operation: MessageShow, context: Context) -> Steps[Result]:
    """`message.show`. Raises MessageNotFound."""
    entry, _ = yield from QUEUE.find(instance, operation.queue_id)
    if entry is None:
        raise MessageNotFound(f"{operation.queue_id} is not queued")
    return Result(Ended.SUCCEEDED, (yield from content.message_show(instance, operation, entry)))


def message_deliver(instance: InstanceFacts, operation: MessageDeliver, context: Context) -> Steps[Result]:
    """`message.deliver`: sendmail -v -qI with the whole queue ID. Raises MessageNotFound, InDelivery, Conflict."""
    entry, listing = yield from QUEUE.find(instance, operation.queue_id)
    check(entry, operation, context)
    assert entry is not None  # noqa: S101 - check() raises; this is for the type checker
    freed = [change_argv(instance, "release")] if entry.state == "hold" else []
    yield plan_of(Chosen((entry,), listing.total), context, [*freed, run_argv(instance, "deliver")])
    name = entry.queue_id
    if freed and (yield from act(instance, "release", context.job, [entry])).get(name) != "done":
        raise Conflict(f"{name} could not be released from quarantine")
    stdin = messages_input(str(DELIVER_SECONDS), [entry])
    lines = script_lines((yield from run(run_queue(instance, "deliver", stdin))), RUN)
    at = lines.index("run") if "run" in lines else len(lines)
    after, _ = yield from QUEUE.find(instance, name)
    return judged(entry, after, verdicts(lines[:at]).get(name, ""), lines[at + 1 :])


def check(entry: QueueEntry | None, operation: MessageDeliver, context: Context) -> None:
    """Raises what stands in the way of an attempt."""
    if entry is None:
        raise MessageNotFound(f"{operation.queue_id} is not queued")
    if context.frozen is not None and not any(is_same(entry, wanted) for wanted in context.frozen):
        raise PlanStale(f"{operation.queue_id} now names another message", hint="plan again")
    if entry.state == "active":
        raise InDelivery(f"{operation.queue_id} is being delivered right now")
    if entry.state == "hold" and not operation.release:
        raise Conflict(f"{operation.queue_id} is quarantined", hint="set release: true to release and deliver it")


def judged(before: QueueEntry, after: QueueEntry | None, refused: str, lines: Sequence[str]) -> Result:
    """The result of one attempt by Sendmail's own words and a second look at the queue.

    `refused`: the script's word when it did not run the message. What left the queue without a word is `left_queue`.
    """
    name = before.queue_id
    is_queued = after is not None and is_same(after, fingerprint_of(before))
    told = read_run(lines)
    if name not in told["ran"]:
        if name in told["locked"] or (after is not None and after.state == "active"):
            return _not_made(name, MessageState.IN_DELIVERY, InDelivery(f"{name} is being delivered right now"))
        if refused in {"absent", "other"} or not is_queued:
            raise MessageNotFound(f"{name} left the queue before the attempt")
        detail = f"Sendmail did not run the message ({refused or 'no word of it'})"
        return _not_made(name, MessageState.LEFT, RemoteError(detail, dialogue=list(lines)[:200]))
    recipients = recipients_of(before, lines)
    if is_queued and not recipients and after is not None and after.attempts == before.attempts:
        if after.state == "active":
            return _not_made(name, MessageState.IN_DELIVERY, InDelivery("the attempt has not ended yet"))
        error = RemoteError(f"the attempt had no end within {DELIVER_SECONDS} seconds", dialogue=list(lines)[:200])
        return _not_made(name, MessageState.LEFT, error)
    said = outcome_of(recipients, is_queued=is_queued)
    telling = next((each for each in recipients if each["outcome"] == said), None)
    return Result(
        Ended.SUCCEEDED,
        {
            "outcome": said,
            "remote": telling["remote"] if telling else "",
            "reply": telling["reply"] if telling else "",
            "dialogue": [line for line in lines if line],
            "log": [],
            "recipients": recipients,
        },
        (MessageOutcome(name, MessageState.DONE),),
        before={"queue_id": name, "state": before.state},
        after={"queue_id": name, "state": after.state if after and is_queued else "absent"},
    )


def _not_made(name: str, state: MessageState, error: InDelivery | RemoteError) -> Result:
    return Result(Ended.FAILED, {"dialogue": []}, (MessageOutcome(name, state),), error=error)


def recipients_of(before: QueueEntry, lines: Sequence[str]) -> list[dict[str, Any]]:
    """What the verbose run says first of each recipient ("ADDRESS... TEXT"); whatever is no other word is a failure.

    The report to the sender comes later in the same run and has the same form.
    """
    found: dict[str, dict[str, Any]] = {}
    remote = reply = ""
    for line in lines:
        if SERVER.match(line):
            reply = line if FAILED.match(line) else ""
        elif connecting := CONNECTING.match(line):
            remote, reply = connecting[1], ""
        elif not line.startswith(">>> "):
            for recipient in before.recipients:
                text = _text_about(recipient.address, line)
                if text and recipient.address not in found:
                    found[recipient.address] = _attempt(recipient.address, text, remote, reply)
    return list(found.values())


def _text_about(address: str, line: str) -> str:
    for shown in (f"<{address}>... ", f"{address}... "):
        if line.startswith(shown) and not line.removeprefix(shown).startswith(NO_VERDICT):
            return line.removeprefix(shown)
    return ""


def _attempt(address: str, text: str, remote: str, reply: str) -> dict[str, Any]:
    outcome = next((meaning for word, meaning in WORDS if text.startswith(word)), "bounced")
    return {
        "address": address,
        "outcome": outcome,
        "remote": remote,
        "reply": reply if outcome == "bounced" and reply else text,
    }


def outcome_of(recipients: Sequence[dict[str, Any]], *, is_queued: bool) -> str:
    """One word for all recipients: queued still is deferred; gone is bounced when any was, sent when all were."""
    if is_queued:
        return "deferred"
    outcomes = {each["outcome"] for each in recipients}
    if "bounced" in outcomes:
        return "bounced"
    return "sent" if outcomes == {"sent"} else "left_queue"
