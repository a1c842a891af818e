"""After a pause: what may have been sent is put down as unknown, and an administrator lets the service go on."""

from datetime import datetime
from typing import Any
from uuid import UUID

from django.db import transaction
from django.db.models import Exists, OuterRef, Q, QuerySet

from jobs.actor import Actor
from jobs.audit import trail
from jobs.clock import db_now
from jobs.errors import Clash, Forbidden, Invalid
from jobs.lifecycle import hosts, transition
from jobs.lifecycle.claim import LEASE
from jobs.lifecycle.end import publish_runs, stop
from jobs.models import Job, Pause, Run
from jobs.restore.pause import census, machine, unacknowledged, waiting
from jobs.rules.state import JobState, RunState

FORGOTTEN = {
    "code": "conflict",
    "detail": "the database was restored while this was being planned, and it may have been carried out since",
    "hint": "Look at the hosts, then submit it again.",
}
UNDECIDED = {
    "code": "conflict",
    "detail": "the database was restored while this awaited approval; it may have been approved and carried out since",
    "hint": "Look at the hosts, then submit it again.",
}


def doubt() -> int:
    """Begin nothing of what may have been carried out already, since the database has forgotten. How many runs.

    What was planned when the service was paused, and is approved by now, is put down as unknown, so that it is read
    back. A change that was being planned has no plan that could be: it would select anew and change what has come
    since, so it fails.
    """
    row = Pause.objects.first()
    if row is None:
        return 0
    _fail(_in_planning(row.since), FORGOTTEN)
    before = Q(job__frozen_at=None) | Q(job__frozen_at__lte=row.since)
    later = Q(job__start_after__gt=row.since)  # it cannot have been carried out before its time
    jobs = waiting(Run.objects.filter(before & ~later)).order_by().values_list("job", flat=True).distinct()
    return sum(_doubt(pk, db_now()) for pk in list(jobs))


def _fail(jobs: QuerySet[Job], error: dict[str, str]) -> None:
    for pk in list(jobs.values_list("pk", flat=True)):
        with transaction.atomic():
            for job in jobs.select_for_update(no_key=True).filter(pk=pk):
                stop(job, JobState.FAILED, error=error)


def _in_planning(since: datetime) -> QuerySet[Job]:
    """Changes of before the pause that are still being planned, by no worker now."""
    planned_now = Run.objects.filter(job=OuterRef("pk"), state=RunState.RUNNING)
    jobs = Job.objects.filter(state=JobState.PLANNING, dry_run=False, created_at__lte=since)
    return jobs.filter(~Exists(planned_now))


@transaction.atomic
def _doubt(pk: UUID, now: datetime) -> int:
    job = Job.objects.select_for_update(no_key=True).get(pk=pk)
    runs = list(waiting(job.runs.all()).select_related("instance__host", "host__customer"))
    trail.lock_chains(transition.chains_of(job))
    place: dict[str, Any] = {"ready_at": job.ready_at or now}
    if not runs or (
        job.state == JobState.QUEUED
        and not transition.move(job, JobState.RUNNING, started_at=now, expires_at=None, **place)
    ):
        return 0
    hosts.lease(job, runs, now)
    # A worker that has them all the same, as under a database that was exchanged, begins no command once it has missed
    # the renewal of its lease.
    job.runs.filter(pk__in=[run.pk for run in runs]).update(
        state=RunState.UNKNOWN, dispatched_at=now, unknown_at=now + LEASE, reconcile_at=now
    )
    for run in runs:
        run.state = RunState.UNKNOWN
    publish_runs(job, runs, now)
    trail.append(
        *(
            trail.Entry(
                customer=run.host.customer.slug,
                action="run.doubted",
                actor=None,
                object=str(run.instance or run.host),
                job=job.pk,
                data={"run": str(run.pk), "operation": job.operation},
            )
            for run in runs
        )
    )
    return len(runs)


def end(actor: Actor | None, reason: str, by: str = "") -> dict[str, Any]:
    """Let the service go on. Returns what there is now.

    `by`: who did it, where no account stands for him. Raises Forbidden, Invalid without a reason, Clash `not_paused`
    or `gap_not_acknowledged`.
    """
    if actor is not None and not actor.may_everywhere("administer"):
        raise Forbidden("forbidden", "only who administers everything lets the service go on")
    if not reason.strip():
        raise Invalid.field("reason", "required", "say why the service may go on")
    if lost := unacknowledged():
        raise Clash("gap_not_acknowledged", f"acknowledge the gap first: {'; '.join(map(str, lost))}")
    row = Pause.objects.first()
    if row is None:
        raise _not_paused()
    _fail(Job.objects.filter(state=JobState.AWAITING_APPROVAL, created_at__lte=row.since), UNDECIDED)
    doubt()
    with transaction.atomic():
        row = Pause.objects.select_for_update().first()
        if row is None:
            raise _not_paused()
        found = census()
        data = {"reason": reason, "by": by, "since": row.since, "found": found}
        trail.append(trail.Entry("", "service.resumed", actor, object=machine(), data=data))
        row.delete()
    return found


def _not_paused() -> Clash:
    return Clash("not_paused", "the service is not paused")
