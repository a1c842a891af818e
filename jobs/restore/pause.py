"""The service is paused: nothing new is begun, nothing expires, is erased or caught up, until an administrator lets go.

Reading back what was sent goes on, and with it starting what we left down on a host.
"""

import logging
import socket
from collections.abc import Sequence
from typing import Any

from django.db import transaction
from django.db.models import Count, QuerySet

from jobs.audit import trail
from jobs.audit.marks import Lost, is_acknowledged
from jobs.clock import db_now
from jobs.errors import Unavailable
from jobs.models import Block, BlockInstance, BlockState, Job, Pause, QuarantineItem, QuarantineState, Run
from jobs.rules.state import JobState, RunState

ONLY = 1
"""The row's id: there is one or none."""
READY = (JobState.QUEUED, JobState.RUNNING)

log = logging.getLogger(__name__)


def is_on() -> bool:
    """Whether the service is paused."""
    return Pause.objects.exists()


def status() -> str:
    """Since when and why it is paused; empty when it is not."""
    row = Pause.objects.first()
    return f"paused since {row.since:%Y-%m-%dT%H:%M:%SZ}: {row.reason}" if row else ""


def details() -> list[str]:
    """What was found when it was paused, what there is now, and what is missing: for an administrator."""
    row = Pause.objects.first()
    then = [f"found then: {_in_words(row.found)}"] if row else []
    return [*then, f"now: {_in_words(census())}", *(f"not acknowledged: {each}" for each in unacknowledged())]


def refuse() -> None:
    """Raises Unavailable (`paused`) while the service is paused: what cannot begin soon is not taken."""
    if is_on():
        raise Unavailable("paused", "the service is paused and takes no jobs until an administrator lets it go on")


def machine() -> str:
    """This machine's name in what it reports."""
    return socket.gethostname()


def begin(reason: str, lost: Sequence[Lost] = ()) -> None:
    """Pause the service, or add to a pause what this machine misses. What was reported before stays reported.

    Machines may share a name, and the containers of one machine have several: nothing hangs on it.
    """
    mine = [list(each[:3]) for each in lost]
    row = Pause.objects.filter(pk=ONLY).first()
    if row and not _added(row, mine):
        return
    with transaction.atomic():
        found = census()
        defaults = {"since": db_now(), "reason": reason, "found": found}
        row, is_new = Pause.objects.select_for_update().get_or_create(pk=ONLY, defaults=defaults)
        row.lost[machine()] = [*row.lost.get(machine(), []), *_added(row, mine)]
        row.save(update_fields=["lost"])
        if is_new:
            data = {"reason": reason, "lost": [str(each) for each in lost], "found": found}
            trail.append(trail.Entry("", "service.paused", None, object=machine(), data=data))
    if is_new:
        log.critical("the service is paused: %s; found %s", reason, _in_words(found))


def _added(row: Pause, mine: list[list[Any]]) -> list[list[Any]]:
    known = row.lost.get(machine(), [])
    return [each for each in mine if each not in known]


def census() -> dict[str, Any]:
    """What there is, for who has to decide: open jobs by state, runs that may be at work, blocks, quarantine."""
    open_jobs = Job.objects.exclude(state__in=JobState.final()).order_by()
    sent = Run.objects.filter(dispatched_at__isnull=False, state__in=(RunState.RUNNING, RunState.UNKNOWN))
    behind = BlockInstance.objects.filter(state__in=(BlockState.PENDING, BlockState.REMOVING, BlockState.FAILED))
    return {
        "jobs": dict(open_jobs.values_list("state").annotate(Count("pk"))),
        "runs_dispatched": sent.count(),
        "runs_waiting": waiting(Run.objects.all()).count(),
        "blocks_wanted": Block.objects.filter(is_wanted=True).count(),
        "blocks_behind": behind.count(),
        "messages_in_quarantine": QuarantineItem.objects.filter(state=QuarantineState.KEPT).count(),
    }


def _in_words(found: dict[str, Any]) -> str:
    jobs = ", ".join(f"{count} {state}" for state, count in sorted(found["jobs"].items())) or "none open"
    rest = ", ".join(f"{name.replace('_', ' ')} {count}" for name, count in found.items() if name != "jobs")
    return f"jobs: {jobs}; {rest}"


def waiting(runs: QuerySet[Run]) -> QuerySet[Run]:
    """Those of the runs that are planned and approved, and have not begun as far as the database knows."""
    return runs.filter(job__is_changing=True, job__state__in=READY, state=RunState.PENDING, is_planning=False)


def unacknowledged() -> list[Lost]:
    """The losses that machines have reported and nobody has acknowledged."""
    row = Pause.objects.first()
    reported = {tuple(each) for losses in (row.lost if row else {}).values() for each in losses}
    losses = [Lost(chain, seq, hash, f"entry {seq} is missing") for chain, seq, hash in sorted(reported)]
    return [each for each in losses if not is_acknowledged(each)]
