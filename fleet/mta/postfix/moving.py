"""Flush, bounce and requeue: what makes the queue manager do something at once."""

from collections.abc import Callable, Iterable

from fleet.match import wildcards
from fleet.match.nodes import Op, Term
from fleet.mta.bounds import count_of
from fleet.mta.errors import MtaNotRunning, Refused, Unsupported
from fleet.mta.host.commands import READ_SECONDS, pause
from fleet.mta.operations import QueueBounce, QueueFlush, QueueRequeue, Selection
from fleet.mta.postfix.attempt_log import log_lines, parse_lines, requeued, returned
from fleet.mta.postfix.commands import TIMES, attempt, attempt_argv, flush_all, log_source, postsuper_argv, wake_pickup
from fleet.mta.postfix.driver import SKIPPED, act, freeze, thaw
from fleet.mta.postfix.parse import error_of, ids_input
from fleet.mta.postfix.queue import DOWN, QUEUE, proof
from fleet.mta.queue.outcome import Outcomes, changed, plan_of
from fleet.mta.queue.selection import choose, everything, means_held, not_held
from fleet.mta.records import Context, InstanceFacts, MessageState, QueueEntry, Result
from fleet.mta.steps import Command, Completed, Steps, run

PAUSE = 3
LOOKS = 10
REQUEUE_LOOKS = 25
FORCE_EXPIRE = (3, 5)
NOT_CONFIGURED = b"Flush service is not configured for destination"


def queue_flush(instance: InstanceFacts, operation: QueueFlush, context: Context) -> Steps[Result]:
    """`queue.flush`: attempts began. Held messages never; ALL at once, others one by one.

    Proof: the queue manager touches a queue file for every attempt. Raises MtaNotRunning, TooMany and others.
    """
    chosen = yield from choose(QUEUE, instance, operation, context, not_held)
    native = native_flush(instance, operation.selection)
    command = flush_all(instance, *native).argv if native else attempt_argv(instance)
    also = ["every message of that destination is attempted, new ones too"] if native else []
    yield plan_of(chosen, context, [command], also)
    if chosen.entries and DOWN in chosen.notes:
        raise MtaNotRunning("the mail system is down, so nothing can be attempted")
    outcomes = Outcomes()
    wanted = {entry.queue_id: entry for entry in chosen.entries}
    times = yield from attempt_times(instance, wanted)
    if wanted and native:
        check_flush((yield from run(flush_all(instance, *native))))
    rest = yield from not_attempted(instance, times, looks=2 if native else 0)
    if rest and native[:1] != ("-f",):
        check_flush((yield from attempt(instance, rest)))
    rest = (yield from not_attempted(instance, times, looks=LOOKS)) if rest else []
    now = yield from proof(instance, wanted)
    gone = [name for name in wanted if name not in times and name not in now]
    outcomes.put(wanted, MessageState.DONE)
    outcomes.put(gone, MessageState.ALREADY_GONE)
    outcomes.put(rest, MessageState.LEFT)
    return changed(chosen, outcomes, now)


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
    command = Command(
        (instance.queue_dirs[0],),
        script=TIMES,
        stdin=stdin,
        become=True,
        timeout=READ_SECONDS,
        max_output=64 << 20,
    )
    lines = parse_lines((yield from run(command)), TIMES)
    return {name: time for name, _, time in (line.partition(" ") for line in lines)}


def not_attempted(instance: InstanceFacts, times: dict[str, str], *, looks: int) -> Steps[list[str]]:
    """Those whose files nobody touched, after up to so many looks with a pause before each."""
    rest = list(times)
    for _ in range(looks if times else 0):
        yield from pause(PAUSE)
        now = yield from attempt_times(instance, times)
        rest = [name for name in times if now.get(name) == times[name]]
        if not rest:
            break
    return rest


def queue_bounce(instance: InstanceFacts, operation: QueueBounce, context: Context) -> Steps[Result]:
    """`queue.bounce`: marked as expired while on hold, then released and attempted: the queue manager returns them.

    Raises Unsupported before 3.5 and without notice. Proof: gone from the queue, and the log says "returned to sender".
    """
    if version(instance) < FORCE_EXPIRE:
        raise Unsupported(f"Postfix {instance.version} cannot expire a message; 3.5 and later can")
    if not operation.notify:
        raise Unsupported("Postfix always sends the notice", hint="purge the messages instead")
    chosen = yield from choose(QUEUE, instance, operation, context, everything)
    steps = [
        postsuper_argv(instance, flag, queue) for flag, queue in (("-h", "deferred"), ("-e", "hold"), ("-H", "hold"))
    ]
    notes = [SKIPPED, "a message from <> is dropped: there is nobody to return it to"]
    yield plan_of(chosen, context, [*steps, attempt_argv(instance)], notes)
    if chosen.entries and DOWN in chosen.notes:
        raise MtaNotRunning("the mail system is down, so nothing can be returned")
    outcomes = Outcomes()
    held, frozen_by_us = yield from freeze(instance, chosen.entries, outcomes)
    expired = yield from act_on_held(instance, "-e", held, frozen_by_us)
    yield from thaw(instance, [name for name in held if name in expired or name in frozen_by_us])
    yield from attempt(instance, sorted(expired))
    now = yield from wait_until(instance, held, lambda found: not any(name in found for name in expired), LOOKS)
    told = returned((yield from log_lines(instance, (f": {name}: from=<" for name in expired))))
    is_told = log_source(instance) != "none"
    for name in held:
        outcomes.put([name], _bounced(name in now, name in expired and (name in told or not is_told), now.get(name)))
    return changed(chosen, outcomes, now)


def _bounced(is_queued: bool, is_proven: bool, current: QueueEntry | None) -> MessageState:
    if not is_queued:
        return MessageState.DONE if is_proven else MessageState.ALREADY_GONE
    under_way = current is not None and current.state in {"active", "incoming"}
    return MessageState.IN_DELIVERY if under_way else MessageState.LEFT


def queue_requeue(instance: InstanceFacts, operation: QueueRequeue, context: Context) -> Steps[Result]:
    """`queue.requeue`: through maildrop and cleanup(8) again. The new queue ID is what pickup(8) logs, else empty.

    A requeued message leaves hold, so held ones are taken only when the request names them.
    """
    relevant = everything if means_held(operation.selection) else not_held
    chosen = yield from choose(QUEUE, instance, operation, context, relevant)
    steps = [postsuper_argv(instance, "-h", "deferred"), postsuper_argv(instance, "-r", "hold")]
    steps.append(wake_pickup(instance).argv)
    yield plan_of(chosen, context, steps, [SKIPPED, "pickup(8) gives every message a new queue ID"])
    outcomes = Outcomes()
    held, frozen_by_us = yield from freeze(instance, chosen.entries, outcomes)
    said = yield from act_on_held(instance, "-r", held, frozen_by_us)
    yield from thaw(instance, [name for name in held if name not in said and name in frozen_by_us])
    if said:
        yield from run(wake_pickup(instance))
    now: dict[str, QueueEntry] = {}
    if said and DOWN not in chosen.notes:
        now = yield from wait_until(instance, said, lambda found: not found, REQUEUE_LOOKS)
    new_ids = requeued((yield from log_lines(instance, (f"orig_id={name}" for name in said))))
    outcomes.new_ids = {name: new_ids[name] for name in said if name in new_ids}
    outcomes.put((name for name in held if name in said), MessageState.DONE)
    left = yield from proof(instance, (name for name in held if name not in said))
    outcomes.put((name for name in held if name not in said), MessageState.ALREADY_GONE)
    outcomes.put(left, MessageState.LEFT)
    return changed(chosen, outcomes, now | left)


def act_on_held(
    instance: InstanceFacts, flag: str, held: Iterable[str], frozen_by_us: Iterable[str]
) -> Steps[frozenset[str]]:
    """`act`; when it is refused, nothing stays on hold because of us."""
    try:
        return (yield from act(instance, flag, "hold", held))
    except Refused:
        yield from thaw(instance, frozen_by_us)
        raise


def wait_until(
    instance: InstanceFacts, queue_ids: Iterable[str], is_over: Callable[[dict[str, QueueEntry]], bool], looks: int
) -> Steps[dict[str, QueueEntry]]:
    """What the queue holds of these, looked at with pauses until it is over or so many looks are done."""
    wanted = tuple(queue_ids)
    found: dict[str, QueueEntry] = {}
    for _ in range(looks if wanted else 0):
        found = yield from proof(instance, wanted)
        if is_over(found):
            break
        yield from pause(PAUSE)
    return found


def version(instance: InstanceFacts) -> tuple[int, ...]:
    """(3, 7) of "3.7.11" and of "3.8-20220527"."""
    parts = instance.version.replace("-", ".").split(".")[:2]
    return tuple(count_of(part) for part in parts if part.isdigit())
