"""The host's quarantine: a message's files moved to mxfleet-quarantine/JOB/ in the queue directory, and back.

rename(2) keeps the inode, so the file in mess/ keeps its number busy: no new message can take its queue ID meanwhile.
"""

import re
from collections.abc import Iterable
from functools import partial

from fleet.mta.operations import Quarantined, QuarantineErase, QuarantineRestore
from fleet.mta.qmail.change_script import STOPS, Answer, change, put_verdicts, told, with_notes
from fleet.mta.qmail.commands import change_argv
from fleet.mta.qmail.driver import place
from fleet.mta.qmail.parse import queue_id_error
from fleet.mta.qmail.queue import QUEUE, proof
from fleet.mta.queue import readback
from fleet.mta.queue.in_quarantine import JOB, Shape, find
from fleet.mta.queue.outcome import Chosen, Outcomes, evidence, plan_of, result_of
from fleet.mta.queue.quarantine import as_chosen, by_job, queued_of, seen_again
from fleet.mta.records import Context, InQuarantine, InstanceFacts, MessageState, Result
from fleet.mta.steps import Steps


def look(instance: InstanceFacts, job: str, answers: list[Answer] | None = None) -> Steps[dict[str, str]]:
    """The places of what lies in the quarantine of this job, once what nobody lived to finish is put right.

    `answers`: gets what the script said. Raises Conflict while a change holds the job lock for too long.
    """
    answer = yield from change(instance, "look", job, ())
    if answers is not None:
        answers.append(answer)
    return {name: place(instance, job, name) for name in answer.are("there")}


def quarantine_restore(instance: InstanceFacts, operation: QuarantineRestore, context: Context) -> Steps[Result]:
    """`quarantine.restore`: back into the queue and due at once, or on hold when it was held.

    Undoing a purge attempts nothing: the message waits for its time as it did.
    """
    by_id = {item.queue_id: item for item in operation.items}
    before = yield from queued_of(QUEUE, instance, operation.items)
    actions = sorted({_restoring(item, context) for item in operation.items})
    yield plan_of(as_chosen(operation.items), context, [change_argv(instance, each) for each in actions], [STOPS])
    outcomes = Outcomes()
    answers = []
    for action in actions:
        for job, names in _jobs(instance, (item for item in operation.items if _restoring(item, context) == action)):
            answer = yield from change(instance, action, job, [by_id[name] for name in names])
            put_verdicts(answer, names, outcomes)
            answers.append(answer)
    now = yield from proof(instance, by_id)
    seen = seen_again(now, by_id)
    # What came back may be delivered before we look; what the script did not move and the queue has is there already.
    outcomes.put((name for name in seen if name not in outcomes.of(MessageState.DONE)), MessageState.DONE)
    asked = tuple(by_id)
    return _result(outcomes, answers, len(before), evidence(before, asked), evidence(now, asked))


def _restoring(item: Quarantined, context: Context) -> str:
    if item.state == "hold":
        return "restore-held"
    return "restore" if context.undo else "restore-try"


def quarantine_erase(instance: InstanceFacts, operation: QuarantineErase, context: Context) -> Steps[Result]:
    """`quarantine.erase`: the quarantined files are removed for good. qmail-send goes on meanwhile."""
    yield plan_of(as_chosen(operation.items), context, [change_argv(instance, "erase")])
    by_id = {item.queue_id: item for item in operation.items}
    outcomes = Outcomes()
    answers: list[Answer] = []
    for job, names in _jobs(instance, operation.items):
        outcomes.put(names, MessageState.ALREADY_GONE)
        there = yield from look(instance, job, answers)
        lying = [name for name in names if name in there]
        answer = yield from change(instance, "erase", job, [by_id[name] for name in lying])
        put_verdicts(answer, lying, outcomes)
        left = yield from look(instance, job)
        outcomes.put((name for name in names if name in left), MessageState.LEFT)
    return with_notes(result_of(Chosen((), 0), outcomes), answers)


def read_back_items(instance: InstanceFacts, operation: QuarantineRestore | QuarantineErase) -> Steps[Result]:
    """Where the items of a restore or an erase are now."""
    answers: list[Answer] = []
    jobs = _jobs(instance, operation.items)
    look_in = partial(look, instance, answers=answers)
    result = yield from readback.read_back_items(QUEUE, instance, operation, jobs, look_in)
    return with_notes(result, answers)


def _result(outcomes: Outcomes, answers: list[Answer], total: int, before: object, after: object) -> Result:
    result = result_of(Chosen((), total), outcomes, before=before, after=after)
    for answer in answers:
        answer.check_running()
        result = told(result, answer)
    return result


def _jobs(instance: InstanceFacts, items: Iterable[Quarantined]) -> list[tuple[str, list[str]]]:
    return by_job(instance, items, partial(place, instance))


def in_quarantine(instance: InstanceFacts) -> Steps[InQuarantine]:
    """All that lies below mxfleet-quarantine/; the file in mess/ is what makes a message."""
    shape = Shape(
        path=re.compile(f"mxfleet-quarantine/{JOB}/mess/(?P<id>[^/]+)"),
        place=lambda directory, job, queue_id: place(instance, job, queue_id),
        queue_id_error=queue_id_error,
        is_queue=lambda directory: directory == instance.queue_dirs[0],
    )
    return (yield from find(instance, instance.queue_dirs[:1], shape))
