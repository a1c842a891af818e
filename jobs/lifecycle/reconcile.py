"""Runs whose outcome is unknown: read back at 0, 30, 130 and 600 s, and never repeat blindly."""

from datetime import datetime, timedelta

from django.db import transaction
from django.db.models import QuerySet

from fleet.mta.host.commands import CHANGE_SECONDS
from fleet.mta.records import Ended, MessageState, Result
from jobs import blocklist, queues
from jobs.audit import trail
from jobs.clock import db_now
from jobs.lifecycle import orphans, tally, transition
from jobs.lifecycle.claim import BATCH, MAX_ATTEMPTS, with_hosts
from jobs.lifecycle.end import finish_job
from jobs.lifecycle.planning import freeze
from jobs.lifecycle.record import Report, record
from jobs.models import Job, Run
from jobs.queues import on_queue
from jobs.rules.state import RunState

AFTER = (0, 30, 130, 600)
"""Seconds after the outcome became unknown at which we look."""

REMOTE_BOUND = timedelta(seconds=CHANGE_SECONDS + 5)
"""No changing command outlives this on a host: each runs under `timeout -k 5 120` at most (fleet.ssh.drive), and none
begins once its worker's lease has ended (jobs.worker.leases), which it has when a run becomes unknown."""

STEP = timedelta(seconds=30)
POISON = {
    "code": "remote_error",
    "detail": f"put aside: {MAX_ATTEMPTS} workers were lost while they had this, and nothing was changed",
    "hint": "It may be what they died of: see the workers' logs.",
}


def lose(now: datetime) -> int:
    """Deal with runs whose worker is gone: what had been dispatched is unknown, the rest may be claimed again."""
    running = Run.objects.filter(state=RunState.RUNNING, lease_until__lt=now)
    lost = running.select_related("job", "host__customer", "instance__host")
    count = 0
    for run in lost:
        with transaction.atomic():
            count += _lose(run, now)
    return count


def _lose(run: Run, now: datetime) -> int:
    run.job = Job.objects.select_for_update(no_key=True).get(pk=run.job_id)
    rows = Run.objects.filter(pk=run.pk, state=RunState.RUNNING, lease_until=run.lease_until)
    if run.dispatched_at is not None:
        won = rows.update(state=RunState.UNKNOWN, unknown_at=now, reconcile_at=now, lease_until=None)
    elif run.attempts >= MAX_ATTEMPTS:
        won = rows.update(state=RunState.FAILED, error=POISON, finished_at=now, lease_until=None)
        tally.runs_failed([POISON["code"]] * won)
    else:
        won = rows.update(state=RunState.PENDING, lease_until=None)
        run.state = RunState.PENDING
    if won:
        trail.lock_chains(transition.chains_of(run.job))
        trail.append(_loss(run))
        queues.wake_on_commit(run.job, [run])
        _after_loss(run)
    return won


def _loss(run: Run) -> trail.Entry:
    data = {"run": str(run.pk), "dispatched": run.dispatched_at is not None}
    place = str(run.instance or run.host)
    return trail.Entry(run.host.customer.slug, "run.lost", None, object=place, job=run.job_id, data=data)


def _after_loss(run: Run) -> None:
    if run.is_planning:
        freeze(run.job)
        queues.wake_for_waiting([run.host_id])
    else:
        finish_job(run.job)


def due(now: datetime, queue: str) -> list[Run]:
    """Unknown runs of this Celery queue that are to be read back now, put off at once so that no one else does."""
    rows = Run.objects.filter(state=RunState.UNKNOWN, reconcile_at__lte=now).order_by("reconcile_at")
    rows = with_hosts(on_queue(rows, queue)).select_related("job__requested_by", "job__undo_of")
    return [
        run
        for run in rows.prefetch_related("job__customers")[:BATCH]
        if Run.objects.filter(pk=run.pk, reconcile_at=run.reconcile_at).update(reconcile_at=now + STEP * 4)
    ]


def settle(job: Job, report: Report) -> None:
    """Store what reading back showed. What it did not settle is looked at again, until the last look has passed."""
    if isinstance(report.value, Result) and _is_final(report.run, report.value):
        _settled(job, report)
    else:
        _again(job, report)


def _is_final(run: Run, result: Result) -> bool:
    """Found done is final at once; whatever else was found, only when no command of the run can be at work any more.

    What is absent may still be on its way: a script that waits for its MTA moves the messages after we have looked.
    """
    return is_positive(result) or (run.unknown_at is not None and db_now() >= run.unknown_at + REMOTE_BOUND)


def is_positive(result: Result) -> bool:
    """Whether everything that was requested was seen to be so."""
    return result.ended is Ended.SUCCEEDED and all(each.outcome == MessageState.DONE for each in result.messages)


def _settled(job: Job, report: Report) -> None:
    with transaction.atomic():
        Job.objects.select_for_update(no_key=True).get(pk=job.pk)  # before the run's row, as everybody else
        won = _as_seen(report.run).update(state=RunState.RUNNING)
        if won:
            record(job, [report])
            _search_quarantine(job, report)


def _as_seen(run: Run) -> QuerySet[Run]:
    """The run, when it is still unknown what became of the claim that was read back, and not of a later one."""
    return Run.objects.filter(pk=run.pk, state=RunState.UNKNOWN, fence=run.fence)


def _search_quarantine(job: Job, report: Report) -> None:
    """What a purge's read-back did not find may lie in quarantine all the same, once nothing of it runs any more."""
    run, value = report.run, report.value
    if job.operation != "queue.purge" or run.instance is None or not isinstance(value, Result):
        return
    places = value.data.get("places", {})
    if any(message.queue_id not in places for message in value.messages):
        orphans.inspect_soon(run.instance)


def _again(job: Job, report: Report) -> None:
    run = report.run
    with transaction.atomic():
        job = Job.objects.select_for_update(no_key=True).get(pk=job.pk)  # else two last runs do not see each other end
        attempts = run.reconciled + 1
        at = run.unknown_at + timedelta(seconds=AFTER[attempts]) if run.unknown_at and attempts < len(AFTER) else None
        now = db_now()
        won = _as_seen(run).update(reconciled=attempts, reconcile_at=at, finished_at=None if at else now)
        tally.runs_failed([report.error.code] * won if report.error else [])
        if won and at is None:
            blocklist.settle([run], now, now)
            finish_job(job)
