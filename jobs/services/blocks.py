"""The wanted blocklist: what a job makes wanted or unwanted, and how far each instance has got."""

from collections.abc import Iterable
from datetime import datetime
from typing import Any

from fleet.inventory import Choice
from fleet.mta.operations import SenderBlock
from fleet.mta.params import parse_params
from jobs import asked
from jobs.errors import Invalid
from jobs.models import Block, BlockInstance, BlockState, Job, Run
from jobs.state import RunState


def check_scope(name: str, operation: Any, choice: Choice) -> None:
    """Refuse an unblock of fewer instances than the block covers: half a block would be what nobody asked for."""
    if name != "sender.unblock":
        return
    targeted = {instance.pk for instance in choice.instances}
    rows = BlockInstance.objects.filter(
        block__pattern=operation.pattern, block__is_wanted=True, instance__host__customer__in=choice.customers
    ).select_related("instance__host", "block")
    covered = {row.block_id for row in rows if row.instance_id in targeted}
    outside = sorted({str(row.instance) for row in rows if row.block_id in covered and row.instance_id not in targeted})
    if outside:
        raise Invalid.field(
            "target", "scope_mismatch", f"the block also covers {', '.join(outside[:5])}; unblock the whole of it"
        )


def want(job: Job, now: datetime) -> None:
    """Record centrally what an approved job wants, before any instance is brought to it."""
    if job.operation == "sender.block":
        _want_blocked(job, now)
    elif job.operation == "sender.unblock":
        _want_unblocked(job, now)


def _want_blocked(job: Job, now: datetime) -> None:
    runs = list(job.runs.exclude(state=RunState.UNSUPPORTED).select_related("instance"))
    if job.channel == "schedule" or not runs:
        return
    operation = asked.operation_for(job, runs[0])
    if not isinstance(operation, SenderBlock):
        raise TypeError(f"{job.operation} is no block")
    fields = {
        "action": operation.action,
        "code": operation.code,
        "enhanced": operation.enhanced,
        "text": operation.text,
    }
    expires_at = None
    if job.undo_of is None:
        expires_at = parse_params(job.operation, job.params, now=job.created_at).expires_at
    block = Block.objects.filter(pattern=operation.pattern, target=job.target, is_wanted=True).first()
    if block is None:
        block = Block(pattern=operation.pattern, target=job.target, owner=job.requested_by, created_at=now)
    for name, value in fields.items():
        setattr(block, name, value)
    block.job, block.expires_at, block.reason, block.ticket = job, expires_at, job.reason, job.ticket
    block.save()
    block.customers.set(job.customers.all())
    rows = [BlockInstance(block=block, instance=run.instance, changed_at=now) for run in runs]
    BlockInstance.objects.bulk_create(rows, ignore_conflicts=True)
    block.instances.filter(instance__in=[run.instance_id for run in runs]).update(
        state=BlockState.PENDING, next_try_at=None, changed_at=now
    )


def _want_unblocked(job: Job, now: datetime) -> None:
    for block in blocks_of(job):
        block.instances.filter(instance__in=_instances(job)).update(
            state=BlockState.REMOVING, next_try_at=None, changed_at=now
        )
        block.is_wanted, block.ended_at, block.ended_by = False, now, job
        block.save(update_fields=["is_wanted", "ended_at", "ended_by"])


def blocks_of(job: Job) -> Iterable[Block]:
    """The wanted blocks that an unblocking job ends."""
    pattern = asked.parse_pattern(job)
    return Block.objects.filter(pattern=pattern, is_wanted=True, instances__instance__in=_instances(job)).distinct()


def _instances(job: Job) -> list[int]:
    return [pk for pk in job.runs.values_list("instance_id", flat=True) if pk is not None]


def wanted_elsewhere(run: Run, pattern: str) -> tuple[str, ...]:
    """Our patterns that stay wanted on the run's instance besides `pattern`."""
    rows = BlockInstance.objects.filter(instance=run.instance, block__is_wanted=True).exclude(block__pattern=pattern)
    return tuple(sorted(set(rows.values_list("block__pattern", flat=True))))


STATE_AFTER = {
    RunState.SUCCEEDED: BlockState.APPLIED,
    RunState.UNCHANGED: BlockState.APPLIED,
    RunState.UNSUPPORTED: BlockState.UNSUPPORTED,
    RunState.FAILED: BlockState.FAILED,
}
"""Where a blocking run leaves its instance; every other end leaves it pending, and the catch-up goes on."""


def settle(runs: Iterable[Run], now: datetime, retry_at: datetime) -> None:
    """Write how far the instances got, from runs of sender.block or sender.unblock that have just ended."""
    for run in runs:
        if run.job.operation == "sender.block":
            _settle_block(run, now, retry_at)
        elif run.job.operation == "sender.unblock" and run.state in (RunState.SUCCEEDED, RunState.UNCHANGED):
            _rows(run, is_wanted=False).delete()
        elif run.job.operation == "sender.unblock":
            detail = (run.error or {}).get("detail", "")
            _rows(run, is_wanted=False).update(detail=detail, next_try_at=retry_at, changed_at=now)


def _settle_block(run: Run, now: datetime, retry_at: datetime) -> None:
    state = STATE_AFTER.get(RunState(run.state), BlockState.PENDING)
    _rows(run, is_wanted=True).update(
        state=state,
        detail=(run.error or {}).get("detail", ""),
        next_try_at=retry_at if state == BlockState.PENDING else None,
        changed_at=now,
    )


def _rows(run: Run, *, is_wanted: bool) -> Any:
    pattern = asked.parse_pattern(run.job)
    return BlockInstance.objects.filter(instance=run.instance, block__pattern=pattern, block__is_wanted=is_wanted)


def compare(run: Run, ours: Iterable[str], now: datetime) -> None:
    """From a block.list: mark blocks that are wanted and not on the host as drifted, and found ones as applied."""
    found = set(ours)
    for row in BlockInstance.objects.filter(instance=run.instance, block__is_wanted=True).select_related("block"):
        there = row.block.pattern in found
        if row.state == BlockState.APPLIED and not there:
            row.state, row.detail = BlockState.DRIFTED, "somebody removed our line on the host"
        elif row.state == BlockState.DRIFTED and there:
            row.state, row.detail = BlockState.APPLIED, ""
        else:
            continue
        row.changed_at = now
        row.save(update_fields=["state", "detail", "changed_at"])
