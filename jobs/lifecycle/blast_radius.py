"""How far a job's plan reaches: what the policy judges."""

from collections.abc import Sequence

from fleet.mta.operations import ChangesMessages, Operation, QueuePurge, SenderBlock
from jobs.models import Job, Run
from jobs.operation import operation_for
from jobs.rules.policy import Blast, QueueShare


def blast_of(job: Job, runs: Sequence[Run]) -> Blast:
    """The blast radius of `runs` (at least one); those of hosts that are down have no plan.

    What the schedule does was agreed to before: an expiry with the purge, a catch-up with the block. Only a sender
    check that is wired for the first time is new, so that is asked about again.
    """
    operation = operation_for(job, runs[0])
    is_scheduled = job.channel == "schedule"
    plans = [(str(run.instance), run.plan) for run in runs if run.plan is not None]
    return Blast(
        operation="quarantine.expire" if is_scheduled and job.operation == "quarantine.erase" else job.operation,
        customers=tuple(sorted(customer.slug for customer in job.customers.all())),
        hosts=len({run.host_id for run in runs}),
        queues=tuple(QueueShare(plan["counts"]["messages"], plan["queue_total"], name) for name, plan in plans),
        match_all=_is_all(operation),
        mode=operation.mode if isinstance(operation, QueuePurge) else "",
        wiring=any(plan["wiring"] for _, plan in plans),
        domain_wide=not is_scheduled and isinstance(operation, SenderBlock) and "@" not in operation.pattern,
        is_undo=job.undo_of_id is not None,
    )


def _is_all(operation: Operation) -> bool:
    return (
        isinstance(operation, ChangesMessages)
        and operation.selection.match is not None
        and operation.selection.match.matches_everything()
    )
