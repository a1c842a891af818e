"""What the database says of the fleet, for Prometheus: the same from each web process.

Of jobs and runs the open ones are counted as they stand; what has ended comes from the tallies, which only grow. So no
scrape reads old rows, and no label has other values than operations, states, codes, lanes and queues.
"""

import platform
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime
from itertools import product
from typing import Any

from django.conf import settings
from django.db import connection
from django.db.models import Count, Min, Q, QuerySet, Sum, TextChoices
from django.db.models.functions import Coalesce, Greatest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily, InfoMetricFamily
from prometheus_client.metrics_core import Metric
from prometheus_client.registry import Collector

from api.codes import HOST_CODES
from fleet.models import Host, HostStatus, QuarantineLook
from fleet.mta.params.catalogue import CATALOGUE
from fleet.ssh.gate import Lane
from jobs.clock import db_now
from jobs.lifecycle.tally import BOUNDS, INFINITE
from jobs.models import (
    AuditChain,
    BlockInstance,
    BlockState,
    Job,
    QuarantineItem,
    QuarantineState,
    Run,
    Tally,
    TallyKind,
)
from jobs.queues import MAY_BEGIN, lane_of
from jobs.restore import pause
from jobs.rules.state import RUN_ENDED, JobState, RunState
from jobs.worker import liveness

OPEN_JOBS = [state for state in JobState if state not in JobState.final()]
NOT_ENDED = [state for state in RunState if state not in RUN_ENDED]
Labels = tuple[str, ...]
LEFT_QUARANTINE = [state for state in QuarantineState if state != QuarantineState.KEPT]


class Fleet(Collector):
    """What the database says."""

    def collect(self) -> Iterator[Metric]:
        now = db_now()
        yield from _open_jobs(now)
        yield from _open_runs(now)
        yield from _ended()
        yield _gauge("mxfleet_hosts", "hosts by status", _counts(Host.objects.all(), "status", HostStatus))
        blocks = _counts(BlockInstance.objects.all(), "state", BlockState)
        yield _gauge("mxfleet_blocks", "blocks on instances by state", blocks)
        yield from _quarantine(now)
        written = AuditChain.objects.aggregate(total=Sum("seq"))["total"] or 0
        yield _value("mxfleet_audit_events", "entries of the audit trail", written)
        yield _value("mxfleet_paused", "1 while nothing new is begun, see readyz", int(pause.is_on()))
        gaps = len(pause.unacknowledged())
        yield _value("mxfleet_audit_gaps", "chains that lack entries, not acknowledged", gaps)
        workers = Counts(("queue",), {(queue,): alive for queue, alive in sorted(liveness.workers().items())})
        yield _gauge("mxfleet_workers", "workers that said within 30 s that they live, 0 where one lacks", workers)
        build = {"version": settings.VERSION, "python": platform.python_version(), "database": connection.vendor}
        yield InfoMetricFamily("mxfleet_build", "what serves", value=build)


@dataclass(frozen=True, slots=True)
class Counts:
    """How many there are of each: label values -> number."""

    labels: tuple[str, ...]
    rows: Mapping[Labels, int]


def _counts(found: QuerySet[Any], column: str, values: type[TextChoices]) -> Counts:
    """By the values of a column, 0 of those that no row has."""
    rows = dict(found.order_by().values_list(column).annotate(Count("pk")))
    return Counts((column,), {(value.value,): rows.get(value.value, 0) for value in values})


def _gauge(name: str, text: str, counts: Counts) -> Metric:
    family = GaugeMetricFamily(name, text, labels=counts.labels)
    for values, count in counts.rows.items():
        family.add_metric(values, count)
    return family


def _counter(name: str, text: str, counts: Counts) -> Metric:
    family = CounterMetricFamily(name, text, labels=counts.labels)
    for values, count in counts.rows.items():
        family.add_metric(values, count)
    return family


def _value(name: str, text: str, value: float) -> Metric:
    return GaugeMetricFamily(name, text, value=value)


def _open_jobs(now: datetime) -> Iterator[Metric]:
    since = Greatest(Coalesce("ready_at", "created_at"), Coalesce("start_after", "created_at"))
    rows = (
        Job.objects.filter(state__in=OPEN_JOBS)
        .order_by()
        .values("operation", "state")
        .annotate(
            count=Count("pk"),
            planning=Min("created_at", filter=Q(state=JobState.PLANNING)),
            queued=Min(since, filter=Q(state=JobState.QUEUED) & _has_come("", now)),
            asked=Min(
                Coalesce("confirmed_at", "frozen_at"),
                filter=Q(state=JobState.AWAITING_APPROVAL) & (Q(confirm=False) | Q(confirmed_at__isnull=False)),
            ),
        )
    )
    found = list(rows)
    counts: dict[Labels, int] = {(row["operation"], row["state"]): row["count"] for row in found}
    yield _gauge("mxfleet_jobs", "open jobs by operation and state", Counts(("operation", "state"), counts))
    waiting = [row[name] for row in found for name in ("planning", "queued")]
    yield _value("mxfleet_oldest_waiting_job_seconds", "how long the oldest job waits for workers", _age(now, waiting))
    text = "how long the oldest plan has waited for people's approval"
    yield _value("mxfleet_oldest_approval_seconds", text, _age(now, [row["asked"] for row in found]))


def _has_come(job: str, now: datetime) -> Q:
    """Jobs that are not put off any more; `job`: how a row's job is found."""
    return Q(**{f"{job}start_after": None}) | Q(**{f"{job}start_after__lte": now})


def _age(now: datetime, moments: Iterable[datetime | None]) -> float:
    return max((now - min(filter(None, moments), default=now)).total_seconds(), 0.0)


def _open_runs(now: datetime) -> Iterator[Metric]:
    may_begin = Q(job__state__in=MAY_BEGIN) & (Q(job__state=JobState.PLANNING) | _has_come("job__", now))
    rows = Run.objects.filter(state__in=NOT_ENDED).order_by().values_list("state", "job__is_changing")
    states: Counter[Labels] = Counter()
    waiting: Counter[Labels] = Counter({(lane.value,): 0 for lane in Lane})
    for state, is_changing, count, begin, look in rows.annotate(
        Count("pk"),
        begin=Count("pk", filter=may_begin & Q(state=RunState.PENDING)),
        look=Count("pk", filter=Q(state=RunState.UNKNOWN, reconcile_at__isnull=False)),
    ):
        states[(state,)] += count
        waiting[(lane_of(is_changing).value,)] += begin
        waiting[(Lane.LOOK.value,)] += look
    text = "open runs by state, and those whose outcome stayed unknown"
    yield _gauge("mxfleet_runs", text, Counts(("state",), states))
    unknown = states[(RunState.UNKNOWN.value,)]
    yield _value("mxfleet_runs_unknown", "runs whose outcome is not known", unknown)
    text = "runs that wait for their turn, by lane; look: to be read back"
    yield _gauge("mxfleet_runs_waiting", text, Counts(("lane",), waiting))


def _ended() -> Iterator[Metric]:
    """Counters begin at 0, since Prometheus takes what first shows as 1 for no increase."""
    jobs: dict[Labels, int] = {(name, state.value): 0 for name, state in product(CATALOGUE, JobState.final())}
    errors: dict[Labels, int] = {(code,): 0 for code in HOST_CODES}
    left: dict[Labels, int] = {(state.value,): 0 for state in LEFT_QUARANTINE}
    lasted: dict[str, Counter[str]] = {name: Counter() for name in CATALOGUE}
    spent: defaultdict[str, float] = defaultdict(float)
    rows = Tally.objects.order_by().values_list("kind", "operation", "end", "within")
    for kind, operation, end, within, count, seconds in rows.annotate(Sum("count"), Sum("seconds")):
        if kind == TallyKind.RUN_ERROR:
            errors[(end,)] = count
        elif kind == TallyKind.QUARANTINE:
            left[(end,)] = count
        else:
            jobs[(operation, end)] = jobs.get((operation, end), 0) + count
            if within:
                lasted.setdefault(operation, Counter())[within] += count
                spent[operation] += seconds
    yield _counter("mxfleet_jobs_ended", "jobs by operation and last state", Counts(("operation", "state"), jobs))
    yield _counter("mxfleet_run_errors", "errors of runs by code", Counts(("code",), errors))
    yield _counter("mxfleet_quarantine_left", "messages that left quarantine", Counts(("state",), left))
    yield _histogram(lasted, spent)


def _histogram(lasted: Mapping[str, Counter[str]], spent: Mapping[str, float]) -> Metric:
    text = "time from a job's begin to its end, of those that were begun"
    family = HistogramMetricFamily("mxfleet_job_seconds", text, labels=["operation"])
    bounds = [*map(str, BOUNDS), INFINITE]
    for operation, counts in lasted.items():
        buckets = [(bound, _up_to(bound, counts)) for bound in bounds]
        family.add_metric([operation], buckets, spent.get(operation, 0.0))
    return family


def _up_to(bound: str, counts: Mapping[str, int]) -> int:
    """Bounds of earlier versions may be others, so they are compared as numbers."""
    return sum(count for within, count in counts.items() if float(within) <= float(bound))


def _quarantine(now: datetime) -> Iterator[Metric]:
    kept = QuarantineItem.objects.filter(state=QuarantineState.KEPT)
    found = kept.aggregate(kept=Count("pk"), overdue=Count("pk", filter=Q(expires_at__lt=now)))
    yield _value("mxfleet_quarantine_kept", "messages in quarantine", found["kept"])
    text = "messages in quarantine that were to be erased before now"
    yield _value("mxfleet_quarantine_overdue", text, found["overdue"])
    lying = QuarantineLook.objects.aggregate(total=Sum("orphans"))["total"] or 0
    yield _value("mxfleet_quarantine_orphans", "messages in quarantines without a row", lying)
