"""A host that is called otherwise from now on: stored targets go on to mean the same host.

Frozen plans, their digests and the audit trail keep the name that they were made with.
"""

from typing import TypeVar

from django.db.models import Q, TextField
from django.db.models.functions import Cast

from fleet.inventory import with_host_renamed
from jobs.audit import trail
from jobs.models import Block, Job
from jobs.rows import BATCH

M = TypeVar("M", Job, Block)


def follow(customer: str, old: str, new: str) -> None:
    """Name the host of that customer anew in the targets of jobs and blocks; within the transaction that renames it.

    Ended jobs too, since they can be retried. Raises OperationalError while somebody else changes one of the jobs, who
    may wait for the host.
    """
    _follow(Job, old, new)
    trail.lock_chains({customer})  # before the rows of blocks, as everybody else
    _follow(Block, old, new)


def _follow(model: type[M], old: str, new: str) -> None:
    rows = model.objects
    naming = Q(written__contains=f'"{old}"') | Q(written__contains=f'"{old}/')
    keys = list(rows.annotate(written=Cast("target", TextField())).filter(naming).values_list("pk", flat=True))
    for start in range(0, len(keys), BATCH):
        batch = list(rows.select_for_update(no_key=True, nowait=True).filter(pk__in=keys[start : start + BATCH]))
        for row in batch:
            row.target = with_host_renamed(row.target, old, new)
        rows.bulk_update(batch, ["target"])
