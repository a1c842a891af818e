"""Attempts of messages: asked for, waited for, seen by the times of the queue files, and by the mail log.

The log's lines never by syslog tag: master.cf may rename it per service (trap 16).
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import partial

from fleet.match import wildcards
from fleet.match.nodes import Op, Term
from fleet.mta.bounds import OutOfBounds
from fleet.mta.errors import Conflict, MtaNotRunning
from fleet.mta.host.commands import changing, lines_of, pause, reading
from fleet.mta.logs.heads import without_times
from fleet.mta.logs.rows import Delivery as Outcome
from fleet.mta.logs.source import log_source
from fleet.mta.operations import MessageDeliver, Selection
from fleet.mta.postfix.commands import (
    DELIVER,
    DELIVER_SECONDS,
    LOG,
    TIMES,
    WAIT_SECONDS,
    deliver_arguments,
    postsuper,
    postsuper_argv,
    program,
)
from fleet.mta.postfix.lines import Line, delivery_of, is_given_up, line_of
from fleet.mta.postfix.logs import PICKUP
from fleet.mta.postfix.parse import error_of, ids_input, parse_verdicts
from fleet.mta.postfix.queue import DOWN, QUEUE
from fleet.mta.queue.delivery import Attempt, Delivery, Judge, Try, result_by_log
from fleet.mta.queue.listing import Listing
from fleet.mta.records import Context, InstanceFacts, QueueEntry, Result
from fleet.mta.steps import Completed, Steps, run

PAUSE = 3
NOT_CONFIGURED = b"Flush service is not configured for destination"


def log_lines(instance: InstanceFacts, texts: Iterable[str]) -> Steps[list[str]]:
    """The log's lines that contain any of the texts; none where no log is known. Raises UnparsedOutput, SudoDenied."""
    stdin = "".join(f"{text}\n" for text in texts).encode()
    if not stdin or log_source(instance) == "none":
        return []
    command = reading(LOG, (log_source(instance),), stdin, most=64 << 20)
    return lines_of((yield from run(command)), LOG, error_of)


def attempts_of(lines: Iterable[str], queue_id: str) -> list[Attempt]:
    """The last attempt for each recipient of the message, and original one. What went on to another queue of this host
    is `handed_over`; a line that was not understood tells an attempt to somebody that is `unclear`."""
    found: dict[tuple[str, str], Outcome] = {}
    for text in said_of(lines, queue_id):
        if text.startswith("to=<"):
            recipient, outcome = _outcome_of(text)
            key = recipient, outcome.orig_to
            found[key] = outcome.after(found.get(key))
    return [Attempt(to, each.status, each.relay, each.reply, each.orig_to) for (to, _), each in found.items()]


def _outcome_of(text: str) -> tuple[str, Outcome]:
    try:
        told = delivery_of(text, 0.0)
    except OutOfBounds:
        told = None
    return told or ("", Outcome(0.0, "unclear", reply=text))


def said_of(lines: Iterable[str], queue_id: str) -> Iterator[str]:
    """What Postfix's lines say of the message."""
    for line in told_by(lines):
        if line.queue_id == queue_id:
            yield line.text


def told_by(lines: Iterable[str]) -> Iterator[Line]:
    """Postfix's lines about mail, whatever form their heads have."""
    return filter(None, map(line_of, without_times(lines)))


def returned(lines: Iterable[str]) -> frozenset[str]:
    """The queue IDs that the queue manager says it returned to their senders."""
    return frozenset(line.queue_id for line in told_by(lines) if line.queue_id and is_given_up(line.text))


def requeued(lines: Iterable[str]) -> dict[str, str]:
    """Old queue ID to the new one, as pickup(8) logs it."""
    picked = ((line.queue_id, PICKUP.fullmatch(line.text)) for line in told_by(lines))
    return {match[2]: name for name, match in picked if name and match and match[2]}


def native_flush(instance: InstanceFacts, selection: Selection) -> tuple[str, ...]:
    """postqueue's own words for the selection: -f for ALL, -s for a domain that flush(8) keeps; else nothing."""
    if selection.match is None:
        return ()
    if selection.match.is_all:
        return ("-f",)
    root = selection.match.root
    if not isinstance(root, Term) or root.field != "to-domain" or root.op is not Op.IS:
        return ()
    domain = (wildcards.literal(str(root.value)) or "").lower()
    kept = str(instance.options.get("fast_flush_domains", ""))
    kept = kept.replace("$relay_domains", str(instance.options.get("relay_domains", "")))
    return ("-s", domain) if domain and domain in kept.lower().replace(",", " ").split() else ()


def check_flush(done: Completed | None) -> None:
    """Raises what postqueue says. A domain that flush(8) does not keep after all is attempted one by one later."""
    if done and done.exit_status and NOT_CONFIGURED not in done.stderr:
        raise error_of(done, "postqueue")


def attempt_times(instance: InstanceFacts, queue_ids: Iterable[str]) -> Steps[dict[str, str]]:
    """Queue ID to the change time of its file, of those that lie in deferred/. Changes nothing."""
    stdin = ids_input(queue_ids)
    if not stdin:
        return {}
    command = reading(TIMES, (instance.queue_dirs[0],), stdin, most=64 << 20)
    lines = lines_of((yield from run(command)), TIMES, error_of)
    return {name: time for name, _, time in (line.partition(" ") for line in lines)}


def untouched(instance: InstanceFacts, times: dict[str, str], *, looks: int) -> Steps[list[str]]:
    """Those whose files nobody touched, after up to so many looks with a pause before each."""
    rest = list(times)
    for _ in range(looks if times else 0):
        yield from pause(PAUSE)
        now = yield from attempt_times(instance, times)
        rest = [name for name in times if now.get(name) == times[name]]
        if not rest:
            break
    return rest


def wait_until(
    instance: InstanceFacts, queue_ids: Iterable[str], is_over: Callable[[dict[str, QueueEntry]], bool], looks: int
) -> Steps[dict[str, QueueEntry]]:
    """What the queue holds of these, looked at with pauses until it is over or so many looks are done."""
    wanted = tuple(queue_ids)
    queued: dict[str, QueueEntry] = {}
    for _ in range(looks if wanted else 0):
        queued = yield from QUEUE.proof(instance, wanted)
        if is_over(queued):
            break
        yield from pause(PAUSE)
    return queued


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
    command = changing(DELIVER, deliver_arguments(instance), ids_input([name]), seconds=DELIVER_SECONDS, most=4 << 20)
    lines = lines_of((yield from run(command)), "postqueue", error_of)
    return lambda after: attempt_result(entry, after, lines)


def from_log(instance: InstanceFacts, before: QueueEntry) -> Steps[Result | None]:
    """How the last attempt of a message that left the queue ended."""
    return attempt_result(before, None, (yield from log_lines(instance, [f"{before.queue_id}: "])))


def attempt_result(before: QueueEntry, after: QueueEntry | None, lines: Sequence[str]) -> Result:
    """The result of one attempt, by the log's lines."""
    attempts = attempts_of(lines, before.queue_id)
    is_returned = before.queue_id in returned(lines)
    return result_by_log(before, after, attempts, lines, waited=WAIT_SECONDS, is_returned=is_returned)


DELIVERY = Delivery(QUEUE, attempt, from_log=from_log)
