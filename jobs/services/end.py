"""How runs end, and with the last of them the job."""

from collections.abc import Iterable
from datetime import datetime

from django.db.models import Count, Q

from fleet.mta import errors
from jobs.clock import db_now
from jobs.models import Job, JobEvent, Run
from jobs.services import moves
from jobs.services.claim import release_hosts
from jobs.state import JobState, RunState, job_end

UNPROVEN = (
    errors.NothingSent,
    errors.ConnectionLost,
    errors.RemoteTimeout,
    errors.OutputTooLarge,
    errors.UnparsedOutput,
    errors.RemoteError,
)
"""Errors that say nothing about what a changing command, sent before, has done."""


def is_unreached(error: errors.FleetError | None) -> bool:
    """Whether nothing was sent because of the host. A lost lease is no word about it."""
    return isinstance(error, errors.NothingSent) and not isinstance(error, errors.LeaseLost)


def state_for(error: errors.FleetError, *, mutated: bool) -> RunState:
    """The state of a run that ended with an error; `mutated`: a changing command had begun to be sent."""
    if isinstance(error, errors.OutcomeUnknown) or (mutated and isinstance(error, UNPROVEN)):
        return RunState.UNKNOWN
    if is_unreached(error):
        return RunState.UNREACHABLE
    if isinstance(error, errors.Unsupported):
        return RunState.UNSUPPORTED
    return RunState.FAILED


OPEN = Q(state__in=[RunState.PENDING, RunState.RUNNING]) | Q(state=RunState.UNKNOWN, reconcile_at__isnull=False)
"""Runs that a job still waits for."""


def finish_job(job: Job) -> None:
    """End the job when nothing of it is open any more. In the caller's transaction."""
    if job.is_changing:
        release_hosts(job)
    rows = job.runs.values_list("state").annotate(Count("pk")).order_by()
    counts = {RunState(state): count for state, count in rows}
    if RunState.PENDING in counts or RunState.RUNNING in counts:
        return
    if RunState.UNKNOWN in counts and job.runs.filter(OPEN).exists():
        return
    moves.move(job, job_end(counts))


def tell_runs(job: Job, runs: Iterable[Run], now: datetime) -> None:
    """Put the new states of runs, and how far the job is, on its event stream."""
    told = [
        JobEvent(
            job=job,
            kind="run",
            at=now,
            data={"id": str(run.pk), "instance": str(run.instance) if run.instance else None, "state": run.state},
        )
        for run in runs
    ]
    if not told:
        return
    counts = dict(job.runs.values_list("state").annotate(Count("pk")).order_by())
    JobEvent.objects.bulk_create([*told, JobEvent(job=job, kind="progress", at=now, data={"runs": counts})])


def cancel_pending(job: Job) -> list[Run]:
    """Cancel what has not begun. Returns the runs that it stopped."""
    runs = list(job.runs.filter(state=RunState.PENDING).select_related("instance__host", "host"))
    now = db_now()
    job.runs.filter(pk__in=[run.pk for run in runs], state=RunState.PENDING).update(
        state=RunState.CANCELLED, finished_at=now
    )
    for run in runs:
        run.state = RunState.CANCELLED
    tell_runs(job, runs, now)
    return runs


def is_final(job: Job) -> bool:
    """Whether the job has ended."""
    return job.state in JobState.final()
