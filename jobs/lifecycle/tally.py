"""Counting what ends, in the transaction that ends it, so that a count neither lacks what was done nor tells more.

Each event is a row of its own, which waits for no other transaction; once a minute equal ones become one row. Nothing
that retention does makes a sum smaller.
"""

from collections import Counter
from collections.abc import Iterable, Mapping
from datetime import datetime

from django.db import transaction

from jobs.models import Job, QuarantineState, Tally, TallyKind
from jobs.rules.state import JobState

BOUNDS = (1, 2, 5, 15, 30, 60, 120, 300, 900, 3600)
"""Seconds of a job's work: an answer at once, a command's deadline, one host after the other."""
INFINITE = "+Inf"
BATCH = 5_000
"""Rows that become fewer in one transaction; some 2,000 different ones are possible."""


def job_ended(job: Job, state: JobState, now: datetime) -> None:
    """Count the end of a job, which was begun at `job.started_at` if ever."""
    seconds = max((now - job.started_at).total_seconds(), 0.0) if job.started_at else 0.0
    within = _bound(seconds) if job.started_at else ""
    Tally.objects.create(kind=TallyKind.JOB, operation=job.operation, end=state, within=within, seconds=seconds)


def runs_failed(codes: Iterable[str]) -> None:
    """Count errors that workers reported of runs, and of looks at unknown ones, by code."""
    _count(TallyKind.RUN_ERROR, Counter(codes))


def left_quarantine(state: QuarantineState, messages: int) -> None:
    """Count messages that are in quarantine no more."""
    _count(TallyKind.QUARANTINE, {state: messages} if messages else {})


def _count(kind: TallyKind, ends: Mapping[str, int]) -> None:
    Tally.objects.bulk_create(Tally(kind=kind, end=end, count=count) for end, count in ends.items())


def _bound(seconds: float) -> str:
    return next((str(bound) for bound in BOUNDS if seconds <= bound), INFINITE)


def fold() -> None:
    """Make one row of those that tell of the same. Whoever reads sees all of the old rows or all of the new ones."""
    with transaction.atomic():
        rows = list(Tally.objects.select_for_update(skip_locked=True).order_by("pk")[:BATCH])
        sums: dict[tuple[str, ...], Tally] = {}
        for row in rows:
            known = sums.setdefault((row.kind, row.operation, row.end, row.within), row)
            if known is not row:
                known.count += row.count
                known.seconds += row.seconds
        if len(sums) < len(rows):
            Tally.objects.filter(pk__in=[row.pk for row in rows]).delete()
            for row in sums.values():
                row.pk = None
            Tally.objects.bulk_create(sums.values())
