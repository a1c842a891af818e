"""How messages are changed.

A message that is being delivered is in memory of the queue manager: taking its file away stops nothing (trap 2). So
every change begins with `postsuper -h - deferred`: postsuper renames out of that one directory, and the rename fails
when the queue manager was faster. What then lies in hold/ is nobody's but ours, and is looked at again by fingerprint.

Into the quarantine and back, queue files move out of hold/ by rename(2), so name, inode and bytes stay the same.
Postfix derives a short queue ID from the file's inode and renames what does not fit (postsuper -s, at every start), so
a copy would come back under another ID. A moved file keeps its inode busy: no new message can take its ID meanwhile.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial

from fleet.mta.bounds import count_of
from fleet.mta.errors import MtaNotRunning, Refused, Unsupported
from fleet.mta.host.commands import batched, changing, lines_of, script_argv
from fleet.mta.logs.source import log_source
from fleet.mta.operations import ChangesMessages, Quarantined, QueueBounce
from fleet.mta.postfix.attempt import (
    attempt_times,
    check_flush,
    log_lines,
    native_flush,
    requeued,
    returned,
    untouched,
    wait_until,
)
from fleet.mta.postfix.commands import (
    QUARANTINE,
    attempt,
    attempt_argv,
    flush_all,
    postsuper,
    postsuper_argv,
    wake_pickup,
)
from fleet.mta.postfix.parse import error_of, ids_input, parse_verdicts, queue_id_error
from fleet.mta.postfix.queue import DOWN, QUEUE
from fleet.mta.queue.driver import Act, Jobs, Move, QueueDriver, Reported, Wanted
from fleet.mta.queue.in_quarantine import Layout
from fleet.mta.queue.outcome import Chosen, Verb, Word, is_same, names, same, unless_changed
from fleet.mta.queue.quarantine import fingerprint
from fleet.mta.records import Context, InstanceFacts, QueueEntry
from fleet.mta.steps import Steps, T, run

SKIPPED = "messages that are being delivered (active, incoming, maildrop) are left alone"
DROPPED = "a message from <> is dropped: there is nobody to return it to"
RENAMED = "pickup(8) gives every message a new queue ID"
ALSO = "every message of that destination is attempted, new ones too"
HELD = "hold"
KEPT_ON_HOLD = "the queue file cannot be moved safely here, so quarantine means: kept on hold in the queue"
NOT_OURS = (
    "{} messages are back and on hold, and nothing on the host tells that a restore of ours put them there: they stay "
    "so until they are released by queue ID or with state:hold"
)
LAYOUT = Layout("(?P<id>[^/]+)", queue_id_error, held=HELD)
READABLE = frozenset(Verb) - {Verb.ATTEMPT}
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
            run_it = partial(_taken_out, instance, context.job, entries)
            if not is_movable(instance):
                return Act([hold], run_it, [SKIPPED, KEPT_ON_HOLD])
            return Act([hold, quarantine_argv(instance, "out")], run_it, [SKIPPED], looks_again=True)
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
    """`entries`: the chosen messages that are on hold now, by us or since our listing; `ours`: queue IDs that postsuper
    moved there for us. `now`: what is queued of all the chosen ones."""

    entries: dict[str, QueueEntry]
    ours: frozenset[str]
    now: dict[str, QueueEntry]


def hold_for_us(instance: InstanceFacts, entries: Iterable[QueueEntry]) -> Steps[Held]:
    """Puts the deferred ones on hold and looks again. A message that came under a used ID in between is released.

    What somebody else holds since our listing is left: nobody asked for what he keeps back, and an undo would free it.
    """
    wanted = {entry.queue_id: entry for entry in entries}
    deferred = (name for name, entry in wanted.items() if entry.state == "deferred")
    changed = yield from postsuper_on(instance, "-h", "deferred", deferred)
    now = yield from QUEUE.proof(instance, wanted)
    yield from unhold(instance, [name for name in changed if name in now and same(now, wanted[name]) is None])
    held = {
        name: current
        for name, entry in wanted.items()
        if (current := same(now, entry)) and current.state == "hold" and (name in changed or entry.state == "hold")
    }
    return Held(held, changed, now)


def unhold(instance: InstanceFacts, queue_ids: Iterable[str]) -> Steps[None]:
    """Takes back our own hold."""
    yield from postsuper_on(instance, "-H", "hold", queue_ids)


def _held(instance: InstanceFacts, entries: Iterable[QueueEntry]) -> Steps[Reported]:
    held = yield from hold_for_us(instance, entries)
    return Reported(dict.fromkeys(held.ours, Word.DONE), held.now)


def _released(instance: InstanceFacts, entries: Iterable[QueueEntry]) -> Steps[Reported]:
    """Back to deferred, where the queue manager tries them in its own time."""
    return Reported(dict.fromkeys((yield from postsuper_on(instance, "-H", "hold", names(entries))), Word.DONE))


def _deleted(instance: InstanceFacts, entries: Iterable[QueueEntry]) -> Steps[Reported]:
    held = yield from hold_for_us(instance, entries)
    deleted = yield from on_held(instance, held, lambda: postsuper_on(instance, "-d", "hold", held.entries))
    left = yield from _given_back(instance, held)
    return Reported(dict.fromkeys(deleted, Word.DONE), _without(held) | left)


def _taken_out(instance: InstanceFacts, job: str, entries: Sequence[QueueEntry]) -> Steps[Reported]:
    held = yield from hold_for_us(instance, entries)
    if not is_movable(instance):
        return Reported(now=_without(held), places=dict.fromkeys(held.entries, HELD))
    there, _ = yield from on_held(instance, held, lambda: quarantine(instance, "out", job, held.entries))
    left = yield from _given_back(instance, held)
    return Reported(now=_without(held) | left, places=LAYOUT.places(instance, job, there - left.keys()))


def _given_back(instance: InstanceFacts, held: Held) -> Steps[dict[str, QueueEntry]]:
    """What is queued still of what was on hold; our own hold of it is taken back."""
    left = yield from QUEUE.proof(instance, held.entries)
    yield from unhold(instance, [name for name in left if name in held.ours])
    return left


def _without(held: Held) -> dict[str, QueueEntry]:
    return {name: entry for name, entry in held.now.items() if name not in held.entries}


def _attempted(instance: InstanceFacts, chosen: Chosen, native: tuple[str, ...]) -> Steps[Reported]:
    """The queue manager touches a queue file for every attempt. Raises MtaNotRunning."""
    _check_running(chosen, "attempted")
    wanted = names(chosen.entries)
    times = yield from attempt_times(instance, wanted)
    if native:
        check_flush((yield from run(flush_all(instance, *native))))
    rest = yield from untouched(instance, times, looks=2 if native else 0)
    if rest and native[:1] != ("-f",):
        check_flush((yield from attempt(instance, rest)))
    rest = (yield from untouched(instance, times, looks=LOOKS)) if rest else []
    now = yield from QUEUE.proof(instance, wanted)
    done = [name for name in wanted if name not in rest and (name in times or name in now)]
    return Reported(dict.fromkeys(done, Word.DONE) | dict.fromkeys(rest, Word.LEFT), now)


def _bounced(instance: InstanceFacts, chosen: Chosen) -> Steps[Reported]:
    """Marked as expired while on hold, then released and attempted: gone, and the log says "returned to sender"."""
    _check_running(chosen, "returned")
    held = yield from hold_for_us(instance, chosen.entries)
    expired = yield from on_held(instance, held, lambda: postsuper_on(instance, "-e", "hold", held.entries))
    yield from unhold(instance, [name for name in held.entries if name in expired or name in held.ours])
    yield from attempt(instance, sorted(expired))
    now = yield from wait_until(instance, held.entries, lambda there: not any(name in there for name in expired), LOOKS)
    logged = returned((yield from log_lines(instance, (f"{name}: from=<" for name in expired))))
    has_log = log_source(instance) != "none"
    proven = [name for name in expired if name in logged or not has_log]
    return Reported(dict.fromkeys(proven, Word.DONE), _without(held) | now)


def _requeued(instance: InstanceFacts, chosen: Chosen) -> Steps[Reported]:
    """Through maildrop and cleanup(8) again. The new queue ID is what pickup(8) logs, else empty."""
    held = yield from hold_for_us(instance, chosen.entries)
    moved = yield from on_held(instance, held, lambda: postsuper_on(instance, "-r", "hold", held.entries))
    yield from unhold(instance, [name for name in held.entries if name not in moved and name in held.ours])
    now: dict[str, QueueEntry] = {}
    if moved:
        yield from run(wake_pickup(instance))
        if DOWN not in chosen.notes:
            now = yield from wait_until(instance, moved, lambda queued: not queued, REQUEUE_LOOKS)
    new_ids = requeued((yield from log_lines(instance, (f"orig_id={name}" for name in moved))))
    left = yield from QUEUE.proof(instance, (name for name in held.entries if name not in moved))
    return Reported(
        dict.fromkeys(moved, Word.DONE),
        _without(held) | now | left,
        new_ids={name: new_ids[name] for name in moved if name in new_ids},
    )


def _check_running(chosen: Chosen, what: str) -> None:
    if DOWN in chosen.notes:
        raise MtaNotRunning(f"the mail system is down, so nothing can be {what}")


def on_held(instance: InstanceFacts, held: Held, change: Callable[[], Steps[T]]) -> Steps[T]:
    """What it returns; when it is refused before it changed anything, nothing stays on hold because of us."""
    try:
        return (yield from unless_changed(change)())
    except Refused as error:
        yield from unhold(instance, held.ours)
        error.is_put_right = True
        raise


def postsuper_on(instance: InstanceFacts, flag: str, queue: str, queue_ids: Iterable[str]) -> Steps[frozenset[str]]:
    """One postsuper for each batch of IDs. Returns the IDs that it says it changed; without IDs nothing is run."""
    changed: set[str] = set()
    for batch in batched(queue_ids):
        changed |= parse_verdicts((yield from run(postsuper(instance, flag, queue, batch))))
    return frozenset(changed)


def version(instance: InstanceFacts) -> tuple[int, ...]:
    """(3, 7) of "3.7.11" and of "3.8-20220527"."""
    parts = instance.version.replace("-", ".").split(".")[:2]
    return tuple(count_of(part) for part in parts if part.isdigit())


def is_movable(instance: InstanceFacts) -> bool:
    """Whether hold/ is a flat directory on the queue's own file system, as discovery saw it."""
    return bool(instance.options.get("can_quarantine"))


def quarantine_argv(instance: InstanceFacts, action: str) -> tuple[str, ...]:
    """How a plan shows `quarantine`."""
    return script_argv(QUARANTINE, action, instance.queue_dirs[0])


def quarantine(
    instance: InstanceFacts, action: str, job: str, queue_ids: Iterable[str]
) -> Steps[tuple[frozenset[str], frozenset[str]]]:
    """Runs postfix_quarantine.sh. Returns the queue IDs that lie in the job's directory afterwards.

    And, of those to be brought back, those that a restore of ours put on hold where nobody has moved them since.
    """
    done = yield from run(
        changing(
            QUARANTINE,
            (action, instance.queue_dirs[0]),
            f"{job}\n".encode() + ids_input(queue_ids),
            most=8 << 20,
            mutates=action != "look",
        )
    )
    if done.exit_status == 75:
        raise Unsupported("hold/ is on another file system than the queue directory", hint="discover the host again")
    lines = lines_of(done, QUARANTINE, error_of)
    ours = frozenset(line.removeprefix("ours ") for line in lines if line.startswith("ours "))
    return frozenset(line for line in lines if " " not in line), ours


def lying(instance: InstanceFacts, job: str, verb: Verb, wanted: Wanted) -> Steps[Reported]:
    """A queue file is renamed, so no lock is needed to look. What is kept on hold in the queue has no job there."""
    if verb is Verb.TAKE_OUT and not is_movable(instance):
        return Reported()
    if not job:
        now = yield from QUEUE.lookup(instance, wanted)
        return Reported(places={name: HELD for name, entry in now.items() if is_same(entry, wanted[name])})
    there, _ = yield from quarantine(instance, "look", job, ())
    return Reported(places=LAYOUT.places(instance, job, there))


def move(instance: InstanceFacts, verb: Verb, context: Context, jobs: Jobs) -> Move:
    """Back into hold/, then released and attempted unless it was held before. What is kept on hold is deleted there."""
    if verb is Verb.ERASE:
        is_kept = not is_movable(instance)
        commands = [postsuper_argv(instance, "-d", "hold") if is_kept else quarantine_argv(instance, "erase")]
        return Move(commands, partial(_moved, instance, "erase"))
    commands = [quarantine_argv(instance, "back"), postsuper_argv(instance, "-H", "hold")]
    items = {item.queue_id: item for each in jobs.values() for item in each}
    return Move(commands, partial(_moved, instance, "back"), settle=partial(_freed, instance, items, context.undo))


def _moved(instance: InstanceFacts, action: str, job: str, items: Sequence[Quarantined]) -> Steps[Reported]:
    if job:
        there, ours = yield from quarantine(instance, action, job, (item.queue_id for item in items))
        return Reported(dict.fromkeys(ours, Word.DONE), places=LAYOUT.places(instance, job, there))
    if action == "back":
        return Reported()
    now = yield from QUEUE.lookup(instance, (item.queue_id for item in items))
    kept = {item.queue_id: now[item.queue_id] for item in items if _is_queued(item, now)}
    deleted = yield from postsuper_on(instance, "-d", "hold", (name for name in kept if kept[name].state == "hold"))
    return Reported(places=dict.fromkeys(kept.keys() - deleted, HELD))


def _is_queued(item: Quarantined, now: Mapping[str, QueueEntry]) -> bool:
    return item.queue_id in now and is_same(now[item.queue_id], fingerprint(item))


def _freed(
    instance: InstanceFacts,
    items: Mapping[str, Quarantined],
    undo: bool,
    queued: Mapping[str, QueueEntry],
    reported: Reported,
) -> Steps[Reported]:
    """Only what we put on hold: somebody else may hold a message that is back."""
    held = [name for name, entry in queued.items() if entry.state == "hold" != items[name].state]
    ours = [name for name in held if items[name].place == HELD or name in reported.words]
    for batch in batched(ours):
        freed = yield from postsuper_on(instance, "-H", "hold", batch)
        if not undo:  # an undo gives the state back that was, and that waited for its time
            yield from attempt(instance, [name for name in batch if name in freed])
    others = dict.fromkeys((name for name in held if name not in ours), Word.LEFT)
    return Reported(others, notes=(NOT_OURS.format(len(others)),) if others else ())


def is_back(item: Quarantined, entry: QueueEntry) -> bool:
    """What came back to hold/ and was not held is not restored yet."""
    return item.state == "hold" or entry.state != "hold"


DRIVER = QueueDriver(
    QUEUE, act, LAYOUT, lying, move, frozenset(Verb), check, is_back=is_back, readable=READABLE, holds_first=True
)
