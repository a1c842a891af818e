"""Jobs that follow another one: undo puts back what it changed, retry does what it could not."""

from collections.abc import Sequence

from django.db import transaction

from fleet.mta.params.parse import ParamErrors, parse_params
from jobs import blocklist
from jobs.actor import Actor
from jobs.clock import db_now
from jobs.errors import Clash, Forbidden, Invalid
from jobs.lifecycle.end import is_final
from jobs.lifecycle.submit import check_confirm, run_for, write
from jobs.models import Job, QuarantineItem, QuarantineState, Run
from jobs.operation import UNDO, grant_for
from jobs.rules.state import JobState, RunState

WHY_NOT = {
    "message.deliver": "a delivery cannot be called back",
    "queue.flush": "attempts cannot be called back",
    "queue.bounce": "the senders have their notices",
    "queue.requeue": "requeued messages have new queue IDs and may have gone on",
    "quarantine.erase": "what was erased is gone",
    "quarantine.restore": "restored messages may have been delivered; purge them again instead",
}


def undo(actor: Actor, job: Job, reason: str, *, confirm: bool = False) -> Job:
    """A new job that puts back what `job` changed, to the state it had. Raises Clash not_undoable with the reason.

    `confirm`: its plan is to be confirmed by who asks before anything goes on.
    """
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
            group=job.group,
            confirm=confirm,
            is_changing=True,
            undo_of=job,
        )
        fresh = [run_for(run.instance.host, run.instance) for run in runs if run.instance]
        return write(actor, follow, fresh, {run.host.customer_id for run in fresh})


def _to_undo(job: Job) -> list[Run]:
    """The runs that changed something. Raises Clash when there is none, or none can be put back."""
    if job.operation not in UNDO:
        raise Clash("not_undoable", WHY_NOT.get(job.operation, f"{job.operation} changes nothing"))
    if job.dry_run:
        raise Clash("not_undoable", "a dry run changes nothing")
    if not is_final(job):
        raise Clash("not_undoable", f"the job is {job.state}: wait for its end, or cancel it")
    if job.undos.exclude(state__in=NOTHING_DONE).exists():
        raise Clash("not_undoable", "the job was undone already")
    rows = job.runs.select_related("instance__host__customer", "host__customer")
    if job.operation == "queue.purge":
        kept = QuarantineItem.objects.filter(job=job, state=QuarantineState.KEPT).values("instance")
        runs = list(rows.filter(instance__in=kept))
        reason = "nothing of it is in quarantine: deleted for good, restored or expired"
    elif job.operation in ("queue.hold", "queue.release"):
        runs = list(rows.filter(messages__outcome="done").distinct())
        reason = "it changed no message, or it is old and its messages are on record no longer"
    else:
        runs = list(rows.filter(state=RunState.SUCCEEDED))
        reason = "it changed no instance"
        if job.operation == "sender.block":
            reason += "; what it wants is ended by sender.unblock"
    if not runs:
        raise Clash("not_undoable", reason)
    why_not = blocklist.why_not_undo(job) if job.operation in ("sender.block", "sender.unblock") else None
    why_not = why_not or disabled(runs)
    if why_not:
        raise Clash("not_undoable", why_not)
    return runs


def disabled(runs: Sequence[Run]) -> str | None:
    """Which host is switched off: what a new job may not name, one that follows another may not touch either."""
    for run in runs:
        if not (run.host.enabled and run.host.customer.enabled and (run.instance is None or run.instance.enabled)):
            return f"{run.instance or run.host} is disabled"
    return None


NOTHING_DONE = [JobState.FAILED, JobState.REJECTED, JobState.EXPIRED, JobState.CANCELLED]


def retry(actor: Actor, job: Job, *, confirm: bool = False) -> Job:
    """A new job on the runs of `job` that failed, were unreachable or cancelled. Raises Clash when there are none."""
    _may(actor, job)
    check_confirm(job.operation, confirm=confirm, changes=job.is_changing, dry_run=job.dry_run)
    if job.drift_of_id is not None:
        raise Clash("not_retryable", "look again with the drift/ of the job whose plan it compared")
    again = [RunState.FAILED, RunState.UNREACHABLE, RunState.UNKNOWN, RunState.CANCELLED]
    with transaction.atomic():
        job = Job.objects.select_for_update(no_key=True).get(pk=job.pk)
        if not is_final(job) or job.state == JobState.REJECTED:
            raise Clash("not_retryable", f"the job is {job.state}")
        runs = list(job.runs.filter(state__in=again).select_related("instance__host__customer", "host__customer"))
        why_not = "no run of it failed" if not runs else disabled(runs) or _out_of_date(job)
        if why_not:
            raise Clash("not_retryable", why_not)
        follow = Job(
            operation=job.operation,
            target=job.target,
            params=job.params,
            reason=job.reason,
            ticket=job.ticket,
            group=job.group,
            dry_run=job.dry_run,
            confirm=confirm,
            approval_ttl=job.approval_ttl,
            is_changing=job.is_changing,
            undo_of=job.undo_of,
            retry_of=job,
        )
        fresh = [run_for(run.host, run.instance) for run in runs]
        return write(actor, follow, fresh, [customer.pk for customer in job.customers.all()])  # its target names them


def _out_of_date(job: Job) -> str | None:
    """Why the request of then cannot be made now: a time that has passed, an undo that another one has done."""
    if job.undo_of is not None:
        others = job.undo_of.undos.exclude(pk=job.pk).exclude(state__in=NOTHING_DONE)
        if others.exists():
            return "what it undoes was undone by another job"
        is_old = job.undo_of.totals is not None and job.operation in ("queue.hold", "queue.release")
        return "the messages of what it undoes are on record no longer" if is_old else None
    try:
        parse_params(job.operation, job.params, now=db_now())
    except ParamErrors as wrong:
        return f"its params are no longer right: {wrong.errors[0].detail}"
    return None


def _may(actor: Actor, job: Job) -> None:
    grant = grant_for(job.operation, changes=job.is_changing)
    if not actor.has_scope("jobs:request") or not actor.may(grant, [c.pk for c in job.customers.all()]):
        raise Forbidden("forbidden", f"{actor.account.username} may not request {job.operation} for these customers")
