"""message.deliver, with Sendmail's own dialogue."""

import re
from collections.abc import Sequence
from functools import partial

from fleet.mta.errors import Conflict, InDelivery, MessageNotFound, RemoteError
from fleet.mta.operations import MessageDeliver
from fleet.mta.queue.delivery import Attempt, Delivery, Judge, Try, attempted, not_attempted, outcome_of
from fleet.mta.queue.listing import Listing
from fleet.mta.queue.outcome import fingerprint_of, is_same
from fleet.mta.records import Context, InstanceFacts, QueueEntry, Result
from fleet.mta.sendmail.commands import DELIVER_SECONDS, RUN, change_argv, run_argv, run_queue
from fleet.mta.sendmail.driver import act, read_run
from fleet.mta.sendmail.lines import addresses_of, plain, status_of
from fleet.mta.sendmail.parse import changed_lines, messages_input, verdicts
from fleet.mta.sendmail.queue import QUEUE
from fleet.mta.steps import Steps, run

CONNECTING = re.compile(r".*\.\.\. (?:Connecting to|Using cached \S+ connection to) (\S+?)\.? via ")
# What a server says begins with its code, what Sendmail says to it with >>>; the rest are Sendmail's own words.
SERVER = re.compile(r"[0-9]{3}[ -]")
FAILED = re.compile(r"[45][0-9]{2}[ -]")
UNDER_WAY = frozenset({"active"})
"""What lies in the client queue waits for its time as the rest does."""
NO_VERDICT = ("Connecting to ", "Using cached ")
ALIASED = "aliased to "
EXPANDED = (ALIASED, "including file ")


def attempt(
    instance: InstanceFacts, operation: MessageDeliver, context: Context, entry: QueueEntry, listing: Listing
) -> Try:
    """sendmail -v -qI with the whole queue ID. Raises Conflict."""
    freed = [change_argv(instance, "release")] if entry.state == "hold" else []
    return Try([*freed, run_argv(instance, "deliver")], partial(_run, instance, context.job, entry))


def _run(instance: InstanceFacts, job: str, entry: QueueEntry) -> Steps[Judge]:
    name = entry.queue_id
    if entry.state == "hold" and (yield from act(instance, "release", job, [entry])).get(name) != "done":
        raise Conflict(f"{name} could not be released from quarantine")
    stdin = messages_input(str(DELIVER_SECONDS), [entry])
    lines = changed_lines((yield from run(run_queue(instance, "deliver", stdin))), RUN)
    at = lines.index("run") if "run" in lines else len(lines)
    refused = verdicts(lines[:at]).get(name, "")
    return lambda after: attempt_result(entry, after, refused, lines[at + 1 :])


def attempt_result(before: QueueEntry, after: QueueEntry | None, refused: str, lines: Sequence[str]) -> Result:
    """The result of one attempt by Sendmail's own words and a second look at the queue.

    `refused`: the script's word when it did not run the message. What left the queue without a word is `left_queue`.
    """
    name = before.queue_id
    still = after if after is not None and is_same(after, fingerprint_of(before)) else None
    runs = read_run(lines)
    is_active = after is not None and after.state in UNDER_WAY
    if name not in runs["ran"]:
        if name in runs["locked"] or is_active:
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
    outcome = outcome_of(attempts, is_queued=still is not None)
    return attempted(before, still, attempts, outcome, dialogue=[line for line in lines if line])


def attempts_of(before: QueueEntry, lines: Sequence[str]) -> tuple[Attempt, ...]:
    """What the verbose run says first of each recipient ("ADDRESS... TEXT"), and of those an alias leads to.

    The report to the sender comes later in the same run and has the same form. Where the run does not tell all that an
    address was expanded to, its own outcome is `unclear`.
    """
    attempts: dict[tuple[str, str], Attempt] = {}
    originals = {each.address: "" for each in before.recipients}
    remote = reply = ""
    for line in lines:
        address, has_text, text = line.partition("... ")
        address = plain(address)
        if SERVER.match(line):
            reply = line if FAILED.match(line) else ""
        elif connecting := CONNECTING.match(line):
            remote, reply = connecting[1], ""
        elif not has_text or address not in originals or text.startswith(NO_VERDICT):
            continue
        elif text.startswith(EXPANDED):
            if "..." in text or not text.startswith(ALIASED):
                attempts[address, ""] = Attempt(address, "unclear", reply=text)
            for target in addresses_of(text.removeprefix(ALIASED)):
                originals.setdefault(target, originals[address] or address)
        else:
            orig_to = originals[address]
            attempts.setdefault((address, orig_to), _attempt(address, orig_to, text, remote, reply))
    return tuple(attempts.values())


def _attempt(address: str, orig_to: str, text: str, remote: str, reply: str) -> Attempt:
    status = status_of(text)
    outcome = "deferred" if status == "queued" else status
    return Attempt(address, outcome, remote, reply if outcome == "bounced" and reply else text, orig_to)


DELIVERY = Delivery(QUEUE, attempt, under_way=UNDER_WAY)
