"""What must happen though nobody requests it: wake again, expire, find lost workers, catch blocks up."""

from collections.abc import Iterable
from datetime import datetime, timedelta
from typing import Any
from uuid import UUID

from django.conf import settings
from django.db import transaction
from django.db.models import Case, F, Q, QuerySet, Value, When
from django.db.models.functions import Least

from fleet.inventory import TargetError, resolve
from fleet.models import Customer, Host, Instance
from fleet.ssh.gate import Lane
from jobs import blocklist, queues, wakeup
from jobs.actor import Actor
from jobs.administration.accounts import SYSTEM
from jobs.apart import apart
from jobs.audit import trail
from jobs.clock import db_now
from jobs.lifecycle import orphans, reconcile, replacing, resume, transition
from jobs.lifecycle.end import stop
from jobs.lifecycle.submit import queue_of_host, run_for, write
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
from jobs.restore import watch
from jobs.rules.state import JobState, RunState

BATCH = 500
LONGEST_PAUSE = timedelta(minutes=2)


def sweep() -> None:
    """One round: what is due now is done, or the queues are woken whose workers can do it.

    While the service is paused only what was sent is looked after.
    """
    now = db_now()
    apart(reconcile.lose, now)
    if apart(watch.is_paused) is not False:
        apart(resume.doubt)
    else:
        for duty in (expire_jobs, wake_again, expire_blocks, extend_blocks):
            apart(duty, now)
    looked_for: set[str] = set()
    for find in (_of_unknown, _of_behind, replacing.queues, orphans.queues):
        looked_for |= apart(find, now) or set()
    for queue in sorted(looked_for):
        wakeup.wake(queue, Lane.LOOK)


def _of_unknown(now: datetime) -> set[str]:
    """The queues of runs whose outcome is to be read back."""
    unknown = Run.objects.filter(state=RunState.UNKNOWN, reconcile_at__lte=now)
    return {queue for queue, _ in queues.queues_of(unknown)}


def _of_behind(now: datetime) -> set[str]:
    """The queues of hosts that blocks are to be caught up on."""
    hosts = _behind(now).values_list("instance__host__name", "instance__host__site").distinct().order_by()
    return {queue_of_host(name, site) for name, site in hosts}


WAITING = (JobState.AWAITING_APPROVAL, JobState.QUEUED)


def expire_jobs(now: datetime) -> None:
    """Nobody decided in time, or it was not begun in time."""
    for pk in Job.objects.filter(state__in=WAITING, expires_at__lte=now).values_list("pk", flat=True):
        apart(_expire_job, pk, now)


def _expire_job(pk: UUID, now: datetime) -> None:
    """If it is still late: who decided in the last moment has given it another deadline."""
    with transaction.atomic():
        late = Job.objects.filter(pk=pk, state__in=WAITING, expires_at__lte=now)
        for job in late.select_for_update(no_key=True):
            stop(job, JobState.EXPIRED)


def wake_again(now: datetime) -> None:
    """Wake workers for runs which nobody took: a wakeup was lost, or they wait. Once a queue, ever less often."""
    due = Job.objects.filter(state__in=queues.MAY_BEGIN, wake_at__lte=now)
    late = Run.objects.filter(state=RunState.PENDING, job__in=due.values("pk"))
    waited_for = queues.queues_of(late)
    pauses = [When(wakeups=wakeups, then=Value(now + queues.PATIENCE * 2 ** (wakeups + 1))) for wakeups in range(3)]
    # What has waited for long is asked for at full minutes, all of it together.
    minute = now.replace(second=0, microsecond=0) + LONGEST_PAUSE
    due.update(wake_at=Case(*pauses, default=Value(minute)), wakeups=Least(F("wakeups") + 1, 3))
    for queue, lane in sorted(waited_for):
        wakeup.wake(queue, lane)


def system(on_behalf_of: str = "") -> Actor:
    """The account in whose name the schedule acts. `on_behalf_of`: who had requested what it does now, by username."""
    account, _ = Account.objects.get_or_create(
        username=SYSTEM, defaults={"name": "mxfleet's own schedule", "kind": AccountKind.SERVICE}
    )
    return Actor(account, channel="schedule", on_behalf_of=on_behalf_of)


def behind(now: datetime, queue: str) -> list[BlockInstance]:
    """Instances of this Celery queue's hosts that have not got a block, or still have one that is not wanted.

    Only those that are due, and for which no job is open.
    """
    waiting = _behind(now).values_list("pk", "instance__host__name", "instance__host__site")
    rows = [pk for pk, name, site in waiting if queue_of_host(name, site) == queue][:BATCH]
    related = ("block", "instance__host__credential__customer", "instance__host__jump_host__credential__customer")
    return list(BlockInstance.objects.filter(pk__in=rows).select_related(*related))


def _behind(now: datetime) -> QuerySet[BlockInstance]:
    return _unattended().filter(next_try_at__lte=now)


def _unattended() -> QuerySet[BlockInstance]:
    """Rows that something is left to do for, and that no job is on its way to."""
    return BlockInstance.objects.filter(
        Q(attempt=None) | Q(attempt__finished_at__isnull=False),
        state__in=(BlockState.PENDING, BlockState.REMOVING, BlockState.FAILED, BlockState.APPLIED),
        next_try_at__isnull=False,
        instance__enabled=True,
        instance__host__enabled=True,
        instance__host__customer__enabled=True,
    )


def put_off(rows: Iterable[BlockInstance], now: datetime) -> list[BlockInstance]:
    """Look at them again after the reconcile interval. Returns those that nobody else has put off meanwhile."""
    later = now + timedelta(seconds=settings.ENV.reconcile_interval)
    return [
        row
        for row in rows
        if BlockInstance.objects.filter(pk=row.pk, next_try_at=row.next_try_at).update(next_try_at=later)
    ]


def catch_up(rows: Iterable[BlockInstance]) -> list[Job]:
    """Jobs of channel `schedule` that bring instances, whose hosts answer again, to what is wanted."""
    by_block: dict[Block, list[BlockInstance]] = {}
    # As they are now: asking the hosts may have taken a minute.
    fresh = (
        _unattended()
        .filter(pk__in=[row.pk for row in rows])
        .select_related("block__owner", "block__ended_by__requested_by", "instance__host")
    )
    for row in blocklist.yield_to_others(fresh, db_now()):
        by_block.setdefault(row.block, []).append(row)
    return [_catch_up(block, behind) for block, behind in by_block.items()]


def _catch_up(block: Block, rows: list[BlockInstance]) -> Job:
    """One job for the rows, which says in each of them that it is under way. `block` as it is wanted right now."""
    wanted = block.is_wanted
    params: dict[str, Any] = {"pattern": block.pattern}
    if wanted:
        params |= {"action": block.action, "code": block.code, "enhanced": block.enhanced, "text": block.text}
    job = Job(
        operation="sender.block" if wanted else "sender.unblock",
        params=params,
        reason=f"catching up with block {block.pk}: {block.reason}"[:2000],
        ticket=block.ticket,
    )
    with transaction.atomic():
        scheduled(job, [row.instance for row in rows], _who_wants(block).username)
        BlockInstance.objects.filter(pk__in=[row.pk for row in rows]).update(attempt=job)
    return job


def _who_wants(block: Block) -> Account:
    """Who wanted the block, or ended it before its time."""
    if block.is_wanted or block.ended_by is None:
        return block.owner
    return block.ended_by.requested_by


def scheduled(job: Job, instances: Iterable[Instance], on_behalf_of: str = "") -> Job:
    """Submit a job of our own on instances, for a person or for none."""
    chosen = list(instances)
    job.is_changing = True
    job.target = {"instances": [str(instance) for instance in chosen]}
    runs = [run_for(instance.host, instance) for instance in chosen]
    return write(system(on_behalf_of), job, runs, {instance.host.customer_id for instance in chosen})


def expire_blocks(now: datetime) -> None:
    """Blocks that have come to their end are no longer wanted; the catch-up takes their lines away."""
    for block in Block.objects.filter(is_wanted=True, expires_at__lte=now):
        apart(_expire_block, block, now)


def _expire_block(block: Block, now: datetime) -> None:
    with transaction.atomic():
        trail.lock_chains(transition.chains_of(block.job))  # before the rows, as everybody else
        if Block.objects.filter(pk=block.pk, is_wanted=True).update(is_wanted=False, ended_at=now):
            block.instances.update(state=BlockState.REMOVING, next_try_at=now, changed_at=now)
            transition.record(block.job, "block.expired", None, {"block": str(block.pk), "pattern": block.pattern})


def extend_blocks(now: datetime) -> None:
    """Instances that joined a block's target after it was made get it too."""
    for block in Block.objects.filter(is_wanted=True).prefetch_related("customers"):
        apart(_extend_block, block, now)


def _extend_block(block: Block, now: datetime) -> None:
    mine = Customer.objects.filter(pk__in=[customer.pk for customer in block.customers.all()])
    try:
        choice = resolve(block.target, mine, of_hosts=False)
    except TargetError:
        return
    known = set(block.instances.values_list("instance_id", flat=True))
    rows = [
        BlockInstance(block=block, instance=instance, next_try_at=now, changed_at=now)
        for instance in choice.instances
        if instance.pk not in known
    ]
    BlockInstance.objects.bulk_create(rows, BATCH, ignore_conflicts=True)


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
