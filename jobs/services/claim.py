"""A worker takes runs: a conditional UPDATE says who wins, and the intent is on record before any byte leaves."""

from collections.abc import Iterable
from datetime import datetime, timedelta

from django.conf import settings
from django.db import transaction
from django.db.models import F, QuerySet
from django.db.models.functions import Mod

from jobs import audit
from jobs.clock import db_now
from jobs.models import HostLease, Job, Run
from jobs.services import moves
from jobs.services.start import start
from jobs.state import JobState, RunState

BATCH = 500
LEASE = timedelta(seconds=30)
MAX_ATTEMPTS = 3


def claim(job: Job, queue: str) -> list[Run]:
    """Take up to BATCH pending runs of `job` that belong to the Celery queue. Empty: nothing to do here.

    A changing job that is past planning is started by this: digest and roles are checked again, each host is leased to
    it, and `dispatched_at` with its audit event is committed for every run that is returned.
    """
    with transaction.atomic():
        if job.state == JobState.QUEUED:
            start(job)
        if job.state == JobState.QUEUED:  # the worker of another shard has started it in this moment
            job.refresh_from_db(fields=["state", "version", "started_at", "expires_at"])
        if job.state not in (JobState.PLANNING, JobState.RUNNING):
            return []
        runs = list(pending(job, queue)[:BATCH])
        if applies(job):
            audit.lock_chains(moves.chains_of(job))
            runs = lease_hosts(job, runs)
        return _take(job, runs, db_now())


def applies(job: Job) -> bool:
    """Whether the job's runs change hosts now (a changing job that is past planning)."""
    return job.is_changing and job.state == JobState.RUNNING


def pending(job: Job, queue: str) -> QuerySet[Run]:
    """The job's runs that wait for a worker of this Celery queue (`ssh.SHARD` or `ssh.SITE.SHARD`)."""
    site, _, shard = queue.removeprefix("ssh.").rpartition(".")
    rows = Run.objects.annotate(shard=Mod(F("slot"), settings.ENV.shards)).filter(
        job=job, state=RunState.PENDING, site=site, shard=int(shard), is_planning=job.state == JobState.PLANNING
    )
    return with_hosts(rows).order_by("id")


def with_hosts(rows: QuerySet[Run]) -> QuerySet[Run]:
    """With all that is needed to reach the host, in one query."""
    return rows.select_related(
        "host__customer",
        "host__credential__customer",
        "host__jump_host__credential__customer",
        "instance__host",
    )


def lease_hosts(job: Job, runs: list[Run]) -> list[Run]:
    """The runs whose hosts are ours to change now; the others wait until the job that has the host lets go."""
    ids = sorted({run.host_id for run in runs})
    HostLease.objects.bulk_create([HostLease(host_id=pk) for pk in ids], ignore_conflicts=True)
    HostLease.objects.filter(host__in=ids, job=None).update(job=job, fence=F("fence") + 1)
    ours = set(HostLease.objects.filter(host__in=ids, job=job).values_list("host_id", flat=True))
    return [run for run in runs if run.host_id in ours]


def release_hosts(job: Job) -> None:
    """Let go of the hosts on which the job has nothing left that runs or is unknown."""
    busy = job.runs.filter(state__in=[RunState.RUNNING, RunState.UNKNOWN, RunState.PENDING]).values("host_id")
    HostLease.objects.filter(job=job).exclude(host__in=busy).update(job=None)


def _take(job: Job, runs: list[Run], now: datetime) -> list[Run]:
    changes = applies(job)
    fields = {"state": RunState.RUNNING, "attempts": F("attempts") + 1, "lease_until": now + LEASE, "started_at": now}
    if changes:
        fields["dispatched_at"] = now
    ids = [run.pk for run in runs if run.attempts < MAX_ATTEMPTS]
    won = Run.objects.filter(pk__in=ids, state=RunState.PENDING).update(**fields) if ids else 0
    if won != len(ids):
        return _lost_race()
    taken = [run for run in runs if run.attempts < MAX_ATTEMPTS]
    for run in taken:
        run.job, run.state, run.started_at, run.attempts = job, RunState.RUNNING, now, run.attempts + 1
        run.dispatched_at = now if changes else None
    if changes:
        audit.append(*(_intent(job, run) for run in taken))
    return taken


def _lost_race() -> list[Run]:
    """Somebody else took one of the same runs in this moment: give all back and let the next ring decide."""
    transaction.set_rollback(True)
    return []


def _intent(job: Job, run: Run) -> audit.Entry:
    return audit.Entry(
        customer=run.host.customer.slug,
        action="run.dispatched",
        actor=None,
        object=str(run.instance or run.host),
        job=job.pk,
        data={"run": str(run.pk), "operation": job.operation, "digest": job.digest, "attempt": run.attempts},
    )


def keep(runs: Iterable[Run]) -> None:
    """Move the leases of runs on; called by the worker's heartbeat while it has them."""
    ids = [run.pk for run in runs]
    Run.objects.filter(pk__in=ids, state=RunState.RUNNING).update(lease_until=db_now() + LEASE)
