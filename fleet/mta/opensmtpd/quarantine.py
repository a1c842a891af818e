"""The host's quarantine: message and envelopes taken out of the spool and put back under the same ID, byte for byte.

`smtpctl discover` makes smtpd take up what lies in its queue, so nothing is sent through SMTP again: no new ID, no
further Received line, and a blocked sender does not stand in the way of his own mail.
"""

import re
from collections.abc import Iterable
from dataclasses import dataclass
from functools import partial

from fleet.mta.errors import Conflict, FleetError, OutcomeUnknown, UnparsedOutput, Unsupported
from fleet.mta.host.commands import chunks, script_argv
from fleet.mta.opensmtpd.commands import BACK_LOT, LOT, QUARANTINE, UNTOUCHED, move, places
from fleet.mta.opensmtpd.parse import error_of, queue_id_error
from fleet.mta.opensmtpd.queue import QUEUE
from fleet.mta.operations import Quarantined, QuarantineErase, QuarantineRestore
from fleet.mta.queue import readback
from fleet.mta.queue.in_quarantine import JOB, Shape, find
from fleet.mta.queue.outcome import Chosen, Outcomes, plan_of, result_of
from fleet.mta.queue.quarantine import as_chosen, by_job, queued_of, restored
from fleet.mta.records import Context, InQuarantine, InstanceFacts, MessageState, QueueEntry, Result
from fleet.mta.steps import Completed, Steps, run

DIRECTORY = "mxfleet-quarantine"
AGE = "a restored message keeps its age: one that is older than the queue's ttl is returned to its sender at once"


@dataclass(frozen=True, slots=True)
class Moved:
    """What opensmtpd_quarantine.sh told. `there`: lies in the quarantine and not in the queue; `gone`: removed now."""

    there: frozenset[str]
    busy: frozenset[str]
    gone: frozenset[str]


def script(instance: InstanceFacts, action: str, job: str, lines: Iterable[str]) -> Steps[Moved]:
    """Runs opensmtpd_quarantine.sh for each lot.

    Raises Conflict, Unsupported, MtaNotRunning and others when nothing was changed, else OutcomeUnknown.
    """
    is_change = action != "look"
    has_changed = False
    there: set[str] = set()
    busy: set[str] = set()
    gone: set[str] = set()
    for lot in list(chunks(lines, BACK_LOT if action == "back" else LOT)) or [()]:
        done = yield from run(move(instance, action, job, lot))
        said = done.stdout.decode("ascii", "replace").split("\n")
        if done.exit_status or said[-2:] != ["end", ""]:
            error = _failure(done)
            if has_changed or (is_change and done.exit_status not in UNTOUCHED):
                raise OutcomeUnknown(f"it broke off: {error.detail}", cause=error.code) from error
            raise error
        has_changed = is_change
        there = {line for line in said[:-2] if " " not in line}  # each answer tells of the whole directory
        for line in said[:-2]:
            word, _, name = line.partition(" ")
            if name and word in ("busy", "gone"):
                (busy if word == "busy" else gone).add(name)
    return Moved(frozenset(there), frozenset(busy), frozenset(gone))


def _failure(done: Completed) -> FleetError:
    said = done.stderr.decode("utf-8", "backslashreplace").strip()
    if done.exit_status == 75:
        return Unsupported(f"the queue cannot be moved: {said}")
    if done.exit_status == 76:
        return Conflict(f"nothing was changed: {said}", hint="try again")
    if done.exit_status:
        return error_of(done, QUARANTINE)
    return UnparsedOutput(f"{QUARANTINE} did not come to its end")


def look(instance: InstanceFacts, job: str) -> Steps[dict[str, str]]:
    """The places of what lies in the quarantine of this job, once what a dead run left half done is settled."""
    found = yield from script(instance, "look", job, ())
    return {name: place(instance, job, name) for name in found.there}


def quarantine_restore(instance: InstanceFacts, operation: QuarantineRestore, context: Context) -> Steps[Result]:
    """`quarantine.restore`: back into the queue, seen there, and attempted unless it was held before.

    Undoing a purge attempts nothing: the message waits for its time as it did. Paused envelopes come back paused.
    """
    before = yield from queued_of(QUEUE, instance, operation.items)
    by_id = {item.queue_id: item for item in operation.items}
    yield plan_of(as_chosen(operation.items), context, [script_argv(QUARANTINE, *places(instance), "back")], [AGE])
    mode = "wait" if context.undo else "schedule"
    still_there: set[str] = set()
    for job, names in _jobs(instance, operation.items):
        moved = yield from script(instance, "back", job, (f"{name} {mode}" for name in names))
        still_there.update(name for name in names if name in moved.there)
    now = yield from QUEUE.proof(instance, by_id)
    return restored(by_id, before, now, still_there)


def quarantine_erase(instance: InstanceFacts, operation: QuarantineErase, context: Context) -> Steps[Result]:
    """`quarantine.erase`: the quarantined files are removed for good."""
    yield plan_of(as_chosen(operation.items), context, [script_argv(QUARANTINE, *places(instance), "erase")])
    outcomes = Outcomes()
    for job, names in _jobs(instance, operation.items):
        before = yield from script(instance, "look", job, ())
        left = yield from script(instance, "erase", job, (f"{name} -" for name in names))
        outcomes.put((n for n in names if n in before.there and n not in left.there), MessageState.DONE)
        outcomes.put((n for n in names if n not in before.there), MessageState.ALREADY_GONE)
        outcomes.put((n for n in names if n in left.there), MessageState.LEFT)
    return result_of(Chosen((), 0), outcomes)


def read_back_items(instance: InstanceFacts, operation: QuarantineRestore | QuarantineErase) -> Steps[Result]:
    """Where the items of a restore or an erase are now. What was paused is restored once it is paused again."""
    jobs = _jobs(instance, operation.items)

    def is_back(item: Quarantined, entry: QueueEntry) -> bool:
        return item.state != "hold" or entry.state == "hold"

    look_in = partial(look, instance)
    return (yield from readback.read_back_items(QUEUE, instance, operation, jobs, look_in, is_back=is_back))


def place(instance: InstanceFacts, job: str, queue_id: str) -> str:
    return f"{instance.queue_dirs[0]}/{DIRECTORY}/{job}/{queue_id}"


def _jobs(instance: InstanceFacts, items: Iterable[Quarantined]) -> list[tuple[str, list[str]]]:
    return by_job(instance, items, partial(place, instance))


def in_quarantine(instance: InstanceFacts) -> Steps[InQuarantine]:
    """All that lies below mxfleet-quarantine/, also what a dead run left half done: only `look` tells that apart."""
    shape = Shape(
        path=re.compile(f"{DIRECTORY}/{JOB}/(?P<id>[^/]+)/message"),
        place=lambda directory, job, queue_id: place(instance, job, queue_id),
        queue_id_error=queue_id_error,
        is_queue=lambda directory: directory == instance.queue_dirs[0],
    )
    return (yield from find(instance, instance.queue_dirs[:1], shape))
