"""A Prometheus collector that reads the database."""

from collections.abc import Iterator
from datetime import timedelta
from typing import Any

from django.db.models import Count, Min, Model, Sum
from prometheus_client.core import GaugeMetricFamily
from prometheus_client.metrics_core import Metric
from prometheus_client.registry import Collector

from fleet.models import Host, QuarantineLook
from jobs.clock import db_now
from jobs.models import AuditChain, Job, Run, WorkerBeat
from jobs.services import pause
from jobs.state import JobState, RunState

ALIVE = timedelta(seconds=30)


class Fleet(Collector):
    """Jobs, runs, hosts, audit entries and workers."""

    def collect(self) -> Iterator[Metric]:
        yield _counted(Job, "mxfleet_jobs", "jobs by operation and state", ["operation", "state"])
        yield _counted(Run, "mxfleet_runs", "runs by state", ["state"])
        yield _counted(Host, "mxfleet_hosts", "hosts by status", ["status"])
        unknown = Run.objects.filter(state=RunState.UNKNOWN).count()
        yield GaugeMetricFamily("mxfleet_runs_unknown", "runs whose outcome is not known", value=unknown)
        lying = QuarantineLook.objects.aggregate(total=Sum("orphans"))["total"] or 0
        yield GaugeMetricFamily("mxfleet_quarantine_orphans", "messages in quarantines without a row", value=lying)
        yield _age()
        written = AuditChain.objects.aggregate(total=Sum("seq"))["total"] or 0
        yield GaugeMetricFamily("mxfleet_audit_events", "entries of the audit trail", value=written)
        paused = int(pause.is_on())
        yield GaugeMetricFamily("mxfleet_paused", "1 while nothing new is begun, see readyz", value=paused)
        gaps = len(pause.unacknowledged())
        yield GaugeMetricFamily("mxfleet_audit_gaps", "chains that lack entries, not acknowledged", value=gaps)
        alive = WorkerBeat.objects.filter(at__gt=db_now() - ALIVE).count()
        yield GaugeMetricFamily("mxfleet_workers", "workers that said within 30 s that they live", value=alive)


def _counted(model: type[Model], name: str, text: str, columns: list[str]) -> Metric:
    family = GaugeMetricFamily(name, text, labels=columns)
    rows: Any = model._default_manager.order_by().values_list(*columns).annotate(n=Count("pk"))
    for *values, count in rows:
        family.add_metric([str(value) for value in values], count)
    return family


def _age() -> Metric:
    waiting = Job.objects.filter(state__in=[JobState.QUEUED, JobState.PLANNING])
    oldest = waiting.aggregate(oldest=Min("created_at"))["oldest"]
    age = (db_now() - oldest).total_seconds() if oldest else 0.0
    return GaugeMetricFamily("mxfleet_oldest_waiting_job_seconds", "age of the oldest job not begun", value=age)
