"""One message: message.show as it is stored, message.deliver with Sendmail's own dialogue."""

import re
from collections.abc import Sequence

from fleet.mta.errors import Conflict, InDelivery, MessageNotFound, RemoteError
from fleet.mta.operations import MessageDeliver, MessageShow
from fleet.mta.queue.delivery import Attempt, attempted, deliverable, not_attempted, outcome_of
from fleet.mta.queue.outcome import Chosen, fingerprint_of, is_same, plan_of
from fleet.mta.records import Context, Ended, InstanceFacts, QueueEntry, Result
from fleet.mta.sendmail import content
from fleet.mta.sendmail.commands import DELIVER_SECONDS, RUN, change_argv, run_argv, run_queue
from fleet.mta.sendmail.driver import act, read_run
from fleet.mta.sendmail.parse import changed_lines, messages_input, verdicts
from fleet.mta.sendmail.queue import QUEUE
from fleet.mta.steps import Steps, run

CONNECTING = re.compile(r".*\.\.\. (?:Connecting to|Using cached \S+ connection to) (\S+?)\.? via ")
# What a server says begins with its code, what Sendmail says to it with >>>; the rest are Sendmail's own words.
SERVER = re.compile(r"[0-9]{3}[ -]")
FAILED = re.compile(r"[45][0-9]{2}[ -]")
WORDS = (("Sent", "sent"), ("Deferred", "deferred"), ("queued", "deferred"))
UNDER_WAY = frozenset({"active"})
"""What lies in the client queue waits for its time as the rest does."""
NO_VERDICT = ("Connecting to ", "Using cached ")


def message_show(instance: InstanceFacts, operation: MessageShow, context: Context) -> Steps[Result]:
    """`message.show`. Raises MessageNotFound."""
    entry = yield from QUEUE.get(instance, operation.queue_id)
    return Result(Ended.SUCCEEDED, (yield from content.message_show(instance, operation, entry)))


def message_deliver(instance: InstanceFacts, operation: MessageDeliver, context: Context) -> Steps[Result]:
    """`message.deliver`: sendmail -v -qI with the whole queue ID. Raises MessageNotFound, InDelivery, Conflict."""
    entry, listing = yield from QUEUE.find(instance, operation.queue_id)
    entry = deliverable(entry, operation, context, UNDER_WAY)
    freed = [change_argv(instance, "release")] if entry.state == "hold" else []
    yield plan_of(Chosen((entry,), listing.total), context, [*freed, run_argv(instance, "deliver")])
    name = entry.queue_id
    if freed and (yield from act(instance, "release", context.job, [entry])).get(name) != "done":
        raise Conflict(f"{name} could not be released from quarantine")
    stdin = messages_input(str(DELIVER_SECONDS), [entry])
    lines = changed_lines((yield from run(run_queue(instance, "deliver", stdin))), RUN)
    at = lines.index("run") if "run" in lines else len(lines)
    after, _ = yield from QUEUE.find(instance, name)
    return judged(entry, after, verdicts(lines[:at]).get(name, ""), lines[at + 1 :])


def judged(before: QueueEntry, after: QueueEntry | None, refused: str, lines: Sequence[str]) -> Result:
    """The result of one attempt by Sendmail's own words and a second look at the queue.

    `refused`: the script's word when it did not run the message. What left the queue without a word is `left_queue`.
    """
    name = before.queue_id
    still = after if after is not None and is_same(after, fingerprint_of(before)) else None
    told = read_run(lines)
    is_active = after is not None and after.state in UNDER_WAY
    if name not in told["ran"]:
        if name in told["locked"] or is_active:
            return not_attempted(before, InDelivery(f"{name} is being delivered right now"))
        if refused in {"absent", "other"} or not still:
            raise MessageNotFound(f"{name} left the queue before the attempt")
        detail = f"Sendmail did not run the message ({refused or 'no word of it'})"
        return not_attempted(before, RemoteError(detail, dialogue=list(lines)[:200]))
    attempts = attempts_of(before, lines)
    if still and not attempts and still.attempts == before.attempts:
        if is_active:
            return not_attempted(before, InDelivery("the attempt has not ended yet"))
        detail = f"the attempt had no end within {DELIVER_SECONDS} seconds"
        return not_attempted(before, RemoteError(detail, dialogue=list(lines)[:200]))
    said = outcome_of(attempts, is_queued=still is not None)
    return attempted(before, still, attempts, said, dialogue=[line for line in lines if line])


def attempts_of(before: QueueEntry, lines: Sequence[str]) -> tuple[Attempt, ...]:
    """What the verbose run says first of each recipient ("ADDRESS... TEXT"); whatever is no other word is a failure.

    The report to the sender comes later in the same run and has the same form.
    """
    found: dict[str, Attempt] = {}
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
    return tuple(found.values())


def _text_about(address: str, line: str) -> str:
    for shown in (f"<{address}>... ", f"{address}... "):
        if line.startswith(shown) and not line.removeprefix(shown).startswith(NO_VERDICT):
            return line.removeprefix(shown)
    return ""


def _attempt(address: str, text: str, remote: str, reply: str) -> Attempt:
    outcome = next((meaning for word, meaning in WORDS if text.startswith(word)), "bounced")
    return Attempt(address, outcome, remote, reply if outcome == "bounced" and reply else text)
