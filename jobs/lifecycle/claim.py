"""A worker takes runs: a conditional UPDATE says who wins, and the intent is on record before any byte leaves."""

import secrets
from collections import Counter, defaultdict
from collections.abc import Collection, Iterable
from dataclasses import dataclass
from datetime import datetime, timedelta
from functools import cache
from uuid import UUID

from django.db import transaction
from django.db.models import Exists, F, Max, OuterRef, Q, QuerySet, Subquery, Window
from django.db.models.functions import Coalesce, Now, RowNumber

from fleet.ssh.gate import Lane
from jobs.audit import trail
from jobs.clock import db_now
from jobs.lanes import LaneThreads
from jobs.lifecycle import hosts, transition
from jobs.lifecycle.start import start
from jobs.models import HostLease, Job, Run
from jobs.queues import on_queue
from jobs.restore import watch
from jobs.rules.state import JobState, RunState
from jobs.rules.turns import Waiting, caller_share, customer_share, in_turn

BATCH = 500
LEASE = timedelta(seconds=30)
TOGETHER = (BATCH, 50, 1)
"""How many runs of a job are tried together after so many workers were lost with them: one of them may be the cause."""
MAX_ATTEMPTS = len(TOGETHER)
"""A run whose workers were lost so often, the last time with nothing else of its job, is put aside."""

BEGUN = (JobState.QUEUED, JobState.RUNNING)
JobCustomer = Job.customers.through


@dataclass(frozen=True, slots=True)
class Claim:
    """Runs of one job that are this worker's now. None of them: the job moved on without any, so look again."""

    job: Job
    runs: list[Run]


@cache
def worker() -> str:
    """This process's name in the runs that it has."""
    return secrets.token_hex(16)


def claim(lane: LaneThreads, queue: str) -> Claim | None:
    """Take runs of the job whose turn it is on this Celery queue, up to BATCH. None: nothing can be begun now.

    With `lane.claiming` held.

    A changing job that is past planning is started by this: digest and roles are checked again, each host is leased to
    it, and `dispatched_at` with its audit event is committed for every run that is returned.
    """
    if watch.is_paused():
        return None
    at_work = _at_work(lane, queue)
    for job in _candidates(lane, queue, at_work):
        taken = _take(job, lane, queue)
        if taken is not None:
            turn = max(lane.served.values(), default=0) + 1
            lane.served.update(dict.fromkeys((customer.pk for customer in taken.job.customers.all()), turn))
            return taken
    return None


@dataclass(frozen=True, slots=True)
class _AtWork:
    """What the queue has at work in a lane: jobs by caller and by customer; whether one was lost once before."""

    callers: Counter[int]
    customers: Counter[int]
    has_suspect: bool


def _at_work(lane: LaneThreads, queue: str) -> _AtWork:
    running = on_queue(Run.objects.filter(state=RunState.RUNNING), queue).order_by()
    jobs = running.values_list("job", "job__requested_by", "job__is_changing").annotate(most=Max("attempts"))
    rows = list(jobs)
    ours = {job: caller for job, caller, is_changing, _ in rows if is_changing == is_of_changes(lane)}
    customers = JobCustomer.objects.filter(job__in=ours).values_list("customer_id", flat=True)
    return _AtWork(Counter(ours.values()), Counter(customers), any(most > 1 for *_, most in rows))


def _candidates(lane: LaneThreads, queue: str, at_work: _AtWork) -> list[UUID]:
    """For each customer the job that waits longest and may begin now, in the order of turns."""
    runs = waiting(lane, queue)
    callers = _full(at_work.callers, caller_share(lane.width))
    if callers:
        runs = runs.exclude(job__requested_by__in=callers)
    if at_work.has_suspect:  # of those that were with a worker when it died, one batch at a time: it may be the cause
        runs = runs.filter(attempts=0)
    customers = _full(at_work.customers, customer_share(lane.width))
    if customers:
        runs = runs.exclude(job__customers__in=customers)
    since = Coalesce("job__ready_at", "job__created_at")
    place = Window(RowNumber(), partition_by=F("customer_id"), order_by=[since, F("job_id")])
    first = (
        JobCustomer.objects.filter(job__in=Subquery(runs.order_by().values("job")))
        .annotate(since=since, place=place)
        .filter(place=1)  # type: ignore[misc] # the plugin knows no annotations of this model
        .values_list("job_id", "customer_id", "since")
    )
    return in_turn((Waiting(*row) for row in first), at_work.customers, lane.served)


def _full(counts: Counter[int], most: int) -> list[int]:
    return [name for name, count in counts.items() if count >= most]


def waiting(lane: LaneThreads, queue: str) -> QuerySet[Run]:
    """Runs of this Celery queue and lane that may begin now: of jobs whose time has come.

    On one host changing jobs come one after the other in the order in which they became ready, and are planned in the
    order in which they were requested, so that of two opposite jobs the later one has the last word.
    """
    runs = _of_lane(on_queue(Run.objects.filter(state=RunState.PENDING), queue), lane)
    has_come = Q(job__start_after=None) | Q(job__start_after__lte=Now())
    if not is_of_changes(lane):
        return runs.filter(has_come, job__state__in=BEGUN)
    same_host = Run.objects.filter(host=OuterRef("host"), job__is_changing=True).exclude(job=OuterRef("job"))
    planned_before = same_host.filter(
        job__state=JobState.PLANNING, is_planning=True, state__in=(RunState.PENDING, RunState.RUNNING)
    ).filter(_earlier("created_at"), job__drift_of=None)  # nothing comes of one that only compares
    ready_before = same_host.filter(job__state__in=BEGUN, is_planning=False, state=RunState.PENDING).filter(
        _earlier("ready_at")
    )
    leases = HostLease.objects.filter(host=OuterRef("host"))
    leased = leases.exclude(job=None)
    # Who has the host goes first, whoever was ready before: else the two would wait for each other.
    is_next = Q(Exists(leases.filter(job=OuterRef("job")))) | Q(~Exists(ready_before), ~Exists(leased))
    return runs.filter(
        Q(~Exists(planned_before), job__state=JobState.PLANNING, is_planning=True)
        | Q(has_come, is_next, job__state__in=BEGUN, is_planning=False)
    )


def _earlier(field: str) -> Q:
    return Q(**{f"job__{field}__lt": OuterRef(f"job__{field}")}) | Q(
        **{f"job__{field}": OuterRef(f"job__{field}"), "job__lt": OuterRef("job")}
    )


def _of_lane(runs: QuerySet[Run], lane: LaneThreads) -> QuerySet[Run]:
    return runs.filter(job__is_changing=is_of_changes(lane))


def is_of_changes(lane: LaneThreads) -> bool:
    return lane.lane is Lane.CHANGE


def _take(pk: UUID, lane: LaneThreads, queue: str) -> Claim | None:
    """None when somebody else took the job's runs in this moment."""
    with transaction.atomic():
        job = _locked(pk)
        if job is None:
            return None
        if job.state == JobState.QUEUED:
            start(job)
        if job.state not in (JobState.PLANNING, JobState.RUNNING):
            return Claim(job, [])
        runs = _together(with_hosts(waiting(lane, queue).filter(job=job)).order_by("attempts", "id")[:BATCH])
        if applies(job):
            trail.lock_chains(transition.chains_of(job))
            return _apply(job, runs)
        now = db_now()
        fence = max(hosts.fence_at(now), *(run.fence + 1 for run in runs)) if runs else 0
        return _begin(job, [(fence, runs)], now)


def _together(runs: Iterable[Run]) -> list[Run]:
    """Those that no worker was lost with, else so few that what they died of is found among them."""
    found = list(runs)
    least = [run for run in found if run.attempts == found[0].attempts]
    return least[: TOGETHER[found[0].attempts]] if found else []


def _locked(pk: UUID) -> Job | None:
    rows = Job.objects.select_related("undo_of", "drift_of__undo_of", "requested_by").prefetch_related("customers")
    return rows.select_for_update(no_key=True, of=("self",)).filter(pk=pk).first()


def applies(job: Job) -> bool:
    """Whether the job's runs change hosts now (a changing job that is past planning)."""
    return job.is_changing and job.state == JobState.RUNNING


def _apply(job: Job, runs: list[Run]) -> Claim | None:
    now = db_now()
    fences = hosts.lease(job, runs, now)
    by_fence: dict[int, list[Run]] = defaultdict(list)
    for run in runs:
        if run.host_id in fences:
            by_fence[fences[run.host_id]].append(run)
    claimed = _begin(job, by_fence.items(), now, dispatched_at=now)
    if claimed is not None:
        trail.append(*(_intent(job, run) for run in claimed.runs))
    return claimed


def _begin(
    job: Job, batches: Iterable[tuple[int, list[Run]]], now: datetime, dispatched_at: datetime | None = None
) -> Claim | None:
    """Take batches of runs, each with the fence of its claim. None when one of them was taken by somebody else."""
    taken = []
    for fence, runs in batches:
        fields = {"state": RunState.RUNNING, "fence": fence, "worker": worker(), "lease_until": now + LEASE}
        fields |= {"started_at": now, "dispatched_at": dispatched_at}
        ids = [run.pk for run in runs]
        won = Run.objects.filter(pk__in=ids, state=RunState.PENDING).update(attempts=F("attempts") + 1, **fields)
        if won != len(ids):
            transaction.set_rollback(True)
            return None
        for run in runs:
            for name, value in fields.items():
                setattr(run, name, value)
            run.job, run.attempts = job, run.attempts + 1
        taken += runs
    return Claim(job, taken)


def with_hosts(rows: QuerySet[Run]) -> QuerySet[Run]:
    """With all that is needed to reach the host, in one query."""
    return rows.select_related(
        "host__customer",
        "host__credential__customer",
        "host__jump_host__credential__customer",
        "instance__host",
    )


def _intent(job: Job, run: Run) -> trail.Entry:
    return trail.Entry(
        customer=run.host.customer.slug,
        action="run.dispatched",
        actor=None,
        object=str(run.instance or run.host),
        job=job.pk,
        data={
            "run": str(run.pk),
            "operation": job.operation,
            "digest": job.digest,
            "attempt": run.attempts,
            "fence": run.fence,
        },
    )


def keep(runs: Collection[UUID]) -> dict[UUID, int]:
    """Move the leases on of those of the runs that are still this process's. Returns these, with their fences."""
    ours = Run.objects.filter(pk__in=runs, worker=worker(), state=RunState.RUNNING)
    ours.update(lease_until=db_now() + LEASE)
    return dict(ours.values_list("pk", "fence"))


def cancelled(jobs: Collection[UUID]) -> set[UUID]:
    """Those of the jobs whose cancellation somebody requested."""
    return set(Job.objects.filter(pk__in=jobs, cancel_asked_at__isnull=False).values_list("pk", flat=True))
