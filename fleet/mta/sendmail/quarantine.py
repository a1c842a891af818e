"""The host's quarantine: queue file and data file moved into mxfleet-quarantine/JOB of their own queue directory.

Both moves are rename(2), so names, owners and bytes stay. Sendmail never looks into a sub-directory of a queue
directory other than qf, df and xf.
"""

import re
from collections.abc import Iterable, Mapping, Sequence
from fnmatch import fnmatchcase
from functools import partial
from itertools import groupby

from fleet.mta.errors import Conflict
from fleet.mta.host.commands import chunks
from fleet.mta.operations import Quarantined, QuarantineErase, QuarantineRestore
from fleet.mta.queue import readback
from fleet.mta.queue.in_quarantine import JOB, Shape, find
from fleet.mta.queue.outcome import SHOWN, Chosen, Outcomes, plan_of, result_of
from fleet.mta.queue.quarantine import as_chosen, queued_of, restored, seen_again
from fleet.mta.records import Context, InQuarantine, InstanceFacts, MessageState, Result
from fleet.mta.sendmail.commands import (
    CHANGE,
    LOT,
    RUN,
    RUN_LOT,
    RUN_SECONDS,
    change,
    change_argv,
    queues,
    run_argv,
    run_queue,
)
from fleet.mta.sendmail.parse import changed_lines, ids_input, messages_input, queue_id_error, verdicts
from fleet.mta.sendmail.queue import QUEUE, proof
from fleet.mta.steps import Steps, run

DIRECTORY = "mxfleet-quarantine"
MESSAGE = "qh"
"""The files that make a message."""
ALL_FILES = "qhd"
"""What an erase removes: data alone are what is left when it was cut off."""


def place_of(directory: str, job: str, queue_id: str) -> str:
    """Where a message of that queue directory lies."""
    return f"{directory}/{DIRECTORY}/{job}/{queue_id}"


def quarantined_in(lines: Sequence[str], files: str = MESSAGE) -> dict[str, str]:
    """Queue ID to queue directory, of the messages of which such a file lies in quarantine."""
    words = (line.split(" ") for line in lines)
    return {word[1]: word[2] for word in words if len(word) == 4 and word[0] == "in" and word[3] in files}


def bare_notes(said: Mapping[str, str]) -> tuple[str, ...]:
    """The sentence about messages that the script did not move since their data are nowhere."""
    bare = sorted(name for name, word in said.items() if word == "bare")
    if not bare:
        return ()
    shown = ", ".join(bare[:SHOWN])
    return (f"{len(bare)} messages have no data file (df) and stay where they are: {shown}",)


def look(instance: InstanceFacts, job: str, files: str = MESSAGE) -> Steps[dict[str, str]]:
    """The places of what lies in the quarantine of this job. Changes nothing."""
    found, _ = yield from _script(instance, "look", job, (), files)
    return {name: place_of(directory, job, name) for name, directory in found.items()}


def quarantine_restore(instance: InstanceFacts, operation: QuarantineRestore, context: Context) -> Steps[Result]:
    """`quarantine.restore`: back where they were, seen there, then attempted unless held before.

    Undoing a purge attempts nothing: the message waits for its time as it did.
    """
    before = yield from queued_of(QUEUE, instance, operation.items)
    by_id = {item.queue_id: item for item in operation.items}
    attempts = [] if context.undo else [run_argv(instance, "attempt")]
    yield plan_of(as_chosen(operation.items), context, [change_argv(instance, "back"), *attempts])
    still_there: set[str] = set()
    said: dict[str, str] = {}
    for job, queue_ids in _jobs(instance, operation.items):
        found, words = yield from _script(instance, "back", job, queue_ids)
        still_there.update(name for name in queue_ids if name in found)
        said |= words
    now = yield from proof(instance, by_id)
    seen = seen_again(now, by_id)
    if not context.undo:
        waiting = [entry for name, entry in seen.items() if by_id[name].state != "hold" and entry.state != "hold"]
        for lot in chunks([entry.queue_id for entry in waiting], RUN_LOT):
            stdin = messages_input(str(RUN_SECONDS), (seen[name] for name in lot))
            changed_lines((yield from run(run_queue(instance, "attempt", stdin))), RUN)
    return restored(by_id, before, now, still_there, bare_notes(said))


def quarantine_erase(instance: InstanceFacts, operation: QuarantineErase, context: Context) -> Steps[Result]:
    """`quarantine.erase`: the quarantined files are removed for good."""
    yield plan_of(as_chosen(operation.items), context, [change_argv(instance, "erase")])
    outcomes = Outcomes()
    for job, queue_ids in _jobs(instance, operation.items):
        before, _ = yield from _script(instance, "look", job, (), ALL_FILES)
        left, _ = yield from _script(instance, "erase", job, queue_ids, ALL_FILES)
        outcomes.put((name for name in queue_ids if name in before and name not in left), MessageState.DONE)
        outcomes.put((name for name in queue_ids if name not in before), MessageState.ALREADY_GONE)
        outcomes.put((name for name in queue_ids if name in left), MessageState.LEFT)
    return result_of(Chosen((), 0), outcomes)


def read_back_items(instance: InstanceFacts, operation: QuarantineRestore | QuarantineErase) -> Steps[Result]:
    """Where the items of a restore or an erase are now. A queue file is renamed, so no lock is needed to look."""
    jobs = _jobs(instance, operation.items)
    files = ALL_FILES if isinstance(operation, QuarantineErase) else MESSAGE
    look_in = partial(look, instance, files=files)
    return (yield from readback.read_back_items(QUEUE, instance, operation, jobs, look_in))


def _jobs(instance: InstanceFacts, items: Iterable[Quarantined]) -> list[tuple[str, list[str]]]:
    """The items by the job that put them there. Raises Conflict for a place that is none of this instance."""
    found = []
    for item in items:
        directory, _, rest = item.place.partition(f"/{DIRECTORY}/")
        job = rest.partition("/")[0]
        if not _is_queue(instance, directory) or item.place != place_of(directory, job, item.queue_id):
            raise Conflict(f"{item.place} is no quarantine of {instance.id}")
        found.append((job, item.queue_id))
    return [(job, [name for _, name in group]) for job, group in groupby(sorted(found), key=lambda pair: pair[0])]


def _is_queue(instance: InstanceFacts, directory: str) -> bool:
    patterns = [*instance.options["queue_patterns"], instance.options["client_queue"]]
    return any(fnmatchcase(directory, each) and directory.count("/") == each.count("/") for each in patterns)


def _script(
    instance: InstanceFacts, action: str, job: str, queue_ids: Sequence[str], files: str = MESSAGE
) -> Steps[tuple[dict[str, str], dict[str, str]]]:
    """Queue ID to queue directory of what lies in the job's quarantine afterwards, and the script's words."""
    found: dict[str, str] = {}
    said: dict[str, str] = {}
    for lot in list(chunks(queue_ids, LOT)) or [()]:
        lines = changed_lines((yield from run(change(instance, action, ids_input(job, lot)))), CHANGE)
        found = quarantined_in(lines, files)
        said |= verdicts(lines)
    return found, said


def in_quarantine(instance: InstanceFacts) -> Steps[InQuarantine]:
    """All that lies below mxfleet-quarantine/ of the queue directories; qf or hf is what makes a message."""
    shape = Shape(
        path=re.compile(f"{DIRECTORY}/{JOB}/[qh]f(?P<id>[^/]+)"),
        place=place_of,
        queue_id_error=queue_id_error,
        is_queue=lambda directory: _is_queue(instance, directory),
    )
    return (yield from find(instance, queues(instance), shape))
