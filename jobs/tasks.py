"""Celery tasks: fetch and call, nothing else. The database says what there is to do."""

from celery import current_app, shared_task

from jobs import audit, runner
from jobs.services import sweep as sweeping


@shared_task
def work(job_id: str, queue: str) -> None:
    """Carry out what of a job waits for this queue."""
    runner.work(job_id, queue)


@shared_task
def look(queue: str) -> None:
    """Read back unknown outcomes, and catch up blocks, on the hosts of this queue."""
    runner.read_back(queue)
    runner.catch_up(queue)


@shared_task
def sweep() -> None:
    """One round of what must happen though nobody asked."""
    for queue in sweeping.sweep():
        current_app.send_task("jobs.tasks.look", args=[queue], queue=queue, expires=10)


@shared_task
def housekeep() -> None:
    """What is done once a minute: checkpoint the audit chains, erase what has been kept long enough."""
    audit.checkpoint()
    sweeping.expire_quarantine()
