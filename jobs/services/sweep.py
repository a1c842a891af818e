"""What must happen though nobody asked: ring again, expire, find lost workers, catch blocks up."""

from collections.abc import Iterable
from datetime import datetime, timedelta
from typing import Any

from django.conf import settings
from django.db import transaction

from fleet.inventory import TargetError, resolve
from fleet.models import Customer, Host, Instance
from jobs import doorbell
from jobs.actor import Actor
from jobs.clock import db_now
from jobs.models import (
    Account,
    AccountKind,
    Block,
    BlockInstance,
    BlockState,
    Job,
    QuarantineItem,
    QuarantineState,
    Run,
)
from jobs.services import bell, blocks, moves, reconcile
from jobs.services.accounts import SYSTEM
from jobs.services.end import cancel_pending
from jobs.services.submit import run_for, write
from jobs.state import JobState, RunState

RING_AGAIN = timedelta(seconds=5)
BATCH = 500


def sweep() -> set[str]:
    """One round. Returns the Celery queues whose workers have unknown runs or blocks to look at."""
    now = db_now()
    reconcile.lose(now)
    expire_jobs(now)
    ring_again(now)
    expire_blocks(now)
    extend_blocks(now)
    unknown = Run.objects.filter(state=RunState.UNKNOWN, reconcile_at__lte=now)
    queues = {bell.queue_of(run) for run in unknown[:BATCH]}
    return queues | {bell.queue_of(run_for(row.instance.host, row.instance)) for row in behind(now)}


def expire_jobs(now: datetime) -> None:
    """Nobody decided in time, or it was not begun in time."""
    waiting = (JobState.AWAITING_APPROVAL, JobState.QUEUED)
    for job in Job.objects.filter(state__in=waiting, expires_at__lte=now):
        with transaction.atomic():
            if moves.move(job, JobState.EXPIRED):
                cancel_pending(job)


def ring_again(now: datetime) -> None:
    """Ring for jobs that have runs which nobody took: the ring was lost, or their host was busy with another job."""
    states = (JobState.PLANNING, JobState.QUEUED, JobState.RUNNING)
    jobs = Job.objects.filter(
        state__in=states, created_at__lt=now - RING_AGAIN, runs__state=RunState.PENDING
    ).distinct()
    for job in jobs[:BATCH]:
        for queue in {bell.queue_of(run) for run in job.runs.filter(state=RunState.PENDING)}:
            doorbell.ring(queue, str(job.pk))


def system() -> Actor:
    """The account in whose name the schedule acts."""
    account, _ = Account.objects.get_or_create(
        username=SYSTEM, defaults={"name": "mxfleet's own schedule", "kind": AccountKind.SERVICE}
    )
    return Actor(account, channel="schedule")


def behind(now: datetime) -> list[BlockInstance]:
    """Instances that have not got a block, or still have one that is not wanted, and are due to be looked at."""
    rows = BlockInstance.objects.filter(
        state__in=(BlockState.PENDING, BlockState.REMOVING),
        next_try_at__lte=now,
        instance__enabled=True,
        instance__host__enabled=True,
        instance__host__customer__enabled=True,
    )
    related = ("block", "instance__host__credential__customer", "instance__host__jump_host__credential__customer")
    return list(rows.select_related(*related)[:BATCH])


def put_off(rows: Iterable[BlockInstance], now: datetime) -> None:
    """Look at them again after the reconcile interval."""
    later = now + timedelta(seconds=settings.ENV.reconcile_interval)
    BlockInstance.objects.filter(pk__in=[row.pk for row in rows]).update(next_try_at=later)


def catch_up(rows: Iterable[BlockInstance]) -> list[Job]:
    """Jobs of channel `schedule` that bring instances, whose hosts answer again, to what is wanted."""
    by_block: dict[tuple[Block, bool], list[Instance]] = {}
    for row in blocks.yield_to_others(rows, db_now()):
        by_block.setdefault((row.block, row.block.is_wanted), []).append(row.instance)
    return [_catch_up(block, wanted, instances) for (block, wanted), instances in by_block.items()]


def _catch_up(block: Block, wanted: bool, instances: list[Instance]) -> Job:
    params: dict[str, Any] = {"pattern": block.pattern}
    if wanted:
        params |= {"action": block.action, "code": block.code, "enhanced": block.enhanced, "text": block.text}
    return scheduled(
        Job(
            operation="sender.block" if wanted else "sender.unblock",
            params=params,
            reason=f"catching up with block {block.pk}: {block.reason}"[:2000],
            ticket=block.ticket,
        ),
        instances,
    )


def scheduled(job: Job, instances: Iterable[Instance]) -> Job:
    """Submit a job of our own on instances."""
    chosen = list(instances)
    job.is_changing = True
    job.target = {"instances": [str(instance) for instance in chosen]}
    runs = [run_for(instance.host, instance) for instance in chosen]
    return write(system(), job, runs, {instance.host.customer_id for instance in chosen})


def expire_blocks(now: datetime) -> None:
    """Blocks that have come to their end are no longer wanted; the catch-up takes their lines away."""
    for block in Block.objects.filter(is_wanted=True, expires_at__lte=now):
        with transaction.atomic():
            if Block.objects.filter(pk=block.pk, is_wanted=True).update(is_wanted=False, ended_at=now):
                block.instances.update(state=BlockState.REMOVING, next_try_at=now, changed_at=now)
                moves.record(block.job, "block.expired", None, {"block": str(block.pk), "pattern": block.pattern})


def extend_blocks(now: datetime) -> None:
    """Instances that joined a block's target after it was made get it too."""
    for block in Block.objects.filter(is_wanted=True).prefetch_related("customers"):
        mine = Customer.objects.filter(pk__in=[customer.pk for customer in block.customers.all()])
        try:
            choice = resolve(block.target, mine, of_hosts=False)
        except TargetError:
            continue
        known = set(block.instances.values_list("instance_id", flat=True))
        rows = [
            BlockInstance(block=block, instance=instance, next_try_at=now, changed_at=now)
            for instance in choice.instances
            if instance.pk not in known
        ]
        BlockInstance.objects.bulk_create(rows, ignore_conflicts=True)


def expire_quarantine() -> list[Job]:
    """Erase the quarantined copies whose time is over, by jobs of our own, one for each instance."""
    due = QuarantineItem.objects.filter(
        state=QuarantineState.KEPT,
        expires_at__lte=db_now(),
        instance__enabled=True,
        instance__host__enabled=True,
        instance__host__customer__enabled=True,
    )
    jobs = []
    for pk in due.values_list("instance_id", flat=True).distinct()[:100]:
        if Job.objects.filter(operation="quarantine.erase", runs__instance=pk, finished_at=None).exists():
            continue
        ids = [str(item) for item in due.filter(instance=pk).values_list("pk", flat=True)[:10_000]]
        job = Job(operation="quarantine.erase", params={"ids": ids}, reason="the time they were to be kept is over")
        jobs.append(scheduled(job, Instance.objects.filter(pk=pk).select_related("host")))
    return jobs


def hosts_of(rows: Iterable[BlockInstance]) -> list[Host]:
    """The hosts of block rows, each once."""
    return list({row.instance.host_id: row.instance.host for row in rows}.values())
