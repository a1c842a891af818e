"""Celery tasks: fetch and call, nothing else. The database says what there is to do."""

from celery import shared_task

from jobs import audit, runner
from jobs.services import sweep as sweeping
from jobs.services.orphans import enroll


@shared_task
def work(lane: str, queue: str) -> None:
    """Carry out what waits in a lane of this queue."""
    runner.work(lane, queue)


@shared_task
def sweep() -> None:
    """One round of what must happen though nobody asked."""
    sweeping.sweep()


@shared_task
def housekeep() -> None:
    """What is done once a minute: checkpoint the audit chains, erase what was kept long enough, plan first looks."""
    audit.checkpoint()
    sweeping.expire_quarantine()
    enroll()
