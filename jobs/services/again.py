"""Jobs that follow another one: undo puts back what it changed, retry does what it could not."""

from django.db import transaction

from jobs.actor import Actor
from jobs.asked import UNDO
from jobs.errors import Clash, Forbidden, Invalid
from jobs.models import Job, QuarantineItem, QuarantineState, Run
from jobs.services.end import is_final
from jobs.services.submit import run_for, write
from jobs.state import JobState, RunState

WHY_NOT = {
    "message.deliver": "a delivery cannot be called back",
    "queue.flush": "attempts cannot be called back",
    "queue.bounce": "the senders have their notices",
    "queue.requeue": "requeued messages have new queue IDs and may have gone on",
    "quarantine.erase": "what was erased is gone",
    "quarantine.restore": "restored messages may have been delivered; purge them again instead",
}


def undo(actor: Actor, job: Job, reason: str) -> Job:
    """A new job that puts back what `job` changed, to the state it had. Raises Clash not_undoable with the reason."""
    _may(actor, job)
    if not reason.strip():
        raise Invalid.field("reason", "required", "a changing operation needs a reason")
    with transaction.atomic():
        job = Job.objects.select_for_update(no_key=True).get(pk=job.pk)
        runs = _to_undo(job)
        follow = Job(
            operation=UNDO[job.operation],
            target={"instances": [str(run.instance) for run in runs]},
            params={},
            reason=reason,
            ticket=job.ticket,
            is_changing=True,
            undo_of=job,
        )
        fresh = [run_for(run.instance.host, run.instance) for run in runs if run.instance]
        return write(actor, follow, fresh, {run.host.customer_id for run in fresh})


def _to_undo(job: Job) -> list[Run]:
    """The runs that changed something. Raises Clash when there is none, or none can be put back."""
    if job.operation not in UNDO:
        raise Clash("not_undoable", WHY_NOT.get(job.operation, f"{job.operation} changes nothing"))
    if not is_final(job):
        raise Clash("not_undoable", f"the job is {job.state}: wait for its end, or cancel it")
    if job.undos.exclude(state__in=NOTHING_DONE).exists():
        raise Clash("not_undoable", "the job was undone already")
    rows = job.runs.select_related("instance__host__customer", "host")
    if job.operation == "queue.purge":
        kept = QuarantineItem.objects.filter(job=job, state=QuarantineState.KEPT).values("instance")
        runs = list(rows.filter(instance__in=kept))
        reason = "nothing of it is in quarantine: deleted for good, restored or expired"
    elif job.operation in ("queue.hold", "queue.release"):
        runs = list(rows.filter(messages__outcome="done").distinct())
        reason = "it changed no message"
    else:
        runs = list(rows.filter(state=RunState.SUCCEEDED))
        reason = "it changed no instance"
    if not runs:
        raise Clash("not_undoable", reason)
    return runs


NOTHING_DONE = [JobState.FAILED, JobState.REJECTED, JobState.EXPIRED, JobState.CANCELLED]


def retry(actor: Actor, job: Job) -> Job:
    """A new job on the runs of `job` that failed, were unreachable or cancelled. Raises Clash when there are none."""
    _may(actor, job)
    again = [RunState.FAILED, RunState.UNREACHABLE, RunState.UNKNOWN, RunState.CANCELLED]
    with transaction.atomic():
        job = Job.objects.select_for_update(no_key=True).get(pk=job.pk)
        if not is_final(job) or job.state == JobState.REJECTED:
            raise Clash("not_retryable", f"the job is {job.state}")
        runs = list(job.runs.filter(state__in=again).select_related("instance__host__customer", "host__customer"))
        if not runs:
            raise Clash("not_retryable", "no run of it failed")
        follow = Job(
            operation=job.operation,
            target=job.target,
            params=job.params,
            reason=job.reason,
            ticket=job.ticket,
            is_changing=job.is_changing,
            undo_of=job.undo_of,
            retry_of=job,
        )
        fresh = [run_for(run.host, run.instance) for run in runs]
        return write(actor, follow, fresh, {run.host.customer_id for run in fresh})


def _may(actor: Actor, job: Job) -> None:
    grant = "request_any" if job.is_changing or job.operation == "message.show" else "request_reading"
    if not actor.has_scope("jobs:request") or not actor.may(grant, [c.pk for c in job.customers.all()]):
        raise Forbidden("forbidden", f"{actor.account.username} may not request {job.operation} for these customers")
