"""Celery tasks: fetch and call, nothing else. The database says what there is to do."""

from typing import Any

from celery import Task, shared_task

from jobs.apart import apart
from jobs.audit import trail
from jobs.lifecycle import retention, tally
from jobs.lifecycle import sweep as sweeping
from jobs.lifecycle.orphans import enroll
from jobs.restore import watch
from jobs.worker import liveness, runner


@shared_task(bind=True)
def work(self: "Task[Any, Any]", lane: str, queue: str) -> None:
    """Carry out what waits in a lane of this queue. Another worker's queue is none of ours, whatever a message says."""
    if queue in self.app.amqp.queues.consume_from:
        runner.work(lane, queue)


@shared_task
def sweep() -> None:
    """One round of what must happen though nobody requests it."""
    if apart(watch.check):
        apart(liveness.renew, liveness.SCHEDULER, liveness.SCHEDULER)
    sweeping.sweep()


@shared_task
def housekeep() -> None:
    """What is done once a minute: erase what was kept long enough, forget, plan first looks, sum up, sign the chains.

    While the service is paused nothing is erased or forgotten.
    """
    if apart(watch.is_paused) is False:
        apart(sweeping.expire_quarantine)
        apart(retention.apply)
    apart(enroll)
    apart(tally.fold)
    apart(trail.checkpoint)
