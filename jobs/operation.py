"""From a job's row to the operation that an adapter carries out on one instance."""

from functools import lru_cache
from typing import Any

from fleet.mta.operations import (
    Operation,
    Quarantined,
    QuarantineErase,
    QuarantineRestore,
    QueueHold,
    QueueRelease,
    Selection,
    SenderBlock,
    SenderUnblock,
)
from fleet.mta.params.catalogue import QuarantineIds
from fleet.mta.params.parse import Parsed, parse_params
from fleet.mta.records import Fingerprint
from jobs.models import Block, Job, Message, QuarantineItem, QuarantineState, Run

UNDO = {
    "queue.hold": "queue.release",
    "queue.release": "queue.hold",
    "queue.purge": "quarantine.restore",
    "sender.block": "sender.unblock",
    "sender.unblock": "sender.block",
}
"""Which operation puts back what another one changed; what is missing here cannot be undone."""


def grant_for(operation: str, *, changes: bool) -> str:
    """What who asks for it must be granted; contents of messages are not for everybody who may read."""
    return "request_any" if changes or operation == "message.show" else "request_reading"


@lru_cache(maxsize=64)
def requested(job: Job) -> Parsed:
    """What a stored job asks for. What it was submitted with never changes, so each process parses it once."""
    return parse_params(job.operation, job.params, now=job.start_after or job.created_at)


def meant(job: Job) -> Job:
    """The job whose request it is: of one that only compares a frozen plan with the queues, the job of that plan."""
    return job.drift_of or job


def operation_for(job: Job, run: Run) -> Operation:
    """What the job asks of this run's instance."""
    job = meant(job)
    if job.undo_of is not None:
        return _undo(job, job.undo_of, run)
    operation = requested(job).operation
    if isinstance(operation, QuarantineIds):
        items = quarantined(run, QuarantineItem.objects.filter(pk__in=operation.ids))
        return QuarantineRestore(items) if job.operation == "quarantine.restore" else QuarantineErase(items)
    return operation


def frozen_for(job: Job, run: Run) -> tuple[Fingerprint, ...] | None:
    """The messages that the run is bound to: its plan's, or those that the job it undoes had changed."""
    if run.plan is not None:
        return fingerprints(run)
    job = meant(job)
    if job.undo_of is None or job.operation not in ("queue.hold", "queue.release"):
        return None
    done = Message.objects.filter(run__job=job.undo_of, run__instance=run.instance, outcome="done")
    return tuple(fingerprint(message) for message in done)


def fingerprint(message: Message) -> Fingerprint:
    """The row as adapters take it."""
    return Fingerprint(
        queue_id=message.new_id or message.queue_id,
        arrival_time=message.arrival_time,
        sender=message.sender,
        size=message.size,
        state=message.state,
        recipients=tuple(message.recipients),
        subject=message.subject,
    )


def fingerprints(run: Run) -> tuple[Fingerprint, ...]:
    """The messages of a run's plan."""
    return tuple(fingerprint(message) for message in run.messages.all())


def quarantined(run: Run, items: Any) -> tuple[Quarantined, ...]:
    """The kept ones of `items` that lie on this run's instance, as adapters take them."""
    rows = items.filter(instance=run.instance, state=QuarantineState.KEPT).order_by("pk")
    return tuple(
        Quarantined(
            id=str(row.pk),
            queue_id=row.queue_id,
            place=row.place,
            arrival_time=row.arrival_time,
            sender=row.sender,
            size=row.size,
            state=row.native_state,
        )
        for row in rows
    )


def _undo(job: Job, original: Job, run: Run) -> Operation:
    if job.operation == "quarantine.restore":
        return QuarantineRestore(quarantined(run, QuarantineItem.objects.filter(job=original)))
    if job.operation in ("queue.hold", "queue.release"):
        done = frozen_for(job, run) or ()
        selection = Selection(queue_ids=tuple(message.queue_id for message in done))
        return QueueHold(selection) if job.operation == "queue.hold" else QueueRelease(selection)
    if job.operation == "sender.unblock":
        return SenderUnblock(pattern=pattern_of(original))
    block = Block.objects.filter(ended_by=original).latest("pk")
    return SenderBlock(
        pattern=block.pattern, action=block.action, code=block.code, enhanced=block.enhanced, text=block.text
    )


def pattern_of(job: Job) -> str:
    """The canonical pattern of a job that blocks or unblocks a sender."""
    job = meant(job)
    if job.undo_of is not None:
        return pattern_of(job.undo_of)
    operation = requested(job).operation
    if not isinstance(operation, SenderBlock | SenderUnblock):
        raise TypeError(f"{job.operation} has no pattern")
    return operation.pattern
