"""Ring for a job after the commit. The bell only says "look at job X"; lost or doubled rings change nothing."""

from collections.abc import Iterable
from functools import partial

from django.conf import settings
from django.db import transaction

from jobs import doorbell
from jobs.models import Job, Run
from jobs.state import RunState


def queue_of(run: Run) -> str:
    """The Celery queue whose worker keeps the connection to this run's host."""
    shard = run.slot % settings.ENV.shards
    return f"ssh.{run.site}.{shard}" if run.site else f"ssh.{shard}"


def ring_on_commit(job: Job, runs: Iterable[Run]) -> None:
    """Ring at every queue that has a pending run of the job, once the transaction is committed."""
    queues = sorted({queue_of(run) for run in runs if run.state == RunState.PENDING})
    for queue in queues:
        transaction.on_commit(partial(doorbell.ring, queue, str(job.pk)))
