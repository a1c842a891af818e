"""How messages are changed.

A message that is being delivered is in memory of the queue manager: taking its file away stops nothing (trap 2). So
every change begins with `postsuper -h - deferred`: postsuper renames out of that one directory, and the rename fails
when the queue manager was faster. What then lies in hold/ is nobody's but ours, and is looked at again by fingerprint.
"""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import partial

from fleet.mta.bounds import count_of
from fleet.mta.errors import MtaNotRunning, Refused, Unsupported
from fleet.mta.host.commands import chunks
from fleet.mta.operations import ChangesMessages, QueueBounce
from fleet.mta.postfix import quarantine
from fleet.mta.postfix.attempt_log import log_lines, requeued, returned
from fleet.mta.postfix.commands import (
    attempt,
    attempt_argv,
    flush_all,
    log_source,
    postsuper,
    postsuper_argv,
    wake_pickup,
)
from fleet.mta.postfix.flush import attempt_times, check_flush, native_flush, not_attempted, wait_until
from fleet.mta.postfix.parse import parse_verdicts
from fleet.mta.postfix.queue import DOWN, QUEUE, proof
from fleet.mta.queue.driver import Act, QueueDriver, Said
from fleet.mta.queue.outcome import Chosen, Verb, Word, names, same
from fleet.mta.records import Context, InstanceFacts, QueueEntry
from fleet.mta.steps import Steps, T, run

SKIPPED = "messages that are being delivered (active, incoming, maildrop) are left alone"
DROPPED = "a message from <> is dropped: there is nobody to return it to"
RENAMED = "pickup(8) gives every message a new queue ID"
ALSO = "every message of that destination is attempted, new ones too"
LOOKS = 10
REQUEUE_LOOKS = 25
FORCE_EXPIRE = (3, 5)


def check(instance: InstanceFacts, verb: Verb, operation: ChangesMessages) -> None:
    """Raises Unsupported for a bounce before 3.5 and without notice."""
    if verb is Verb.BOUNCE and version(instance) < FORCE_EXPIRE:
        raise Unsupported(f"Postfix {instance.version} cannot expire a message; 3.5 and later can")
    if isinstance(operation, QueueBounce) and not operation.notify:
        raise Unsupported("Postfix always sends the notice", hint="purge the messages instead")


def act(instance: InstanceFacts, verb: Verb, operation: ChangesMessages, context: Context, chosen: Chosen) -> Act:
    """By postsuper; what is taken away is held first, and looked at again. An attempt begins at once for ALL."""
    entries = chosen.entries
    hold, release = postsuper_argv(instance, "-h", "deferred"), postsuper_argv(instance, "-H", "hold")
    match verb:
        case Verb.HOLD:
            return Act([hold], partial(_held, instance, entries), [SKIPPED])
        case Verb.RELEASE:
            return Act([release], partial(_released, instance, entries))
        case Verb.DELETE:
            return Act([hold, postsuper_argv(instance, "-d", "hold")], partial(_deleted, instance, entries), [SKIPPED])
        case Verb.TAKE_OUT:
            commands, notes = quarantine.plan_quarantine(instance)
            look = partial(quarantine.look, instance, context.job) if quarantine.is_movable(instance) else None
            return Act([hold, *commands], partial(_taken_out, instance, context.job, entries), [SKIPPED, *notes], look)
        case Verb.BOUNCE:
            steps = [hold, postsuper_argv(instance, "-e", "hold"), release, attempt_argv(instance)]
            return Act(steps, partial(_bounced, instance, chosen), [SKIPPED, DROPPED])
        case Verb.REQUEUE:
            steps = [hold, postsuper_argv(instance, "-r", "hold"), wake_pickup(instance).argv]
            return Act(steps, partial(_requeued, instance, chosen), [SKIPPED, RENAMED])
    native = native_flush(instance, operation.selection)
    command = flush_all(instance, *native).argv if native else attempt_argv(instance)
    return Act([command], partial(_attempted, instance, chosen, native), [ALSO] if native else [])


@dataclass(frozen=True, slots=True)
class Held:
    """`entries`: the chosen messages that are on hold now; `ours`: queue IDs that postsuper moved there for us. `now`:
    what is queued of all the chosen ones."""

    entries: dict[str, QueueEntry]
    ours: frozenset[str]
    now: dict[str, QueueEntry]


def hold_for_us(instance: InstanceFacts, entries: Iterable[QueueEntry]) -> Steps[Held]:
    """Puts the deferred ones on hold and looks again. A message that came under a used ID in between is released."""
    wanted = {entry.queue_id: entry for entry in entries}
    deferred = (name for name, entry in wanted.items() if entry.state == "deferred")
    said = yield from postsuper_on(instance, "-h", "deferred", deferred)
    now = yield from proof(instance, wanted)
    yield from unhold(instance, [name for name in said if name in now and same(now, wanted[name]) is None])
    held = {name: now[name] for name, entry in wanted.items() if (found := same(now, entry)) and found.state == "hold"}
    return Held(held, said, now)


def unhold(instance: InstanceFacts, queue_ids: Iterable[str]) -> Steps[None]:
    """Takes back our own hold."""
    yield from postsuper_on(instance, "-H", "hold", queue_ids)


def _held(instance: InstanceFacts, entries: Iterable[QueueEntry]) -> Steps[Said]:
    held = yield from hold_for_us(instance, entries)
    return Said(dict.fromkeys(held.ours, Word.DONE), held.now)


def _released(instance: InstanceFacts, entries: Iterable[QueueEntry]) -> Steps[Said]:
    """Back to deferred, where the queue manager tries them in its own time."""
    return Said(dict.fromkeys((yield from postsuper_on(instance, "-H", "hold", names(entries))), Word.DONE))


def _deleted(instance: InstanceFacts, entries: Iterable[QueueEntry]) -> Steps[Said]:
    held = yield from hold_for_us(instance, entries)
    said = yield from on_held(instance, held, lambda: postsuper_on(instance, "-d", "hold", held.entries))
    left = yield from _given_back(instance, held)
    return Said(dict.fromkeys(said, Word.DONE), _without(held) | left)


def _taken_out(instance: InstanceFacts, job: str, entries: Iterable[QueueEntry]) -> Steps[Said]:
    held = yield from hold_for_us(instance, entries)
    if not quarantine.is_movable(instance):
        return Said(now=_without(held), places=dict.fromkeys(held.entries, quarantine.HELD))
    places = yield from on_held(instance, held, lambda: quarantine.move_out(instance, job, held.entries))
    left = yield from _given_back(instance, held)
    return Said(now=_without(held) | left, places={name: at for name, at in places.items() if name not in left})


def _given_back(instance: InstanceFacts, held: Held) -> Steps[dict[str, QueueEntry]]:
    """What is queued still of what was on hold; our own hold of it is taken back."""
    left = yield from proof(instance, held.entries)
    yield from unhold(instance, [name for name in left if name in held.ours])
    return left


def _without(held: Held) -> dict[str, QueueEntry]:
    return {name: entry for name, entry in held.now.items() if name not in held.entries}


def _attempted(instance: InstanceFacts, chosen: Chosen, native: tuple[str, ...]) -> Steps[Said]:
    """The queue manager touches a queue file for every attempt. Raises MtaNotRunning."""
    _check_running(chosen, "attempted")
    wanted = names(chosen.entries)
    times = yield from attempt_times(instance, wanted)
    if native:
        check_flush((yield from run(flush_all(instance, *native))))
    rest = yield from not_attempted(instance, times, looks=2 if native else 0)
    if rest and native[:1] != ("-f",):
        check_flush((yield from attempt(instance, rest)))
    rest = (yield from not_attempted(instance, times, looks=LOOKS)) if rest else []
    now = yield from proof(instance, wanted)
    done = [name for name in wanted if name not in rest and (name in times or name in now)]
    return Said(dict.fromkeys(done, Word.DONE) | dict.fromkeys(rest, Word.LEFT), now)


def _bounced(instance: InstanceFacts, chosen: Chosen) -> Steps[Said]:
    """Marked as expired while on hold, then released and attempted: gone, and the log says "returned to sender"."""
    _check_running(chosen, "returned")
    held = yield from hold_for_us(instance, chosen.entries)
    expired = yield from on_held(instance, held, lambda: postsuper_on(instance, "-e", "hold", held.entries))
    yield from unhold(instance, [name for name in held.entries if name in expired or name in held.ours])
    yield from attempt(instance, sorted(expired))
    now = yield from wait_until(instance, held.entries, lambda found: not any(name in found for name in expired), LOOKS)
    told = returned((yield from log_lines(instance, (f": {name}: from=<" for name in expired))))
    is_told = log_source(instance) != "none"
    proven = [name for name in expired if name in told or not is_told]
    return Said(dict.fromkeys(proven, Word.DONE), _without(held) | now)


def _requeued(instance: InstanceFacts, chosen: Chosen) -> Steps[Said]:
    """Through maildrop and cleanup(8) again. The new queue ID is what pickup(8) logs, else empty."""
    held = yield from hold_for_us(instance, chosen.entries)
    said = yield from on_held(instance, held, lambda: postsuper_on(instance, "-r", "hold", held.entries))
    yield from unhold(instance, [name for name in held.entries if name not in said and name in held.ours])
    now: dict[str, QueueEntry] = {}
    if said:
        yield from run(wake_pickup(instance))
        if DOWN not in chosen.notes:
            now = yield from wait_until(instance, said, lambda found: not found, REQUEUE_LOOKS)
    new_ids = requeued((yield from log_lines(instance, (f"orig_id={name}" for name in said))))
    left = yield from proof(instance, (name for name in held.entries if name not in said))
    return Said(
        dict.fromkeys(said, Word.DONE),
        _without(held) | now | left,
        new_ids={name: new_ids[name] for name in said if name in new_ids},
    )


def _check_running(chosen: Chosen, what: str) -> None:
    if DOWN in chosen.notes:
        raise MtaNotRunning(f"the mail system is down, so nothing can be {what}")


def on_held(instance: InstanceFacts, held: Held, change: Callable[[], Steps[T]]) -> Steps[T]:
    """What it returns; when it is refused, nothing stays on hold because of us."""
    try:
        return (yield from change())
    except Refused:
        yield from unhold(instance, held.ours)
        raise


def postsuper_on(instance: InstanceFacts, flag: str, queue: str, queue_ids: Iterable[str]) -> Steps[frozenset[str]]:
    """One postsuper for each lot of IDs. Returns the IDs that it says it changed; without IDs nothing is run."""
    said: set[str] = set()
    for lot in chunks(queue_ids):
        said |= parse_verdicts((yield from run(postsuper(instance, flag, queue, lot))))
    return frozenset(said)


def version(instance: InstanceFacts) -> tuple[int, ...]:
    """(3, 7) of "3.7.11" and of "3.8-20220527"."""
    parts = instance.version.replace("-", ".").split(".")[:2]
    return tuple(count_of(part) for part in parts if part.isdigit())


DRIVER = QueueDriver(QUEUE, act, check)
