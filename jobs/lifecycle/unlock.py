"""Free a host by hand from the job that has it."""

from django.db import transaction

from fleet.models import Host
from jobs import blocklist
from jobs.actor import Actor
from jobs.audit import trail
from jobs.clock import db_now
from jobs.errors import Clash, Invalid
from jobs.lifecycle import transition
from jobs.lifecycle.end import cancel_pending, finish_job
from jobs.models import Job
from jobs.rules.state import RunState


def unlock(actor: Actor, host: Host, reason: str) -> Job:
    """What is unknown on the host stays so, and nobody looks at it any more; what waits for it is cancelled.

    Returns the job that had it. Raises Invalid without a reason, Clash `not_locked` when no job has the host, and
    `busy` while a worker is at work there: when that is gone its lease ends by itself within half a minute.
    """
    if not reason.strip():
        raise Invalid.field("reason", "required", "say why the host is freed by hand")
    with transaction.atomic():
        job = Job.objects.select_for_update(no_key=True).filter(leases__host=host).first()
        if job is None:
            raise Clash("not_locked", f"no job has {host.name}")
        runs = job.runs.filter(host=host)
        if runs.filter(state=RunState.RUNNING).exists():
            raise Clash("busy", f"job {job.pk} is at work on {host.name}; cancel it, or wait for its end")
        trail.lock_chains({host.customer.slug, *transition.chains_of(job)})
        now = db_now()
        unknown = list(runs.filter(state=RunState.UNKNOWN).select_related("job", "instance"))
        given_up = runs.filter(state=RunState.UNKNOWN).update(reconcile_at=None, finished_at=now)
        blocklist.settle(unknown, now, now)
        stopped = cancel_pending(job, runs)
        data = {"reason": reason, "given_up": given_up, "cancelled": len(stopped)}
        trail.append(trail.Entry(host.customer.slug, "host.unlocked", actor, object=host.name, job=job.pk, data=data))
        finish_job(job)
    return job
