"""Wake workers' queues after the commit: "look at your queue". Lost or doubled wakeups change nothing."""

import re
from collections.abc import Collection, Iterable
from datetime import timedelta
from functools import partial

from django.conf import settings
from django.db import transaction
from django.db.models import F, QuerySet
from django.db.models.functions import Mod

from fleet.ssh.gate import Lane
from jobs import wakeup
from jobs.models import Job, Run
from jobs.rules.state import JobState, RunState

MAY_BEGIN = (JobState.PLANNING, JobState.QUEUED, JobState.RUNNING)
PATIENCE = timedelta(seconds=5)
"""How long a wakeup may take until the sweep sends another one."""
QUEUE = re.compile(r"ssh\.(?:(?P<site>[^\0]{1,63})\.)?(?P<shard>[0-9]{1,4})", re.ASCII)


def queue_of(run: Run) -> str:
    """The Celery queue whose worker keeps the connection to this run's host."""
    return queue_name(run.site, run.slot % settings.ENV.shards)


def queue_name(site: str, shard: int) -> str:
    return f"ssh.{site}.{shard}" if site else f"ssh.{shard}"


def on_queue(runs: QuerySet[Run], queue: str) -> QuerySet[Run]:
    """Those of the runs whose hosts belong to the worker of this Celery queue (`ssh.SHARD` or `ssh.SITE.SHARD`)."""
    found = QUEUE.fullmatch(queue)
    if found is None:
        return runs.none()
    return runs.annotate(shard=_shard()).filter(site=found["site"] or "", shard=int(found["shard"]))


def _shard() -> Mod:
    return Mod(F("slot"), settings.ENV.shards)


def lane_of(is_changing: bool) -> Lane:
    """The lane in which a job's runs are carried out."""
    return Lane.CHANGE if is_changing else Lane.READ


def wake_on_commit(job: Job, runs: Iterable[Run]) -> None:
    """Wake every queue that has a pending run of the job, once the transaction is committed."""
    queues = {queue_of(run) for run in runs if run.state == RunState.PENDING}
    _on_commit(queues, lane_of(job.is_changing))


def wake_for_waiting(hosts: Collection[int]) -> None:
    """Wake queues for the changing jobs that wait for one of these hosts, once the transaction is committed."""
    waiting = Run.objects.filter(
        host__in=hosts, state=RunState.PENDING, job__is_changing=True, job__state__in=MAY_BEGIN
    )
    _on_commit({name for name, _ in queues_of(waiting)}, Lane.CHANGE)


def queues_of(runs: QuerySet[Run]) -> set[tuple[str, Lane]]:
    """(queue, lane) of these runs, by one query."""
    rows = runs.annotate(shard=_shard()).order_by().values("site", "shard", "job__is_changing").distinct()
    # SQLite's mod() gives a float.
    return {(queue_name(row["site"], int(row["shard"])), lane_of(row["job__is_changing"])) for row in rows}


def _on_commit(queues: Iterable[str], lane: Lane) -> None:
    for queue in sorted(queues):
        transaction.on_commit(partial(wakeup.wake, queue, lane))
