"""Which job may change a host now: one at a time, first come, first served, by a lease with a fence."""

from collections.abc import Sequence
from datetime import datetime

from django.db.models import BigIntegerField, F, Value
from django.db.models.functions import Greatest

from jobs import queues
from jobs.models import OPEN_RUNS, HostLease, Job, Run


def fence_at(now: datetime) -> int:
    """The least fence that may be given at `now`, the database's time: microseconds since the epoch.

    So fences grow, and one given after a restored backup is above all that were given before.
    """
    return int(now.timestamp() * 1_000_000)


def lease(job: Job, runs: Sequence[Run], now: datetime) -> dict[int, int]:
    """Host id -> fence of those hosts of `runs` that are the job's to change now."""
    ids = sorted({run.host_id for run in runs})
    HostLease.objects.bulk_create([HostLease(host_id=pk) for pk in ids], ignore_conflicts=True)
    least = Value(fence_at(now), output_field=BigIntegerField())
    HostLease.objects.filter(host__in=ids, job=None).update(job=job, fence=Greatest(F("fence") + 1, least))
    return dict(HostLease.objects.filter(host__in=ids, job=job).values_list("host_id", "fence"))


def release(job: Job) -> None:
    """Let go of the hosts on which the job has nothing open any more, and wake who waits for them."""
    busy = job.runs.filter(OPEN_RUNS).values("host_id")
    free = list(HostLease.objects.filter(job=job).exclude(host__in=busy).values_list("host_id", flat=True))
    if free:
        HostLease.objects.filter(job=job, host__in=free).update(job=None)
        queues.wake_for_waiting(free)


def is_touched(host: int, since: datetime) -> bool:
    """Whether a changing job has the host, or had it since then: what was seen meanwhile may be out of date."""
    if HostLease.objects.filter(host=host, job__isnull=False).exists():
        return True
    return Run.objects.filter(host=host, job__is_changing=True, finished_at__gte=since).exists()
