"""People decide: on the plan with that digest, once each, never the requester, nor who made the requester's token.

Where the requester wanted to see the plan first, he confirms it before anybody is asked, and nothing goes on before.
"""

from datetime import datetime

from django.db import IntegrityError, transaction

from jobs.actor import Actor
from jobs.clock import db_now
from jobs.errors import Clash, Forbidden, Invalid
from jobs.lifecycle import transition
from jobs.lifecycle.end import stop
from jobs.lifecycle.frozen import why_changed
from jobs.lifecycle.planning import queue
from jobs.lifecycle.start import count_approvals, may_decide
from jobs.models import AccountKind, Approval, Decision, FrozenPlan, Job
from jobs.rules.state import JobState, RunState


def approve(actor: Actor, job: Job, digest: str, comment: str = "") -> Job:
    """Count one approval; the last that is needed queues the job. Raises Forbidden, Clash."""
    with transaction.atomic():
        job = _decided(actor, job, digest, Decision.APPROVED, comment)
        _check_stored(job)
        if count_approvals(job) >= job.approvals_needed:
            _queue(job)
    return job


def reject(actor: Actor, job: Job, digest: str, comment: str) -> Job:
    """One rejection ends the job. Raises Forbidden, Clash; Invalid without a comment."""
    if not comment.strip():
        raise Invalid.field("comment", "required", "say why, so that the requester knows what to change")
    with transaction.atomic():
        job = _decided(actor, job, digest, Decision.REJECTED, comment)
        stop(job, JobState.REJECTED, actor)
    return job


def confirm(actor: Actor, job: Job, digest: str) -> Job:
    """Its requester stands by the plan: from now on it goes its way, to who has to agree or into the line.

    The clock goes on. Raises Forbidden, Clash.
    """
    with transaction.atomic():
        job = Job.objects.select_for_update(no_key=True).get(pk=job.pk)
        _may_confirm(actor, job)
        now = _in_time(job)
        if job.state != JobState.AWAITING_APPROVAL or job.is_confirmed:
            raise Clash("not_awaiting_confirmation", f"the job is {job.state}, and awaits no confirmation")
        _check_digest(job, digest)
        _check_stored(job)
        # Who had a hand in this token has one in the request, and decides on it no more than who asked.
        job.minted_by = sorted({*(job.minted_by or ()), *actor.minted_by}) or None
        job.confirmed_at = now
        job.save(update_fields=["confirmed_at", "minted_by"])
        transition.record(job, "job.confirmed", actor, {"digest": digest})
        if job.approvals_needed:
            transition.publish_state(job, now)
        else:
            _queue(job)
    return job


def _may_confirm(actor: Actor, job: Job) -> None:
    if actor.account.pk != job.requested_by_id:
        raise Forbidden("forbidden", "only who requested the job confirms it")
    if not actor.has_scope("jobs:request") or not actor.may("request_any", [c.pk for c in job.customers.all()]):
        raise Forbidden("forbidden", f"{actor.account.username} may not request {job.operation} for these customers")


def _queue(job: Job) -> None:
    queue(job, job.runs.filter(state=RunState.PENDING).select_related("instance__host", "host"))


def _in_time(job: Job) -> datetime:
    """Now. Raises Clash when nobody acted in time."""
    now = db_now()
    is_late = job.state == JobState.AWAITING_APPROVAL and job.expires_at is not None and job.expires_at <= now
    if job.state == JobState.EXPIRED or is_late:
        raise Clash("expired", "nobody decided in time; submit the job again")
    return now


def _check_digest(job: Job, digest: str) -> None:
    if digest != job.digest:
        raise Clash("plan_changed", f"the plan is {job.digest}; look at it before you decide")


def _check_stored(job: Job) -> None:
    """Raises Clash when what would be carried out is not what the digest hashes.

    Plans of older versions, which have no document, are looked at when they begin, as then.
    """
    if FrozenPlan.objects.filter(job=job).exists() and (changed := why_changed(job)):
        raise Clash("conflict", f"{changed}; submit the job again")


def _decided(actor: Actor, job: Job, digest: str, decision: Decision, comment: str) -> Job:
    """Store the decision, with the job's row locked so that two of them are counted one after the other."""
    job = Job.objects.select_for_update(no_key=True).get(pk=job.pk)
    _may(actor, job)
    now = _in_time(job)
    if Approval.objects.filter(job=job, person=actor.account, digest=digest).exists():
        raise Clash("already_decided", f"{actor.account.username} has decided on this plan already")
    if job.state != JobState.AWAITING_APPROVAL:
        raise Clash("not_awaiting_approval", f"the job is {job.state}")
    if not job.is_confirmed:
        raise Clash("not_confirmed", f"{job.requested_by} has not confirmed the plan yet")
    _check_digest(job, digest)
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
