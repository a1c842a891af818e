"""Stop a job: what has not begun is cancelled, what is in flight finishes."""

from django.db import transaction

from jobs.actor import Actor
from jobs.clock import db_now
from jobs.errors import Clash, Forbidden
from jobs.lifecycle import transition
from jobs.lifecycle.end import cancel_pending, finish_job, is_final
from jobs.models import OPEN_RUNS, Job
from jobs.rules.state import JobState


def cancel(actor: Actor, job: Job) -> dict[str, list[str]]:
    """Which runs were cancelled and which go on, as {"cancelled": [...], "in_flight": [...]} of run ids.

    Raises Forbidden for anybody but the requester or an admin, Clash when the job has ended.
    """
    customers = [customer.pk for customer in job.customers.all()]
    if actor.account.pk != job.requested_by_id and not actor.may("administer", customers):
        raise Forbidden("forbidden", "only the requester or an admin stops a job")
    if not actor.has_scope("jobs:request"):
        raise Forbidden("forbidden", "the token lacks the scope jobs:request")
    with transaction.atomic():
        job = Job.objects.select_for_update(no_key=True).get(pk=job.pk)
        if is_final(job):
            raise Clash("already_ended", f"the job is {job.state}")
        Job.objects.filter(pk=job.pk).update(cancel_asked_at=db_now())
        transition.record(job, "job.cancel_asked", actor, {"from": job.state})
        cancelled = cancel_pending(job)
        in_flight = list(job.runs.filter(OPEN_RUNS).values_list("pk", flat=True))
        if not in_flight:
            _end(job, actor)
    return {"cancelled": [str(run.pk) for run in cancelled], "in_flight": [str(pk) for pk in in_flight]}


def _end(job: Job, actor: Actor) -> None:
    """Nothing is in flight: the job ends now. One that had begun ends by what its runs had come to."""
    if job.state == JobState.RUNNING:
        finish_job(job)
    else:
        transition.move(job, JobState.CANCELLED, actor)
