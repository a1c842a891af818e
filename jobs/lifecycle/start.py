"""An approved job begins: the plan is still the one that was approved, and the people still may."""

from typing import Any

from django.db.models import Q

from jobs import blocklist
from jobs.actor import Actor
from jobs.clock import db_now
from jobs.lifecycle import transition
from jobs.lifecycle.end import stop
from jobs.lifecycle.frozen import why_changed
from jobs.models import Approval, Decision, Job
from jobs.operation import grant_for
from jobs.rules.state import JobState, RunState

DISABLED = Q(host__enabled=False) | Q(host__customer__enabled=False) | Q(instance__enabled=False)


def start(job: Job) -> None:
    """Move a queued job to running, or to failed with the reason. In the caller's transaction.

    What only reads, and begins as soon as a worker is free, is not looked at again.
    """
    why_not = _why_not(job) if job.is_changing or job.start_after is not None else None
    if why_not is None:
        now = db_now()
        # One that had to wait for its time, or that an earlier version queued: what it wants is booked at this moment.
        place: dict[str, Any] = {"ready_at": now} if job.is_changing and job.ready_at is None else {}
        if transition.move(job, JobState.RUNNING, started_at=now, expires_at=None, **place) and place:
            blocklist.want(job, now)
    else:
        error, whose = why_not
        stop(job, JobState.FAILED, whose=whose, error=error)


def _why_not(job: Job) -> tuple[dict[str, str], str] | None:
    """The error, and the customer whose host it names."""
    if job.is_changing and (changed := why_changed(job)):
        return _error("conflict", changed, "submit the job again")
    if not job.is_confirmed:
        return _error("conflict", "its requester has not confirmed the plan", "submit the job again")
    off = job.runs.filter(DISABLED, state=RunState.PENDING).select_related("host__customer").first()
    if off is not None:
        whose = off.host.customer.slug
        return _error("conflict", f"{off.host} was disabled meanwhile", "submit the job again without it", whose)
    customers = [customer.pk for customer in job.customers.all()]
    grant = grant_for(job.operation, changes=job.is_changing)
    if job.channel != "schedule" and not _may(Actor(job.requested_by), grant, customers):
        return _error("conflict", f"{job.requested_by} may no longer request this", "ask somebody who may")
    approvals = job.approvals.filter(decision=Decision.APPROVED, digest=job.digest).select_related("person")
    valid = [approval for approval in approvals if may_decide(Actor(approval.person), job, customers)]
    if len(valid) < job.approvals_needed:
        return _error("conflict", "too few of those who approved may still decide", "submit the job again")
    return None


def may_decide(actor: Actor, job: Job, customers: list[int]) -> bool:
    """Whether the roles allow a decision on it: any that decides, and the one that the rule names."""
    return _may(actor, "decide", customers) and actor.holds(job.approval_role, customers)


def _may(actor: Actor, grant: str, customers: list[int]) -> bool:
    return actor.account.is_active and actor.may(grant, customers)


def _error(code: str, detail: str, hint: str, whose: str = "") -> tuple[dict[str, str], str]:
    return {"code": code, "detail": detail, "hint": hint}, whose


def count_approvals(job: Job) -> int:
    """How many people have approved this plan."""
    return Approval.objects.filter(job=job, digest=job.digest, decision=Decision.APPROVED).count()
