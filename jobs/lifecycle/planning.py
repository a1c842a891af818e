"""What the instances' plans came to: store each, and when the last is in, freeze the job's plan and ask the policy."""

from collections.abc import Iterable, Sequence
from datetime import timedelta
from typing import Any

from fleet.mta.errors import TooMany
from fleet.mta.operations import ChangesMessages
from fleet.mta.results.changing import MessagesResult
from fleet.mta.steps import Plan
from jobs import blocklist, queues
from jobs.clock import db_now
from jobs.jsonvalues import storable
from jobs.lifecycle import drift, transition
from jobs.lifecycle.blast_radius import blast_of
from jobs.lifecycle.end import finish_job, publish_runs, stop
from jobs.lifecycle.frozen import VERDICT, document_of, plan_rows
from jobs.models import FrozenPlan, Job, Message, Run
from jobs.operation import operation_for
from jobs.rows import store_runs
from jobs.rules.document import digest_of_document
from jobs.rules.plan import PlanInstance, summary_of
from jobs.rules.policy import DEFAULT_RULES, decide
from jobs.rules.state import JobState, RunState


def store_plans(job: Job, plans: Sequence[tuple[Run, Plan]]) -> None:
    """Store plans that workers brought, or how they differ from a frozen one. In the caller's transaction."""
    if job.drift_of_id is not None:
        drift.settle(job, plans)
        return
    for run, plan in plans:
        kept: PlanInstance = {"instance": str(run.instance), **summary_of(plan)}
        run.plan = storable(kept)
        run.is_planning = False
        run.state, run.lease_until, run.started_at, run.attempts = RunState.PENDING, None, None, 0
        Message.objects.bulk_create(_messages(run, plan), batch_size=1000)
    fields = ["plan", "is_planning", "state", "lease_until", "started_at", "attempts", "commands"]
    store_runs([run for run, _ in plans], fields)


def _messages(run: Run, plan: Plan) -> list[Message]:
    return [
        Message(
            run=run,
            queue_id=message.queue_id,
            arrival_time=message.arrival_time,
            sender=storable(message.sender),
            size=message.size,
            state=message.state,
            recipients=storable(message.recipients),
            subject=storable(message.subject),
        )
        for message in plan.selected
    ]


def freeze(job: Job) -> None:
    """When no run is being planned any more: freeze the plan, ask the policy, move the job on."""
    open_states = (RunState.PENDING, RunState.RUNNING)
    if job.state != JobState.PLANNING or job.runs.filter(is_planning=True, state__in=open_states).exists():
        return
    if job.cancel_asked_at is not None:  # while it was being planned
        stop(job, JobState.CANCELLED)
        return
    failed = job.runs.filter(state=RunState.FAILED, error__code=TooMany.code)
    over = failed.select_related("instance__host", "host__customer").first()
    if over is not None and job.drift_of_id is None:
        _stop(job, over)
        return
    runs = list(job.runs.filter(state=RunState.PENDING).select_related("instance__host__customer", "host"))
    if not job.dry_run:
        runs = _without_empty(job, runs)
    if not runs:
        _want_though_down(job)
        finish_job(job)
        return
    _freeze(job, runs)


def _want_though_down(job: Job) -> None:
    """No host could be planned: a wish that nobody has to agree to holds all the same, and they catch up.

    Neither one that its requester wanted to see first, nor one whose time has not come: the job ends, and with it that.
    """
    down = list(job.runs.exclude(state=RunState.UNSUPPORTED).select_related("instance__host__customer", "host"))
    is_later = job.start_after is not None and job.start_after > db_now()
    if job.dry_run or job.confirm or is_later or not down:
        return
    if not decide(blast_of(job, down), DEFAULT_RULES).approvals:
        blocklist.want(job, db_now())


def _stop(job: Job, over: Run) -> None:
    """One queue is over its limit, so nothing is changed anywhere."""
    error = over.error or {}
    reported = {**error, "detail": f"{over.instance}: {error.get('detail')}"}
    stop(job, JobState.FAILED, whose=over.host.customer.slug, error=reported)


def _without_empty(job: Job, runs: list[Run]) -> list[Run]:
    """End the runs that would change no message."""
    kept = []
    for run in runs:
        plan = run.plan or {}
        if plan["counts"]["messages"] or not isinstance(operation_for(job, run), ChangesMessages):
            kept.append(run)
            continue
        gone = plan["drift"]["gone"]
        result: MessagesResult = {
            "asked": gone,
            "done": 0,
            "already_gone": gone,
            "left_queue": 0,
            "in_delivery": 0,
            "left": 0,
        }
        run.result = result
        run.state, run.finished_at = RunState.UNCHANGED, db_now()
        run.save(update_fields=["state", "finished_at", "result"])
    return kept


def _freeze(job: Job, runs: list[Run]) -> None:
    job.refresh_from_db(fields=["target"])  # a host may have been renamed while it was being planned
    rows = plan_rows(job)
    verdict = decide(blast_of(job, runs), DEFAULT_RULES)
    ttl = min(job.approval_ttl, verdict.approval_ttl)
    asked = (verdict.approvals, verdict.role, verdict.rule, verdict.why, ttl, verdict.execution_ttl)
    by_rules = dict(zip(VERDICT, asked, strict=True))
    document = document_of(job, rows, by_rules)
    fields: dict[str, Any] = {
        "digest": digest_of_document(document),
        "frozen_at": db_now(),
        "planned_messages": sum(len(row.messages) for row in rows),
        **by_rules,
    }
    if _go_on(job, runs, fields):
        FrozenPlan.objects.create(job=job, document=document)


def _go_on(job: Job, runs: list[Run], fields: dict[str, Any]) -> bool:
    """To its end, to whoever has to agree first, or into the line. False: somebody else moved it first."""
    if job.dry_run:
        return _end_dry(job, runs, fields)
    if fields["approvals_needed"] or not job.is_confirmed:
        expires_at = fields["frozen_at"] + timedelta(seconds=fields["approval_ttl"])
        return transition.move(job, JobState.AWAITING_APPROVAL, expires_at=expires_at, **fields)
    return queue(job, runs, **fields)


def _end_dry(job: Job, runs: list[Run], fields: dict[str, Any]) -> bool:
    """A dry run ends here, and so do those of its runs that have a plan."""
    if not transition.move(job, JobState.PLANNED, **fields):
        return False
    for run in runs:
        run.state, run.finished_at = RunState.PLANNED, job.finished_at
    store_runs(runs, ["state", "finished_at"])
    publish_runs(job, runs, fields["frozen_at"])
    return True


def queue(job: Job, runs: Iterable[Run], **fields: Any) -> bool:
    """The job is ready: it takes its place in line, what it wants is wanted from now on, and its workers are woken.

    One whose time has not come has no place in line, and keeps nobody waiting; all that is done when it begins.
    False: somebody else moved it first.
    """
    now = db_now()
    begins = max(now, job.start_after or now)
    expires_at = begins + timedelta(seconds=fields.get("execution_ttl", job.execution_ttl))
    is_due = begins == now
    place: dict[str, Any] = {"ready_at": now, "wake_at": now + queues.PATIENCE} if is_due else {"wake_at": begins}
    if not transition.move(job, JobState.QUEUED, expires_at=expires_at, wakeups=0, **place, **fields):
        return False
    if is_due:
        blocklist.want(job, now)
        queues.wake_on_commit(job, runs)
    return True
