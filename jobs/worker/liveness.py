"""Workers say that they live, so that readiness and metrics can tell which queue has nobody to serve it."""

from django.conf import settings
from django.db.models import Count

from fleet.models import Host
from jobs.clock import db_now
from jobs.lifecycle.submit import queue_of_host
from jobs.models import Job, Run, WorkerLiveness
from jobs.queues import queue_name
from jobs.restore import watch
from jobs.rules.state import RunState
from jobs.wakeup import CONTROL

SECONDS = 10
"""How often a worker should call `renew`."""
SCHEDULER = "scheduler"
"""In place of a queue: the scheduler has none, and lives when what it asks for each two seconds is done."""


def renew(name: str, queue: str) -> None:
    """The worker process of that name lives now, and can carry out what comes to its queue.

    Written only after a `watch.check` that could tell: without one nothing is begun there. Nor is it one of the others
    that know the database, beside whom a machine is trusted without a pause.
    """
    WorkerLiveness.objects.update_or_create(name=name, defaults={"queue": queue, "at": db_now()})


def workers() -> dict[str, int]:
    """{queue: how many workers of it live}, with 0 for a queue that should have one."""
    alive = WorkerLiveness.objects.filter(at__gt=db_now() - watch.ALIVE).exclude(queue="").order_by()
    return dict.fromkeys(_expected(), 0) | dict(alive.values_list("queue").annotate(Count("pk")))


def unserved_hosts(job: Job) -> list[str]:
    """The hosts that the job waits for, and whose queue has nobody to serve it now, such as those of a site without
    workers; for a job that nothing else keeps waiting."""
    silent = {queue for queue, alive in workers().items() if not alive}
    waiting = Run.objects.filter(job=job, state=RunState.PENDING).order_by().values_list("host__name", "host__site")
    return sorted(name for name, site in waiting.distinct() if silent and queue_of_host(name, site) in silent)


def _expected() -> list[str]:
    """The queues of the own site, and of every site at which an enabled host is."""
    hosts = Host.objects.filter(enabled=True, customer__enabled=True).order_by()
    sites = {settings.ENV.site, *hosts.values_list("site", flat=True).distinct()}
    return [CONTROL, SCHEDULER, *(queue_name(site, n) for site in sorted(sites) for n in range(settings.ENV.shards))]
