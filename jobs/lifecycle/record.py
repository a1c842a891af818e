"""What became of runs: written in bulk, with the audit events, in one transaction a batch."""

from collections.abc import Iterable, Sequence
from copy import copy
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import Any

from django.conf import settings
from django.db import transaction

from fleet.models import Host, HostStatus
from fleet.mta import errors
from fleet.mta.records import Ended, HostFacts, InstanceFacts, MessageState, Result
from fleet.mta.steps import Plan
from jobs import blocklist, queues
from jobs.audit import trail
from jobs.clock import db_now
from jobs.jsonvalues import readable, shown, storable
from jobs.lifecycle import effects, tally, transition
from jobs.lifecycle.claim import MAX_ATTEMPTS
from jobs.lifecycle.end import finish_job, is_unreached, publish_runs, state_for
from jobs.lifecycle.planning import freeze, store_plans
from jobs.models import Job, Run
from jobs.rows import store_runs
from jobs.rules.state import RUN_ENDED, JobState, RunState

Discovered = tuple[HostFacts, tuple[InstanceFacts, ...]]
ENDED = {Ended.SUCCEEDED: RunState.SUCCEEDED, Ended.UNCHANGED: RunState.UNCHANGED, Ended.FAILED: RunState.FAILED}
SETTLED = frozenset(ENDED.values())
"""Ends that a read-back has established, which a late report of the change itself may correct."""
FIELDS = [
    "state",
    "error",
    "result",
    "commands",
    "before",
    "after",
    "lease_until",
    "dispatched_at",
    "unknown_at",
    "reconcile_at",
    "started_at",
    "finished_at",
]


@dataclass(frozen=True, slots=True)
class Report:
    """What a worker says of one run, whose `fence` names the claim. `value`: Plan, Result or Discovered.

    `commands` as in the API. `applied`: what a change found of its plan.
    """

    run: Run
    value: Plan | Result | Discovered | None
    error: errors.FleetError | None
    commands: list[dict[str, Any]]
    mutated: bool
    started_at: datetime
    finished_at: datetime
    is_cancelled: bool = False
    applied: Plan | None = None


def record(job: Job, reports: Sequence[Report]) -> None:
    """Store a batch of reports; then freeze the plan or end the job when these were the last.

    A report that comes after its lease ended settles its run all the same: nobody else can know the host's output.
    What it raises leaves the reports as they were, so that they can be recorded again.
    """
    reports = [replace(report, run=copy(report.run)) for report in reports]
    with transaction.atomic():
        locked = Job.objects.select_for_update(no_key=True).get(pk=job.pk)
        job.state, job.version, job.cancel_asked_at = locked.state, locked.version, locked.cancel_asked_at
        job.started_at = locked.started_at
        if job.is_changing:
            trail.lock_chains(transition.chains_of(job))
        now = db_now()
        ours = _of_the_claim(reports)
        plans = [(report.run, report.value) for report in ours if isinstance(report.value, Plan)]
        ended = [_named(report) for report in ours if not isinstance(report.value, Plan)]
        for report in ours:
            report.run.commands = storable(report.commands)
        store_plans(job, plans)
        for report in ended:
            _fill(report, now)
        store_runs([report.run for report in ended], FIELDS)
        tally.runs_failed(report.run.error["code"] for report in ended if report.run.error)
        store_runs([report.run for report in ended if _has_drifted(report)], ["plan"])
        _effects(job, ours, ended, now)
        _audit(job, ended)
        _hosts(ours, now)
        publish_runs(job, [report.run for report in ended], now)
        queues.wake_on_commit(job, [report.run for report in ended])
        if job.state == JobState.PLANNING:
            freeze(job)
            queues.wake_for_waiting({report.run.host_id for report in ours})
        else:
            finish_job(job)


def _of_the_claim(reports: Sequence[Report]) -> list[Report]:
    """The reports whose claim is the last one of their run, and that are worth more than what is known of it."""
    ids = [report.run.pk for report in reports]
    rows = Run.objects.filter(pk__in=ids).values_list("pk", "fence", "state", "is_planning")
    now = {pk: (fence, state, is_planning) for pk, fence, state, is_planning in rows}
    return [report for report in reports if _counts(report, *now[report.run.pk])]


def _counts(report: Report, fence: int, state: str, is_planning: bool) -> bool:
    """Whether a report of the claim with its run's fence is to be stored, the run being in that state by now."""
    if fence != report.run.fence or is_planning != report.run.is_planning:
        return False
    if state == RunState.RUNNING:
        return True
    if state == RunState.UNKNOWN:
        return isinstance(report.value, Result) or not report.mutated
    return state in SETTLED and isinstance(report.value, Result) and report.mutated


def _named(report: Report) -> Report:
    """What discovery found, by the names under which it is stored."""
    if not isinstance(report.value, tuple):
        return report
    facts, found = report.value
    return replace(report, value=(facts, effects.named(report.run.host, found)))


def _fill(report: Report, now: datetime) -> None:
    run, value = report.run, report.value
    run.lease_until, run.started_at, run.finished_at = None, report.started_at, report.finished_at
    if report.is_cancelled:
        run.state, run.dispatched_at = RunState.CANCELLED, None
    elif _was_not_begun(report):
        run.state, run.dispatched_at, run.finished_at = RunState.PENDING, None, None
    elif report.error is not None:
        run.state = state_for(report.error, mutated=report.mutated)
        run.error = storable(report.error.as_dict())
        if not report.mutated:
            run.dispatched_at = None
    elif isinstance(value, Result):
        run.state, run.reconcile_at = ENDED[value.ended], None
        run.error = storable(value.error.as_dict()) if value.error else None
        run.result = shown(value.data)
        run.before, run.after = storable(readable(value.before)), storable(readable(value.after))
    elif isinstance(value, tuple):
        run.state = RunState.SUCCEEDED
        run.result = storable(effects.discovered_json(*value))
    if run.state == RunState.UNKNOWN:
        run.unknown_at, run.reconcile_at, run.finished_at = now, now, None


def _has_drifted(report: Report) -> bool:
    """Whether the queue was no longer what the plan was made from when it was carried out; then the plan says so."""
    run, found = report.run, report.applied
    if found is None or run.plan is None or run.state == RunState.PENDING or not (found.gone or found.new):
        return False
    run.plan = {**run.plan, "drift": {"gone": run.plan["drift"]["gone"] + found.gone, "new": found.new}}
    return True


def _was_not_begun(report: Report) -> bool:
    """Whether the worker found its lease gone before it sent anything, and another one may still try."""
    is_lost = isinstance(report.error, errors.LeaseLost) and not report.mutated
    return is_lost and report.run.attempts < MAX_ATTEMPTS and report.run.job.state not in JobState.final()


def _effects(job: Job, reports: Iterable[Report], ended: Sequence[Report], now: datetime) -> None:
    for report in reports:
        plan = report.value if isinstance(report.value, Plan) else report.applied
        if plan is not None and plan.freed:
            effects.freed(report.run, plan.freed, report.started_at)
    for report in ended:
        run, value = report.run, report.value
        if isinstance(value, Result):
            effects.apply(job, run, value, report.applied.selected if report.applied else (), now)
        elif isinstance(value, tuple):
            effects.discovered(run.host, *value, now)
    effects.listed(
        [
            (report.run, report.value.data["entries"], report.started_at)
            for report in ended
            if isinstance(report.value, Result) and "entries" in report.value.data
        ]
    )
    retry_at = now + timedelta(seconds=settings.ENV.reconcile_interval)
    blocklist.settle((report.run for report in ended if report.run.state in RUN_ENDED), now, retry_at)
    cancelled = [report.run for report in ended if report.is_cancelled]
    if cancelled and job.ready_at is not None:
        blocklist.withdraw(job, cancelled, now)


def _audit(job: Job, ended: Iterable[Report]) -> None:
    if not job.is_changing:
        return
    trail.append(
        *(
            trail.Entry(
                customer=report.run.host.customer.slug,
                action="run.ended",
                actor=None,
                object=str(report.run.instance or report.run.host),
                job=job.pk,
                data={
                    "run": str(report.run.pk),
                    "operation": job.operation,
                    "state": report.run.state,
                    "error": (report.run.error or {}).get("code"),
                    "counts": counts_of(report.run),
                    "commands": [[" ".join(c["argv"]), c["exit_status"]] for c in report.run.commands],
                },
            )
            for report in ended
        )
    )


def counts_of(run: Run) -> dict[str, int]:
    """The integers of a run's result."""
    names = ("asked", *(state.value for state in MessageState))
    return {name: run.result[name] for name in names if run.result and name in run.result}


def _hosts(reports: Sequence[Report], now: datetime) -> None:
    silent = errors.NothingSent | errors.ConnectionLost
    answered = [report for report in reports if not report.is_cancelled and not isinstance(report.error, silent)]
    fine = {report.run.host_id for report in answered}
    Host.objects.filter(pk__in=fine).update(status=HostStatus.OK, status_reason="", last_seen_at=now)
    for report in reports:
        if report.error is not None and is_unreached(report.error):
            is_off = type(report.error) is errors.Unreachable
            status = HostStatus.UNREACHABLE if is_off else HostStatus.REFUSED
            Host.objects.filter(pk=report.run.host_id).update(
                status=status, status_reason=storable(report.error.detail)[:500]
            )
