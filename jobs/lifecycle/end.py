"""How runs end, and with the last of them the job."""

from collections.abc import Iterable
from datetime import datetime
from typing import Any

from django.db.models import Count, QuerySet

from fleet.mta import errors
from jobs import blocklist, queues
from jobs.actor import Actor
from jobs.clock import db_now
from jobs.lifecycle import hosts, transition
from jobs.models import OPEN_RUNS, Job, JobEvent, Run
from jobs.rules.state import JobState, RunState, job_end

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


def finish_job(job: Job) -> None:
    """End the job when nothing of it is open any more. In the caller's transaction."""
    if job.is_changing:
        hosts.release(job)
    if job.runs.filter(OPEN_RUNS).exists():
        return
    rows = job.runs.values_list("state").annotate(Count("pk")).order_by()
    transition.move(job, job_end({RunState(state): count for state, count in rows}))


def publish_runs(job: Job, runs: Iterable[Run], now: datetime) -> None:
    """Put the new states of runs, and how far the job is, on its event stream."""
    events = [
        JobEvent(
            job=job,
            kind="run",
            at=now,
            data={"id": str(run.pk), "instance": str(run.instance) if run.instance else None, "state": run.state},
        )
        for run in runs
    ]
    if not events:
        return
    counts = dict(job.runs.values_list("state").annotate(Count("pk")).order_by())
    transition.publish(job, [*events, JobEvent(job=job, kind="progress", at=now, data={"runs": counts})])


def stop(job: Job, state: JobState, actor: Actor | None = None, *, whose: str = "", **fields: Any) -> bool:
    """End a job none of whose runs has been begun: they are cancelled, and what it wanted is no longer wanted.

    `whose`: slug of the customer whose host the error names. False: somebody else moved it first.
    """
    if not transition.move(job, state, actor, whose=whose, **fields):
        return False
    cancel_pending(job)
    return True


def cancel_pending(job: Job, among: QuerySet[Run] | None = None) -> list[Run]:
    """Cancel what has not begun (of the job's runs `among`, of all of them otherwise). Returns the runs it stopped."""
    rows = job.runs.all() if among is None else among
    runs = list(rows.filter(state=RunState.PENDING).select_related("instance__host", "host"))
    now = db_now()
    job.runs.filter(pk__in=[run.pk for run in runs], state=RunState.PENDING).update(
        state=RunState.CANCELLED, finished_at=now
    )
    for run in runs:
        run.job, run.state = job, RunState.CANCELLED
    publish_runs(job, runs, now)
    if job.is_changing:
        hosts.release(job)
        queues.wake_for_waiting({run.host_id for run in runs})
        if job.ready_at is not None:
            blocklist.withdraw(job, runs, now)
    return runs


def is_final(job: Job) -> bool:
    """Whether the job has ended."""
    return job.state in JobState.final()
