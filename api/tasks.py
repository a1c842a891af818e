"""Celery tasks: fetch and call, nothing else."""

from celery import shared_task

from api import idempotency
from jobs.restore import watch


@shared_task
def forget_answers() -> None:
    """What is done once a minute, unless the service is paused: delete answers that are kept no longer."""
    if not watch.is_paused():
        idempotency.forget()
