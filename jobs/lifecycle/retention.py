"""What is old goes, in small batches: events of jobs, then the results and output of their runs, then the jobs.

Never the audit trail, nor a decision with its job. Nothing goes that something open needs: a block and the jobs that
made or ended it, messages that lie in quarantine or that we hold, an undo or a comparison on its way, an outcome that
nobody knows.
"""

import logging
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterable
from datetime import datetime, timedelta
from typing import Any
from uuid import UUID

from django.conf import settings
from django.db import transaction
from django.db.models import Exists, Model, OuterRef, Q, QuerySet

from jobs import selectors
from jobs.apart import apart
from jobs.clock import db_now
from jobs.models import (
    OPEN_RUNS,
    Approval,
    Block,
    FrozenPlan,
    HostLease,
    Job,
    JobEvent,
    Message,
    QuarantineItem,
    QuarantineState,
    Run,
    Thinned,
    WorkerLiveness,
)
from jobs.rules.state import RunState

JOBS = 100
"""Jobs of one batch."""
ROWS = 500
"""Rows of one DELETE."""
BUDGET = 4.0
"""Seconds of each step in one round: its thread has other work, and what is left waits for the next minute."""
LIVENESS_KEPT = timedelta(days=1)

log = logging.getLogger(__name__)
_round = threading.Lock()


def apply() -> None:
    """One round, never two at once in a process."""
    if not _round.acquire(blocking=False):
        return
    try:
        now = db_now()
        keep = settings.ENV.keep
        WorkerLiveness.objects.filter(at__lt=now - LIVENESS_KEPT).delete()
        for kept, step in ((keep.events, _forget_events), (keep.details, _thin), (keep.jobs, _forget)):
            apart(_in_batches, step, now - timedelta(seconds=kept))
    finally:
        _round.release()


def _in_batches(step: Callable[[datetime], int], before: datetime) -> None:
    """As long as a step finds a whole batch and there is time."""
    until = time.monotonic() + BUDGET
    while time.monotonic() < until and step(before) == JOBS:
        continue


def _forget_events(before: datetime) -> int:
    """Events that tell of jobs which ended before that. Returns the number of jobs."""
    jobs = list(_ended(before, Thinned.NOTHING).values_list("pk", flat=True)[:JOBS])
    _delete(JobEvent.objects.filter(job__in=jobs))
    return Job.objects.filter(pk__in=jobs).update(thinned=Thinned.EVENTS)


def _thin(before: datetime) -> int:
    """The results and output of runs, and the messages that they named, but for those that we hold."""
    jobs = list(_ended(before, Thinned.EVENTS).filter(*_nothing_open()).values_list("pk", flat=True)[:JOBS])
    for job in jobs:
        _thin_job(job)
    return len(jobs)


def _nothing_open() -> tuple[Q, ...]:
    kept = QuarantineItem.objects.filter(job=OuterRef("pk"), state=QuarantineState.KEPT)
    undos = Job.objects.filter(Q(undo_of=OuterRef("pk")) | Q(drift_of=OuterRef("pk")), finished_at=None)
    runs = Run.objects.filter(OPEN_RUNS | Q(state=RunState.UNKNOWN), job=OuterRef("pk"))
    return Q(~Exists(kept)), Q(~Exists(undos)), Q(~Exists(runs))


def _thin_job(pk: UUID) -> None:
    """First its totals are written: from then on no undo relies on its messages. What breaks off is repeated."""
    with transaction.atomic():
        job = Job.objects.select_for_update(no_key=True).filter(*_nothing_open(), pk=pk).first()
        if job is None:
            return
        if job.totals is None:
            gone = selectors.gone_messages([pk]).get(pk, Counter())
            Job.objects.filter(pk=pk).update(totals={**gone, "instances": selectors.planned_runs([pk])[pk]})
    _delete(Message.objects.filter(run__job=pk, is_held_by_us=False))
    _delete(FrozenPlan.objects.filter(job=pk))
    nothing: dict[str, Any] = {"plan": None, "result": None, "commands": [], "before": None, "after": None}
    with transaction.atomic():
        Run.objects.filter(job=pk).update(**nothing)
        Job.objects.filter(pk=pk).update(thinned=Thinned.DETAILS)


def _forget(before: datetime) -> int:
    """Jobs of which nothing else is left, with their runs and what is no longer in quarantine of them."""
    kept = QuarantineItem.objects.filter(job=OuterRef("pk"), state=QuarantineState.KEPT)
    blocks = Block.objects.filter(Q(job=OuterRef("pk")) | Q(ended_by=OuterRef("pk")))
    pk = OuterRef("pk")
    others = Job.objects.filter(Q(undo_of=pk) | Q(retry_of=pk) | Q(drift_of=pk))
    needed: Iterable[QuerySet[Any]] = (
        kept,
        blocks,
        others,
        Message.objects.filter(run__job=OuterRef("pk")),
        Approval.objects.filter(job=OuterRef("pk")),
        HostLease.objects.filter(job=OuterRef("pk")),
    )
    ended = _ended(before, Thinned.DETAILS).filter(*(~Exists(rows) for rows in needed))
    jobs = list(ended.values_list("pk", flat=True)[:JOBS])
    _delete(QuarantineItem.objects.filter(job__in=jobs).exclude(state=QuarantineState.KEPT))
    Job.objects.filter(pk__in=jobs).delete()
    if jobs:
        log.info("%d jobs are kept no longer", len(jobs))
    return len(jobs)


def _ended(before: datetime, thinned: Thinned) -> QuerySet[Job]:
    """Jobs that ended before that, of which so much is gone; the oldest first."""
    return Job.objects.filter(thinned=thinned, finished_at__lt=before).order_by("finished_at")


def _delete(rows: QuerySet[Any]) -> None:
    """So few at a time that nobody waits long for what a DELETE has locked."""
    model: type[Model] = rows.model
    while ids := list(rows.order_by().values_list("pk", flat=True)[:ROWS]):
        model._default_manager.filter(pk__in=ids).delete()
