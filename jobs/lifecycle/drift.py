"""How far the queues have gone since a plan was frozen: a job of its own looks again, and changes neither.

It is a dry run of the same request on the plan's instances; each run ends with how what it would plan now differs.
"""

from collections.abc import Sequence
from dataclasses import replace

from fleet.mta.steps import Plan
from jobs.actor import Actor
from jobs.clock import db_now
from jobs.errors import Clash, Forbidden, NotFound
from jobs.jsonvalues import readable, storable
from jobs.lifecycle.end import publish_runs
from jobs.lifecycle.followup import disabled
from jobs.lifecycle.frozen import rows_of_instances
from jobs.lifecycle.submit import run_for, write
from jobs.models import Job, Run
from jobs.rows import store_runs
from jobs.rules.drift import drift_of
from jobs.rules.plan import PlanRow, summary_of
from jobs.rules.state import JobState, RunState

NOT_BEGUN = (JobState.AWAITING_APPROVAL, JobState.QUEUED, JobState.PLANNED)


def look(actor: Actor, job: Job) -> Job:
    """A new job that compares the frozen plan of `job` with the queues as they are.

    Raises Forbidden; NotFound without a plan; Clash when it is being carried out, or a host is switched off.
    """
    customers = [customer.pk for customer in job.customers.all()]
    if not actor.has_scope("jobs:request") or not actor.may("request_reading", customers):
        raise Forbidden("forbidden", f"{actor.account.username} may not have these queues read")
    if job.frozen_at is None or job.totals is not None:
        raise NotFound("no_plan", f"the job has no plan; it is {job.state}")
    if job.state not in NOT_BEGUN:
        raise Clash("conflict", f"the job is {job.state}: its plan is being carried out, or was")
    runs = list(job.runs.exclude(plan=None).select_related("instance__host__customer", "host__customer"))
    if why_not := disabled(runs):
        raise Clash("conflict", why_not)
    look_again = Job(
        operation=job.operation,
        target={"instances": [str(run.instance) for run in runs]},
        params=job.params,
        ticket=job.ticket,
        group=job.group,
        dry_run=True,
        is_changing=True,
        drift_of=job,
    )
    return write(actor, look_again, [run_for(run.host, run.instance) for run in runs], customers)


def settle(job: Job, plans: Sequence[tuple[Run, Plan]]) -> None:
    """End the runs of a job that looks again: the plans are compared, and not kept. In the caller's transaction."""
    if job.drift_of is None:
        raise TypeError(f"{job.pk} compares no plan")
    frozen = rows_of_instances(job.drift_of, [run.instance_id for run, _ in plans if run.instance_id])
    now = db_now()
    for run, plan in plans:
        run.result = storable(readable(drift_of(frozen[run.instance_id or 0], _row(run, plan))))
        run.state, run.is_planning, run.lease_until, run.finished_at = RunState.SUCCEEDED, False, None, now
    runs = [run for run, _ in plans]
    store_runs(runs, ["state", "is_planning", "result", "commands", "lease_until", "finished_at"])
    publish_runs(job, runs, now)


def _row(run: Run, plan: Plan) -> PlanRow:
    """As the frozen one was stored."""
    messages = tuple(replace(message, sender=storable(message.sender)) for message in plan.selected)
    return PlanRow(str(run.instance), storable(summary_of(plan)), messages, [])
