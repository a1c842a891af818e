"""The host's quarantine: queue files moved out of hold/ and back by rename(2), so name, inode and bytes stay the same.

Postfix derives a short queue ID from the file's inode and renames what does not fit (postsuper -s, at every start), so
a copy would come back under another ID. A moved file keeps its inode busy: no new message can take its ID meanwhile.
"""

import re
from collections.abc import Iterable
from functools import partial

from fleet.mta.errors import UnparsedOutput, Unsupported
from fleet.mta.host.commands import CHANGE_SECONDS, chunks, script_argv
from fleet.mta.operations import Quarantined, QuarantineErase, QuarantineRestore
from fleet.mta.postfix.commands import QUARANTINE, attempt, postsuper, postsuper_argv
from fleet.mta.postfix.parse import error_of, ids_input, parse_verdicts, queue_id_error
from fleet.mta.postfix.queue import QUEUE, proof
from fleet.mta.queue import readback
from fleet.mta.queue.in_quarantine import JOB, Shape, find
from fleet.mta.queue.outcome import Chosen, Outcomes, plan_of, result_of
from fleet.mta.queue.quarantine import as_chosen, by_job, queued_of, restored, seen_again
from fleet.mta.records import Context, InQuarantine, InstanceFacts, MessageState, QueueEntry, Result
from fleet.mta.steps import Command, Steps, run

DIRECTORY = "mxfleet-quarantine"
HELD = "hold"
NOTE_HELD = "the queue file cannot be moved safely here, so quarantine means: kept on hold in the queue"


def is_movable(instance: InstanceFacts) -> bool:
    """Whether hold/ is a flat directory on the queue's own file system, as discovery saw it."""
    return bool(instance.options.get("can_quarantine"))


def plan_quarantine(instance: InstanceFacts) -> tuple[list[tuple[str, ...]], list[str]]:
    """What a plan says about it: the further commands, and the notes."""
    if not is_movable(instance):
        return [], [NOTE_HELD]
    return [script_argv(QUARANTINE, "out", instance.queue_dirs[0])], []


def move_out(instance: InstanceFacts, job: str, queue_ids: Iterable[str]) -> Steps[dict[str, str]]:
    """Moves what is on hold to the quarantine of this job. Returns the places of what lies there.

    Raises Conflict, UnparsedOutput and others; whatever happens, each message is whole in one of the two places.
    """
    there = yield from _script(instance, "out", job, queue_ids)
    return {name: _place(instance, job, name) for name in there}


def look(instance: InstanceFacts, job: str) -> Steps[dict[str, str]]:
    """The places of what lies in the quarantine of this job. Changes nothing."""
    there = yield from _script(instance, "look", job, ())
    return {name: _place(instance, job, name) for name in there}


def quarantine_restore(instance: InstanceFacts, operation: QuarantineRestore, context: Context) -> Steps[Result]:
    """`quarantine.restore`: back into hold/, seen there, then released and attempted unless it was held before.

    Undoing a purge attempts nothing: the message waits for its time as it did.
    """
    before = yield from queued_of(QUEUE, instance, operation.items)
    by_id = {item.queue_id: item for item in operation.items}
    commands = [
        script_argv(QUARANTINE, "back", instance.queue_dirs[0]),
        postsuper_argv(instance, "-H", "hold"),
    ]
    yield plan_of(as_chosen(operation.items), context, commands)
    still_there: set[str] = set()
    for job, names in _jobs(instance, (item for item in operation.items if item.place != HELD)):
        still_there.update(name for name in (yield from _script(instance, "back", job, names)) if name in names)
    now = yield from proof(instance, by_id)
    seen = seen_again(now, by_id)
    freed = [name for name, entry in seen.items() if by_id[name].state != "hold" and entry.state == "hold"]
    for lot in chunks(freed):
        said = parse_verdicts((yield from run(postsuper(instance, "-H", "hold", lot))))
        if not context.undo:  # an undo gives the state back that was, and that waited for its time
            yield from attempt(instance, [name for name in lot if name in said])
    return restored(by_id, before, now, still_there)


def quarantine_erase(instance: InstanceFacts, operation: QuarantineErase, context: Context) -> Steps[Result]:
    """`quarantine.erase`: the quarantined files are removed for good. What was kept on hold is deleted there."""
    commands = [script_argv(QUARANTINE, "erase", instance.queue_dirs[0])]
    if not is_movable(instance):
        commands = [postsuper_argv(instance, "-d", "hold")]
    yield plan_of(as_chosen(operation.items), context, commands)
    outcomes = Outcomes()
    for job, names in _jobs(instance, (item for item in operation.items if item.place != HELD)):
        before = yield from _script(instance, "look", job, ())
        left = yield from _script(instance, "erase", job, names)
        outcomes.put((name for name in names if name in before and name not in left), MessageState.DONE)
        outcomes.put((name for name in names if name not in before), MessageState.ALREADY_GONE)
        outcomes.put((name for name in names if name in left), MessageState.LEFT)
    yield from _erase_held(instance, [item for item in operation.items if item.place == HELD], outcomes)
    return result_of(Chosen((), 0), outcomes)


def read_back_items(instance: InstanceFacts, operation: QuarantineRestore | QuarantineErase) -> Steps[Result]:
    """Where the items of a restore or an erase are now. What came back to hold/ and was not held is not restored yet.

    A queue file is renamed, so no lock is needed to look.
    """
    held = {item.queue_id for item in operation.items if item.place == HELD}
    jobs = _jobs(instance, (item for item in operation.items if item.place != HELD))

    def is_back(item: Quarantined, entry: QueueEntry) -> bool:
        return item.state == "hold" or entry.state != "hold"

    look_in = partial(look, instance)
    steps = readback.read_back_items(QUEUE, instance, operation, jobs, look_in, is_back=is_back, kept_in_queue=held)
    return (yield from steps)


def _erase_held(instance: InstanceFacts, items: list[Quarantined], outcomes: Outcomes) -> Steps[None]:
    if not items:
        return
    now = yield from queued_of(QUEUE, instance, items)
    held = [name for name, entry in now.items() if entry.state == "hold"]
    said: frozenset[str] = frozenset()
    if held:
        said = parse_verdicts((yield from run(postsuper(instance, "-d", "hold", held))))
    outcomes.put((item.queue_id for item in items), MessageState.ALREADY_GONE)
    outcomes.put(now, MessageState.LEFT)
    outcomes.put(said, MessageState.DONE)


def _place(instance: InstanceFacts, job: str, queue_id: str) -> str:
    return f"{instance.queue_dirs[0]}/{DIRECTORY}/{job}/{queue_id}"


def _jobs(instance: InstanceFacts, items: Iterable[Quarantined]) -> list[tuple[str, list[str]]]:
    return by_job(instance, items, partial(_place, instance))


def _script(instance: InstanceFacts, action: str, job: str, queue_ids: Iterable[str]) -> Steps[frozenset[str]]:
    """Runs postfix_quarantine.sh. Returns the queue IDs that lie in the job's directory afterwards."""
    done = yield from run(
        Command(
            (action, instance.queue_dirs[0]),
            script=QUARANTINE,
            stdin=f"{job}\n".encode() + ids_input(queue_ids),
            become=True,
            mutates=action != "look",
            timeout=CHANGE_SECONDS,
            max_output=8 << 20,
        )
    )
    if done.exit_status == 75:
        raise Unsupported("hold/ is on another file system than the queue directory", hint="discover the host again")
    if done.exit_status:
        raise error_of(done, QUARANTINE)
    lines = done.stdout.decode("ascii", "replace").split("\n")
    if lines[-2:] != ["end", ""]:
        raise UnparsedOutput(f"{QUARANTINE} did not come to its end")
    return frozenset(lines[:-2])


def in_quarantine(instance: InstanceFacts) -> Steps[InQuarantine]:
    """All that lies below mxfleet-quarantine/. What is kept on hold instead bears no job's name."""
    shape = Shape(
        path=re.compile(f"{DIRECTORY}/{JOB}/(?P<id>[^/]+)"),
        place=lambda directory, job, queue_id: _place(instance, job, queue_id),
        queue_id_error=queue_id_error,
        is_queue=lambda directory: directory == instance.queue_dirs[0],
    )
    return (yield from find(instance, instance.queue_dirs[:1], shape))
