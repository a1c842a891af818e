"""Celery tasks: fetch and call, nothing else."""

from celery import shared_task

from api import idempotency


@shared_task
def forget_answers() -> None:
    """What is done once a minute: delete answers that are kept no longer."""
    idempotency.forget()
