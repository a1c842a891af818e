"""The wanted blocklist: what a job makes wanted or unwanted, and how far each instance has got."""

from collections.abc import Iterable
from datetime import datetime, timedelta
from typing import Any

from django.db.models import Q, QuerySet

from fleet.inventory import Choice
from fleet.models import Instance
from fleet.mta.operations import SenderBlock
from jobs.errors import Invalid
from jobs.models import OPEN_RUNS, Block, BlockInstance, BlockState, Job, Run
from jobs.operation import operation_for, pattern_of, requested
from jobs.rows import BATCH
from jobs.rules.state import RUN_ENDED, RunState

PAUSES = (60, 300, 1800, 7200, 43_200)
"""Seconds until what failed on a host is tried again, by how often it failed in a row; then always the last."""
HIS_LINE = timedelta(hours=1)
"""How long it is until a host is looked at again where a line of the administrator refuses the sender: when he takes it
away, ours is written."""


def check_scope(name: str, operation: Any, choice: Choice) -> None:
    """Refuse an unblock of fewer instances than the block covers: half a block would be what nobody requested.

    Instances of customers that are not targeted count too, but are not named: the requester may not know of them.
    """
    if name != "sender.unblock":
        return
    targeted = {instance.pk for instance in choice.instances}
    rows = BlockInstance.objects.filter(block__pattern=operation.pattern, block__is_wanted=True)
    covered = {row.block_id for row in rows if row.instance_id in targeted}
    outside = [row.instance_id for row in rows if row.block_id in covered and row.instance_id not in targeted]
    if outside:
        known = Instance.objects.filter(pk__in=outside, host__customer__in=choice.customers).select_related("host")
        named = sorted(str(instance) for instance in known)[:5] or ["hosts of other customers"]
        raise Invalid.field(
            "target", "scope_mismatch", f"the block also covers {', '.join(named)}; unblock the whole of it"
        )


def want(job: Job, now: datetime) -> None:
    """Record centrally what an approved job wants, before any instance is brought to it."""
    if job.operation == "sender.block":
        _want_blocked(job, now)
    elif job.operation == "sender.unblock":
        _want_unblocked(job, now)
    else:
        return
    # A host that was down while planning has no run to come: without this nobody would ever look at it again.
    settle(job.runs.filter(state__in=RUN_ENDED).select_related("job", "instance"), now, now)


def _want_blocked(job: Job, now: datetime) -> None:
    runs = list(job.runs.select_related("instance"))
    if job.channel == "schedule" or not runs:
        return
    for block in Block.objects.filter(ended_by=job.undo_of) if job.undo_of else [_block_for(job, runs[0], now)]:
        block.is_wanted, block.ended_at = True, None
        if job.undo_of:
            block.job = job
        block.save()
        rows = [BlockInstance(block=block, instance=run.instance, changed_at=now) for run in runs]
        BlockInstance.objects.bulk_create(rows, BATCH, ignore_conflicts=True)
        block.instances.filter(instance__in=[run.instance_id for run in runs]).update(
            state=BlockState.PENDING, next_try_at=None, changed_at=now
        )


def _block_for(job: Job, run: Run, now: datetime) -> Block:
    """The wanted block that the job makes, or changes because the same customers have it already."""
    operation = operation_for(job, run)
    if not isinstance(operation, SenderBlock):
        raise TypeError(f"{job.operation} is no block")
    block = _retried(job) or _same(job, operation.pattern)
    if block is None:
        block = Block(pattern=operation.pattern, target=job.target, owner=job.requested_by, created_at=now)
    if block.job_id is None or block.job_id != job.retry_of_id:
        block.job = job
    block.target = job.target
    fields = {
        "action": operation.action,
        "code": operation.code,
        "enhanced": operation.enhanced,
        "text": operation.text,
    }
    for name, value in fields.items():
        setattr(block, name, value)
    block.expires_at = requested(job).expires_at
    block.reason, block.ticket = job.reason, job.ticket
    block.save()
    block.customers.add(*job.customers.all())
    return block


def _retried(job: Job) -> Block | None:
    """The block of the job that this one retries: it goes on as it is, with all its customers."""
    return Block.objects.filter(job=job.retry_of, is_wanted=True).first() if job.retry_of_id else None


def _same(job: Job, pattern: str) -> Block | None:
    """The wanted block with this pattern and target of exactly these customers: `all` means others to others."""
    mine = {customer.pk for customer in job.customers.all()}
    known = Block.objects.filter(pattern=pattern, target=job.target, is_wanted=True).prefetch_related("customers")
    return next((block for block in known if {customer.pk for customer in block.customers.all()} == mine), None)


def _want_unblocked(job: Job, now: datetime) -> None:
    """End the blocks. Where the job has no run, because the block grew meanwhile, the catch-up takes the line away."""
    if job.channel == "schedule":
        return
    for block in blocks_of(job):
        block.instances.update(state=BlockState.REMOVING, next_try_at=now, changed_at=now)
        block.instances.filter(instance__in=_instances(job)).update(next_try_at=None)
        block.is_wanted, block.ended_at, block.ended_by = False, now, job
        block.save(update_fields=["is_wanted", "ended_at", "ended_by"])


def blocks_of(job: Job) -> Iterable[Block]:
    """The wanted blocks that an unblocking job ends: never one that customers have whom the job does not concern."""
    mine = {customer.pk for customer in job.customers.all()}
    rows = _wanted_on(pattern_of(job), _instances(job)).prefetch_related("customers")
    return [block for block in rows if {customer.pk for customer in block.customers.all()} <= mine]


def _wanted_on(pattern: str, instances: Iterable[int]) -> QuerySet[Block]:
    ids = BlockInstance.objects.filter(instance__in=list(instances)).values("block")
    return Block.objects.filter(pattern=pattern, is_wanted=True, pk__in=ids)


def why_not_undo(job: Job) -> str | None:
    """Why undoing a job that blocks or unblocks would not put back what was before, or None."""
    if job.operation == "sender.unblock":
        return None if Block.objects.filter(ended_by=job).exists() else "no block was wanted there before"
    wanted = list(_wanted_on(pattern_of(job), _instances(job)))
    if any(block.job_id != job.pk for block in wanted):
        return "a block that another job made or changed covers the same instances; unblock the sender instead"
    if job.undo_of_id is None and any(block.created_at < job.created_at for block in wanted):
        return "it changed a block that was there before; block the sender again as it was"
    return None


def yield_to_others(rows: Iterable[BlockInstance], now: datetime) -> list[BlockInstance]:
    """Without the rows of ended blocks whose line another wanted block needs; that one is applied again instead.

    While that one is in line it may still be cancelled, and the line be nobody's: so long the row stays.
    """
    kept = []
    for row in rows:
        others = [] if row.block.is_wanted else _wanted_on(row.block.pattern, [row.instance_id])
        heirs = BlockInstance.objects.filter(instance=row.instance_id, block__in=others)
        if heirs.filter(state=BlockState.PENDING, next_try_at=None).exists():
            continue
        if heirs.update(state=BlockState.PENDING, next_try_at=now, changed_at=now):
            row.delete()
        else:
            kept.append(row)
    return kept


def _instances(job: Job) -> list[int]:
    return [pk for pk in job.runs.values_list("instance_id", flat=True) if pk is not None]


def wanted_elsewhere(run: Run, pattern: str) -> tuple[str, ...]:
    """Our patterns that stay wanted on the run's instance besides `pattern`."""
    rows = BlockInstance.objects.filter(instance=run.instance, block__is_wanted=True).exclude(block__pattern=pattern)
    return tuple(sorted(set(rows.values_list("block__pattern", flat=True))))


def why_overtaken(run: Run) -> str | None:
    """Why a run that would carry out a wish must not begin any more: what it was to do is no longer wanted."""
    if run.job.operation not in ("sender.block", "sender.unblock"):
        return None
    is_wanted = _rows(run, is_wanted=True).exists()
    if run.job.operation == "sender.block":
        return None if is_wanted else "the block was ended before it came to this instance"
    return "another block of this sender is wanted on this instance" if is_wanted else None


STATE_AFTER = {
    RunState.SUCCEEDED: BlockState.APPLIED,
    RunState.UNCHANGED: BlockState.APPLIED,
    RunState.UNSUPPORTED: BlockState.UNSUPPORTED,
    RunState.FAILED: BlockState.FAILED,
    RunState.UNKNOWN: BlockState.FAILED,
}
"""Where a run leaves an instance that is to have a block; every other end leaves it pending. The catch-up goes on with
what failed, too, and with growing pauses: an administrator may have mended the cause. So it does with what stays
unknown: to write a line again that is there changes nothing."""


def settle(runs: Iterable[Run], now: datetime, retry_at: datetime) -> None:
    """Write how far the instances got, from runs of sender.block or sender.unblock that have just ended.

    `retry_at`: when to look again at what a host that was down has not got yet.
    """
    for run in (run for run in runs if not run.job.dry_run):
        if (run.result or {}).get("overtaken"):
            _settle_overtaken(run, retry_at)
        elif run.job.operation == "sender.block":
            _settle(_rows(run, is_wanted=True), run, STATE_AFTER.get(RunState(run.state)), now, retry_at)
        elif run.job.operation == "sender.unblock" and run.state in GONE:
            _rows(run, is_wanted=False).delete()
            # The line is gone. Where another block wants it, one that began meanwhile, it is applied again.
            if run.state == RunState.SUCCEEDED:
                _rows(run, is_wanted=True).update(state=BlockState.PENDING, next_try_at=retry_at, changed_at=now)
        elif run.job.operation == "sender.unblock":
            state = BlockState.FAILED if run.state in (RunState.FAILED, RunState.UNKNOWN) else None
            _settle(_rows(run, is_wanted=False), run, state, now, retry_at)


GONE = (RunState.SUCCEEDED, RunState.UNCHANGED, RunState.UNSUPPORTED)
"""Ends of an unblock after which nothing of ours is on the instance: what it cannot block it has not blocked."""


def _settle_overtaken(run: Run, retry_at: datetime) -> None:
    """Nothing was done, so a block that is wanted by now is still to come.

    Whose the line of one that was ended is, the catch-up tells when that is known (`yield_to_others`).
    """
    _rows(run, is_wanted=False).filter(next_try_at=None).update(next_try_at=retry_at)


def _settle(rows: Any, run: Run, state: BlockState | None, now: datetime, retry_at: datetime) -> None:
    his = (run.result or {}).get("notes", []) if state == BlockState.APPLIED else []
    detail = (run.error or {}).get("detail", "") or "; ".join(his)
    for row in rows:
        row.detail, row.changed_at = detail, now
        if his:
            row.next_try_at, row.tries = now + HIS_LINE, 0
        elif state == BlockState.FAILED:
            row.next_try_at = now + timedelta(seconds=PAUSES[min(row.tries, len(PAUSES) - 1)])
            row.tries = min(row.tries + 1, len(PAUSES))
        elif state is None:
            row.next_try_at = retry_at
        else:
            row.next_try_at, row.tries = None, 0
        row.state = state or (BlockState.PENDING if run.job.operation == "sender.block" else BlockState.REMOVING)
        row.save(update_fields=["state", "detail", "next_try_at", "tries", "changed_at"])


def withdraw(job: Job, runs: Iterable[Run], now: datetime) -> None:
    """Some runs of a ready job were cancelled before they began: what it wanted there is not wanted by it any more.

    A block that it made is wanted on the other instances only, and ends where there are none. What a job has ended, or
    wanted again, without changing anything is as before. All else goes on, and the catch-up sees to what is left.
    """
    if job.channel == "schedule" or job.operation not in ("sender.block", "sender.unblock"):
        return
    instances = [run.instance_id for run in runs]
    has_begun = job.runs.filter(OPEN_RUNS | Q(dispatched_at__isnull=False)).exists()
    if job.operation == "sender.unblock" and not has_begun:
        _turn_back(Block.objects.filter(ended_by=job), now, is_wanted=True, ended_at=None, ended_by=None)
    elif job.operation == "sender.block" and job.undo_of_id is not None and not has_begun:
        _turn_back(Block.objects.filter(ended_by=job.undo_of, is_wanted=True), now, is_wanted=False, ended_at=now)
    elif job.operation == "sender.block":
        for block in Block.objects.filter(job=job, is_wanted=True):
            if block.created_at == job.ready_at:  # it made it; another one was there before
                _narrow(block, instances, now)
    rows = BlockInstance.objects.filter(instance__in=instances, block__pattern=pattern_of(job))
    rows.filter(state__in=(BlockState.PENDING, BlockState.REMOVING), next_try_at=None).update(next_try_at=now)


def _turn_back(ended: QuerySet[Block], now: datetime, *, is_wanted: bool, **fields: Any) -> None:
    state = BlockState.PENDING if is_wanted else BlockState.REMOVING
    rows = BlockInstance.objects.filter(block__in=list(ended))
    ended.update(is_wanted=is_wanted, **fields)
    rows.update(state=state, next_try_at=now, changed_at=now)


def _narrow(block: Block, instances: Iterable[int | None], now: datetime) -> None:
    """Its target is what is left of it, else the sweep would bring it to the others as to new ones."""
    block.instances.filter(instance__in=instances).delete()
    left = sorted(str(row.instance) for row in block.instances.select_related("instance__host"))
    if left:
        block.target = {"instances": left}
    else:
        block.is_wanted, block.ended_at = False, now
    block.save(update_fields=["target", "is_wanted", "ended_at"])


def _rows(run: Run, *, is_wanted: bool) -> Any:
    pattern = pattern_of(run.job)
    return BlockInstance.objects.filter(instance=run.instance, block__pattern=pattern, block__is_wanted=is_wanted)


def compare(run: Run, ours: Iterable[str], now: datetime) -> None:
    """From a block.list: mark blocks that are wanted and not on the host as drifted, and found ones as applied.

    An applied one that is to be looked at again is the administrator's line, not ours.
    """
    found = set(ours)
    for row in BlockInstance.objects.filter(instance=run.instance, block__is_wanted=True).select_related("block"):
        there = row.block.pattern in found
        if row.state == BlockState.APPLIED and not there and row.next_try_at is None:
            row.state, row.detail = BlockState.DRIFTED, "somebody removed our line on the host"
        elif row.state == BlockState.DRIFTED and there:
            row.state, row.detail = BlockState.APPLIED, ""
        else:
            continue
        row.changed_at = now
        row.save(update_fields=["state", "detail", "changed_at"])
