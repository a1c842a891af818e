"""What the database says, for Prometheus: of jobs and runs the open ones only, so that a scrape reads no old rows."""

import math
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

from django.db.models import Count, Min, QuerySet, Sum
from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.core import GaugeMetricFamily
from prometheus_client.metrics_core import Metric
from prometheus_client.registry import Collector

from fleet.models import Host, QuarantineLook
from jobs.clock import db_now
from jobs.models import AuditChain, Job, Run
from jobs.restore import pause
from jobs.rules.state import RUN_ENDED, JobState, RunState
from jobs.worker import liveness

SECONDS = 5.0
"""How long what was computed is served again."""
OPEN_JOBS = [state for state in JobState if state not in JobState.final()]
NOT_ENDED = [state for state in RunState if state not in RUN_ENDED]


class Cached:
    """Bytes that are computed once in `seconds`, by one thread at a time; others get the last ones meanwhile.

    `serves_stale` False: they wait for the new ones, so that nobody gets what was while computing hangs.
    """

    def __init__(
        self,
        compute: Callable[[], bytes],
        seconds: float,
        clock: Callable[[], float] = time.monotonic,
        *,
        serves_stale: bool = True,
    ) -> None:
        self._compute = compute
        self._seconds = seconds
        self._clock = clock
        self._serves_stale = serves_stale
        self._lock = threading.Lock()
        self._content = b""
        self._until = -math.inf

    def get(self) -> bytes:
        """The bytes. Raises what computing them raises."""
        if self._lock.acquire(blocking=not (self._content and self._serves_stale)):
            try:
                if self._clock() >= self._until:
                    self._content = self._compute()
                    self._until = self._clock() + self._seconds
            finally:
                self._lock.release()
        return self._content


class Fleet(Collector):
    """Open jobs and runs, hosts, audit entries and workers."""

    def collect(self) -> Iterator[Metric]:
        jobs = Job.objects.filter(state__in=OPEN_JOBS)
        yield _gauge("mxfleet_jobs", "open jobs by operation and state", _counts(jobs, "operation", "state"))
        runs = _counts(Run.objects.filter(state__in=NOT_ENDED), "state")
        yield _gauge("mxfleet_runs", "open runs by state, and those whose outcome stayed unknown", runs)
        unknown = runs.rows.get((RunState.UNKNOWN.value,), 0)
        yield GaugeMetricFamily("mxfleet_runs_unknown", "runs whose outcome is not known", value=unknown)
        yield _gauge("mxfleet_hosts", "hosts by status", _counts(Host.objects.all(), "status"))
        lying = QuarantineLook.objects.aggregate(total=Sum("orphans"))["total"] or 0
        yield GaugeMetricFamily("mxfleet_quarantine_orphans", "messages in quarantines without a row", value=lying)
        yield _age()
        written = AuditChain.objects.aggregate(total=Sum("seq"))["total"] or 0
        yield GaugeMetricFamily("mxfleet_audit_events", "entries of the audit trail", value=written)
        paused = int(pause.is_on())
        yield GaugeMetricFamily("mxfleet_paused", "1 while nothing new is begun, see readyz", value=paused)
        gaps = len(pause.unacknowledged())
        yield GaugeMetricFamily("mxfleet_audit_gaps", "chains that lack entries, not acknowledged", value=gaps)
        workers = Counts(("queue",), {(queue,): alive for queue, alive in sorted(liveness.workers().items())})
        yield _gauge("mxfleet_workers", "workers that said within 30 s that they live, 0 where one lacks", workers)


@dataclass(frozen=True, slots=True)
class Counts:
    """How many there are of each: label values -> number."""

    labels: tuple[str, ...]
    rows: dict[tuple[str, ...], int]


def _counts(found: QuerySet[Any], *columns: str) -> Counts:
    rows = found.order_by().values_list(*columns).annotate(Count("pk"))
    return Counts(columns, {tuple(map(str, values)): count for *values, count in rows})


def _gauge(name: str, text: str, counts: Counts) -> Metric:
    family = GaugeMetricFamily(name, text, labels=counts.labels)
    for values, count in counts.rows.items():
        family.add_metric(values, count)
    return family


def _age() -> Metric:
    waiting = Job.objects.filter(state__in=[JobState.QUEUED, JobState.PLANNING])
    oldest = waiting.aggregate(oldest=Min("created_at"))["oldest"]
    age = (db_now() - oldest).total_seconds() if oldest else 0.0
    return GaugeMetricFamily("mxfleet_oldest_waiting_job_seconds", "age of the oldest job not begun", value=age)


def scrape() -> bytes:
    """All of it, in Prometheus' text format."""
    registry = CollectorRegistry()
    registry.register(Fleet())
    return bytes(generate_latest(registry))


SCRAPED = Cached(scrape, SECONDS)
"""This process's."""
