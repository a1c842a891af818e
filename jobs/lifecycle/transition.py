"""The one way in which a job changes its state: a conditional UPDATE whose row count says who won."""

from collections.abc import Sequence
from datetime import datetime
from typing import Any

from django.db import transaction
from django.db.models import F

from jobs import news
from jobs.actor import Actor
from jobs.audit import own_part, trail
from jobs.clock import db_now
from jobs.lifecycle import tally
from jobs.models import Job, JobEvent
from jobs.rows import BATCH
from jobs.rules.state import JobState, may_follow


def move(job: Job, new: JobState, actor: Actor | None = None, *, whose: str = "", **fields: Any) -> bool:
    """Move `job` on, in the caller's transaction, with audit and stream event. False: somebody else moved it first.

    `whose`: slug of the customer whose host the job's error names.
    """
    old = JobState(job.state)
    if not may_follow(old, new):
        return False
    now = db_now()
    if new in JobState.final():
        fields |= {"finished_at": now, "expires_at": None}
    won = Job.objects.filter(pk=job.pk, state=old, version=job.version).update(
        state=new, version=F("version") + 1, **fields
    )
    if not won:
        return False
    job.state, job.version = new, job.version + 1
    for name, value in fields.items():
        setattr(job, name, value)
    if new in JobState.final():
        tally.job_ended(job, new, now)
    publish_state(job, now)
    if job.is_changing or new != JobState.RUNNING:  # that a reading job was begun is no act of its own
        data = {"from": old, **({"error": job.error} if job.error else {})}
        record(job, f"job.{new}", actor, data, own_part.of_error(job, whose))
    return True


def publish_state(job: Job, now: datetime) -> None:
    """Put the job's state on its event stream."""
    publish(job, [JobEvent(job=job, kind="job", data={"id": str(job.pk), "state": job.state}, at=now)])


def publish(job: Job, events: Sequence[JobEvent]) -> None:
    """Put events on the job's stream; who waits for news of it learns of them once the transaction is committed.

    All that happens to a job is published by this, so nobody who waits has to look at anything else.
    """
    pk = job.pk
    JobEvent.objects.bulk_create(events, BATCH)
    transaction.on_commit(lambda: news.publish(pk), robust=True)


def record(
    job: Job, action: str, actor: Actor | None, data: dict[str, Any], parts: own_part.Parts | None = None
) -> None:
    """Write one audit event of the job into the chain of each of its customers, with that one's part of it."""
    by_chain = {slug: data | (parts or {}).get(slug, {}) for slug in chains_of(job)}
    trail.append(
        *(
            trail.Entry(customer=slug, action=action, actor=actor, object=job.operation, job=job.pk, data=own)
            for slug, own in by_chain.items()
        )
    )


def chains_of(job: Job) -> list[str]:
    """The audit chains that a job belongs to."""
    return sorted(customer.slug for customer in job.customers.all()) or [""]
