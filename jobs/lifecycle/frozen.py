"""A job's frozen plan: made once, and looked at again by whoever relies on it, against what its digest hashes."""

import json
from collections.abc import Collection, Sequence
from datetime import UTC, datetime
from typing import Any

from django.db.models import Prefetch, Q, QuerySet

from fleet.inventory import with_hosts_renamed
from fleet.models import Host
from jobs.models import FrozenPlan, Job, Message, Run
from jobs.operation import fingerprints
from jobs.rules.document import VERSION, Parts, canonical, changed_part, digest_of_document, instances_of
from jobs.rules.plan import PlanRow, digest_of

VERDICT = ("approvals_needed", "approval_role", "rule", "why", "approval_ttl", "execution_ttl")
"""What the rules ask of the job, by the names of its columns."""

SAID = {
    "way": "how a host of it is reached (address, port, username, become, host key or CA, jump host), "
    "or where its MTA keeps its files, is something else by now"
}
"""Parts that their names do not tell."""


def document_of(job: Job, rows: Sequence[PlanRow], verdict: Parts) -> str:
    """The document of a job that is being frozen, whose rules ask for `verdict` (by VERDICT)."""
    return canonical({**_parts(job, rows, verdict), "hosts": _hosts(job)})


def why_changed(job: Job) -> str:
    """Why what is stored of the plan is not what was frozen; "" when it still is."""
    row = FrozenPlan.objects.filter(job=job).first()
    if row is None:
        is_same = job.digest == digest_of(job.operation, job.params, plan_rows(job))
        return "" if is_same else "the plan is not the one that was frozen"
    if job.digest != digest_of_document(row.document):
        return "the document of the plan is not the one that was frozen"
    present = _parts(job, plan_rows(job), {name: getattr(job, name) for name in VERDICT})
    hosts = json.loads(row.document)["hosts"]
    wrong = changed_part(row.document, {**present, "hosts": hosts, "target": _as_frozen(job.target, hosts)})
    return f"the plan is not the one that was frozen: {SAID.get(wrong, wrong)}" if wrong else ""


def _parts(job: Job, rows: Sequence[PlanRow], verdict: Parts) -> Parts:
    return {
        "version": VERSION,
        "job": str(job.pk),
        "operation": job.operation,
        "params": job.params,
        "target": job.target,
        "customers": sorted(customer.slug for customer in job.customers.all()),
        "requested_by": job.requested_by.username,
        "undo_of": str(job.undo_of_id) if job.undo_of_id else None,
        "reason": job.reason,
        "ticket": job.ticket,
        "group": job.group,
        "dry_run": job.dry_run,
        "confirm": job.confirm,
        "created_at": _instant(job.created_at),  # `for` of a block counts from one of these
        "start_after": _instant(job.start_after) if job.start_after else None,
        "approval": verdict,
        "instances": instances_of(rows),
    }


def _instant(moment: datetime) -> str:
    return moment.astimezone(UTC).isoformat()


def _hosts(job: Job) -> dict[str, int]:
    """{name when the plan was frozen: id} of all hosts that the target names or means: one may be renamed later."""
    named = Q(runs__job=job) | Q(name__in=job.target.get("hosts", []))
    return dict(Host.objects.filter(named).distinct().order_by("name").values_list("name", "pk"))


def _as_frozen(target: dict[str, Any], hosts: dict[str, int]) -> dict[str, Any]:
    """The target by the names that its hosts had then."""
    now = dict(Host.objects.filter(pk__in=hosts.values()).values_list("pk", "name"))
    return with_hosts_renamed(target, {now[pk]: name for name, pk in hosts.items() if pk in now})


def plan_rows(job: Job) -> list[PlanRow]:
    """The job's frozen plan as it stands in the database now."""
    return [_row(run) for run in _planned(job)]


def rows_of_instances(job: Job, instances: Collection[int]) -> dict[int, PlanRow]:
    """{instance's id: its part of the job's frozen plan}, of these."""
    return {run.instance_id or 0: _row(run) for run in _planned(job).filter(instance__in=instances)}


def _planned(job: Job) -> QuerySet[Run]:
    runs = job.runs.exclude(plan=None)
    return runs.select_related("instance__host", "host__jump_host__jump_host__jump_host__jump_host").prefetch_related(
        Prefetch("messages", queryset=Message.objects.order_by("id"))
    )


def _row(run: Run) -> PlanRow:
    return PlanRow(run.planned_name, run.plan or {}, fingerprints(run), _way_to(run))


def _way_to(run: Run) -> list[Any]:
    """Where the plan was made: who approves a change of this host does not approve it for another one."""
    host: Host | None = run.host
    way: list[Any] = [run.instance.config_dir, run.instance.queue_dirs] if run.instance else []
    while host is not None:
        way.append([host.address, host.port, host.username, host.become, host.host_key, host.host_ca])
        host = host.jump_host
    return way
