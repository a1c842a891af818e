"""People decide: on the plan with that digest, once each, never the requester, nor who made the requester's token."""

from django.db import IntegrityError, transaction

from jobs.actor import Actor
from jobs.clock import db_now
from jobs.errors import Clash, Forbidden, Invalid
from jobs.lifecycle import transition
from jobs.lifecycle.end import stop
from jobs.lifecycle.planning import queue
from jobs.lifecycle.start import count_approvals, may_decide
from jobs.models import AccountKind, Approval, Decision, Job
from jobs.rules.state import JobState, RunState


def approve(actor: Actor, job: Job, digest: str, comment: str = "") -> Job:
    """Count one approval; the last that is needed queues the job. Raises Forbidden, Clash."""
    with transaction.atomic():
        job = _decided(actor, job, digest, Decision.APPROVED, comment)
        if count_approvals(job) >= job.approvals_needed:
            queue(job, job.runs.filter(state=RunState.PENDING).select_related("instance__host", "host"))
    return job


def reject(actor: Actor, job: Job, digest: str, comment: str) -> Job:
    """One rejection ends the job. Raises Forbidden, Clash; Invalid without a comment."""
    if not comment.strip():
        raise Invalid.field("comment", "required", "say why, so that the requester knows what to change")
    with transaction.atomic():
        job = _decided(actor, job, digest, Decision.REJECTED, comment)
        stop(job, JobState.REJECTED, actor)
    return job


def _decided(actor: Actor, job: Job, digest: str, decision: Decision, comment: str) -> Job:
    """Store the decision, with the job's row locked so that two of them are counted one after the other."""
    job = Job.objects.select_for_update(no_key=True).get(pk=job.pk)
    _may(actor, job)
    now = db_now()
    is_late = job.state == JobState.AWAITING_APPROVAL and job.expires_at is not None and job.expires_at <= now
    if job.state == JobState.EXPIRED or is_late:
        raise Clash("expired", "nobody decided in time; submit the job again")
    if Approval.objects.filter(job=job, person=actor.account, digest=digest).exists():
        raise Clash("already_decided", f"{actor.account.username} has decided on this plan already")
    if job.state != JobState.AWAITING_APPROVAL:
        raise Clash("not_awaiting_approval", f"the job is {job.state}")
    if digest != job.digest:
        raise Clash("plan_changed", f"the plan is {job.digest}; look at it before you decide")
    try:
        with transaction.atomic():
            Approval.objects.create(
                job=job,
                digest=digest,
                requested_by=job.requested_by,
                person=actor.account,
                decision=decision,
                comment=comment,
                at=now,
            )
    except IntegrityError as twice:
        raise Clash("already_decided", f"{actor.account.username} has decided on this plan already") from twice
    transition.record(job, f"approval.{decision}", actor, {"digest": digest, "comment": comment})
    return job


def _may(actor: Actor, job: Job) -> None:
    if actor.account.kind != AccountKind.PERSON:
        raise Forbidden("forbidden", "only a person decides, and this is an integration")
    if actor.account.pk == job.requested_by_id:
        raise Forbidden("self_approval", "the requester cannot decide on their own job")
    if actor.account.username in (job.minted_by or ()):
        raise Forbidden("self_approval", "this job was asked for with a token that you had a hand in")
    if actor.minted_by:
        raise Forbidden(
            "foreign_token", f"a decision needs a token of your own; {', '.join(actor.minted_by)} made this"
        )
    customers = [customer.pk for customer in job.customers.all()]
    if not actor.has_scope("jobs:approve") or not may_decide(actor, job, customers):
        raise Forbidden("forbidden", f"{actor.account.username} may not decide on jobs of these customers")
