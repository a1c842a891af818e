"""Take a job in: check it, freeze its target, write it with its runs and its audit events, wake its workers."""

import zlib
from collections.abc import Iterable
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any

from django.db import transaction

from fleet.inventory import Choice, TargetError, check_target, present_names, resolve
from fleet.match import Expression, unsupported_fields
from fleet.models import Host, Instance
from fleet.mta.adapter import adapter_for, capability
from fleet.mta.address import own_domain, parse_block_pattern
from fleet.mta.operations import ChangesMessages, MessageDeliver, MessageShow, MessageTrace, Operation, SenderBlock
from fleet.mta.params.catalogue import CATALOGUE, OF_HOSTS, OperationSpec, QuarantineIds
from fleet.mta.params.parse import ParamErrors, Parsed, parse_params
from fleet.mta.records import Support
from jobs import queues
from jobs.actor import Actor
from jobs.audit import own_part
from jobs.blocklist import check_scope
from jobs.clock import db_now
from jobs.errors import FieldError, Forbidden, Invalid
from jobs.jsonvalues import rfc3339
from jobs.lifecycle import transition
from jobs.models import Job, QuarantineItem, Run
from jobs.operation import grant_for
from jobs.restore import pause
from jobs.rules.state import JobState, RunState

MAX_REASON = 2000
MAX_TICKET = 200
MAX_GROUP = 100
FARTHEST = timedelta(days=7)
"""How far ahead a job may be put off."""
SLOTS = 5040


@dataclass(frozen=True, slots=True)
class Request:
    """A job as it is requested. `approval_ttl` in seconds, None for the policy's own."""

    operation: str
    target: dict[str, Any]
    params: dict[str, Any] = field(default_factory=dict)
    reason: str = ""
    ticket: str = ""
    dry_run: bool = False
    approval_ttl: int | None = None
    confirm: bool = False
    start_after: datetime | None = None
    group: str = ""


def submit(actor: Actor, request: Request) -> Job:
    """A new job. Raises Invalid, Forbidden; Unavailable when it cannot be audited (nothing is begun then)."""
    spec = CATALOGUE.get(request.operation)
    if spec is None:
        raise Invalid.field(
            "operation", "invalid", f"no such operation; GET operations/ lists them: {', '.join(CATALOGUE)}"
        )
    _check_texts(request, spec)
    check_confirm(request.operation, confirm=request.confirm, changes=spec.changes, dry_run=request.dry_run)
    _check_start(request)
    parsed = _parse(request)
    choice = _resolve(actor, request)
    _authorise(actor, spec, choice)
    _check_single(spec, parsed.operation, choice)
    runs = _runs(choice, parsed.operation, request.operation)
    if parsed.operation is not None and request.operation in ("sender.block", "sender.unblock"):
        check_scope(request.operation, parsed.operation, choice)
    job = Job(
        operation=request.operation,
        target=present_names(request.target, choice.instances),
        params=request.params,
        reason=request.reason,
        ticket=request.ticket,
        group=request.group,
        dry_run=request.dry_run,
        confirm=request.confirm,
        start_after=request.start_after,
        is_changing=spec.changes,
    )
    if request.approval_ttl is not None:
        job.approval_ttl = request.approval_ttl
    return write(actor, job, runs, choice.customers)


def write(actor: Actor, job: Job, runs: list[Run], customers: Iterable[int]) -> Job:
    """Store a job with its runs, audit it and wake its workers, all in one transaction.

    `customers`: all whom the job tells of, by its runs or by what its target names; who may not read each of them does
    not see it. Raises Unavailable, also while the service is paused.
    """
    pause.refuse()
    job.requested_by, job.channel, job.source = actor.account, actor.channel, actor.source
    job.minted_by = list(actor.minted_by) or None
    job.state = JobState.PLANNING if job.is_changing else JobState.QUEUED
    job.created_at = db_now()
    is_later = job.state == JobState.QUEUED and job.start_after is not None
    job.wake_at = job.start_after if is_later else job.created_at + queues.PATIENCE
    concerned = sorted(customers)
    with transaction.atomic():
        job.save(force_insert=True)
        links = Job.customers.through
        links.objects.bulk_create([links(job=job, customer_id=pk) for pk in concerned])
        for run in runs:
            run.job, run.is_planning = job, job.is_changing
            if run.state == RunState.UNSUPPORTED:
                run.finished_at = job.created_at
        Run.objects.bulk_create(runs, batch_size=500)
        transition.publish_state(job, job.created_at)
        parts = own_part.of_request(job, runs) if len(concerned) > 1 else None
        transition.record(job, "job.submitted", actor, _audited(job, len(runs)), parts)
        if not is_later:
            queues.wake_on_commit(job, runs)
    return job


def run_for(host: Host, instance: Instance | None) -> Run:
    """A pending run, not stored yet. Its slot chooses the worker that keeps this host's warm connection."""
    return Run(host=host, instance=instance, slot=zlib.crc32(host.name.encode()) % SLOTS, site=host.site)


def queue_of_host(name: str, site: str) -> str:
    """The Celery queue whose worker keeps the connection to the host of that name."""
    return queues.queue_of(run_for(Host(name=name, site=site), None))


def _audited(job: Job, runs: int) -> dict[str, Any]:
    return {
        "target": job.target,
        "params": job.params,
        "reason": job.reason,
        "ticket": job.ticket,
        "group": job.group,
        "dry_run": job.dry_run,
        "confirm": job.confirm,
        "start_after": rfc3339(job.start_after.timestamp()) if job.start_after else None,
        "runs": runs,
        "undo_of": str(job.undo_of_id) if job.undo_of_id else None,
        "retry_of": str(job.retry_of_id) if job.retry_of_id else None,
        "drift_of": str(job.drift_of_id) if job.drift_of_id else None,
        "minted_by": job.minted_by or [],
    }


def _check_texts(request: Request, spec: OperationSpec) -> None:
    if spec.changes and not request.reason.strip():
        raise Invalid.field("reason", "required", "a changing operation needs a reason")
    texts = (
        ("reason", request.reason, MAX_REASON),
        ("ticket", request.ticket, MAX_TICKET),
        ("group", request.group, MAX_GROUP),
    )
    for name, text, most in texts:
        if len(text) > most:
            raise Invalid.field(name, "invalid", f"at most {most} characters are taken, and there are {len(text)}")
        if "\x00" in text:
            raise Invalid.field(name, "invalid", "a NUL character cannot be stored")
        if name != "reason" and not text.isprintable():
            raise Invalid.field(name, "invalid", "one line is expected, without characters that are not seen")
    if request.dry_run and not spec.changes:
        raise Invalid.field(
            "dry_run", "invalid", f"{request.operation} changes nothing, so there is nothing to try dry"
        )
    if request.approval_ttl is not None and not spec.changes:
        raise Invalid.field("approval_ttl", "invalid", f"{request.operation} changes nothing, so nobody is asked")


def check_confirm(operation: str, *, confirm: bool, changes: bool, dry_run: bool) -> None:
    """Raises Invalid where there would never be anything to confirm."""
    if confirm and (dry_run or not changes):
        why = "a dry run" if dry_run else operation
        raise Invalid.field("confirm", "invalid", f"{why} changes nothing, so there is nothing to confirm")


def _check_start(request: Request) -> None:
    if request.start_after is None:
        return
    if request.dry_run:
        raise Invalid.field("start_after", "invalid", "a dry run changes nothing, and begins at once")
    now = db_now()
    if not now < request.start_after <= now + FARTHEST:
        ahead = f"{FARTHEST.days}d"
        raise Invalid.field("start_after", "out_of_range", f"a time from now on, at most {ahead} ahead, is taken")


def _parse(request: Request) -> Parsed:
    """Times such as `for` count from when the job may begin, as in `jobs.operation.requested`."""
    try:
        return parse_params(request.operation, request.params, now=request.start_after or db_now())
    except ParamErrors as wrong:
        places = [f"params.{e.field}" if e.field else "params" for e in wrong.errors]
        raise Invalid.fields(
            *(FieldError(place, e.code, e.detail) for place, e in zip(places, wrong.errors, strict=True))
        ) from wrong


def _resolve(actor: Actor, request: Request) -> Choice:
    try:
        check_target(request.target)
        grant = "request_any" if "all" in request.target else "read"
        return resolve(request.target, actor.customers(grant), of_hosts=request.operation in OF_HOSTS)
    except TargetError as wrong:
        raise Invalid.field(wrong.field, wrong.code, wrong.detail) from wrong


def _authorise(actor: Actor, spec: OperationSpec, choice: Choice) -> None:
    grant = grant_for(spec.name, changes=spec.changes)
    if not actor.has_scope("jobs:request") or not actor.may(grant, choice.customers):
        raise Forbidden("forbidden", f"{actor.account.username} may not request {spec.name} on this target")


def _check_single(spec: OperationSpec, operation: Operation | QuarantineIds, choice: Choice) -> None:
    by_ids = isinstance(operation, ChangesMessages) and bool(operation.selection.queue_ids)
    if (spec.single_instance or by_ids) and len(choice.instances) != 1:
        named = f"a queue ID belongs to one instance, and the target names {len(choice.instances)}"
        raise Invalid.field("target", "invalid", f"{named}; expected one as target.instances, in the form HOST/NAME")


def _runs(choice: Choice, operation: Operation | QuarantineIds, name: str) -> list[Run]:
    if not choice.instances:
        return [run_for(host, None) for host in choice.hosts]
    instances: Iterable[Instance] = choice.instances
    if isinstance(operation, QuarantineIds):
        instances = _instances_of(operation, choice)
    runs = [_checked(run_for(instance.host, instance), instance, operation, name) for instance in instances]
    reasons = [run.error["detail"] for run in runs if run.error]
    if reasons and len(reasons) == len(runs):
        if isinstance(operation, MessageTrace) and operation.queue_id:
            raise Invalid.field("params.queue_id", "bad_queue_id", _of_each(runs))
        able = any(capability(adapter_for(each.mta), name).support is not Support.ABSENT for each in instances)
        raise Invalid.field("params.match" if able else "operation", "unsupported", "; ".join(dict.fromkeys(reasons)))
    return runs


def _of_each(runs: list[Run]) -> str:
    """Why no run can be: the reason, or that of each MTA."""
    reasons = {run.instance.mta: run.error["detail"] for run in runs if run.instance and run.error}
    if len(set(reasons.values())) == 1:
        return str(next(iter(reasons.values())))
    return "; ".join(f"{mta}: {reason}" for mta, reason in reasons.items())


def _instances_of(requested: QuarantineIds, choice: Choice) -> list[Instance]:
    """The instances on which the quarantined messages lie. An id that is not there or not targeted is an error."""
    by_pk = {instance.pk: instance for instance in choice.instances}
    rows = {str(row.pk): row for row in QuarantineItem.objects.filter(pk__in=requested.ids, instance__in=by_pk)}
    for index, item in enumerate(requested.ids):
        if item not in rows:
            raise Invalid.field(f"params.ids[{index}]", "invalid", f"{item} is no quarantined message of this target")
        if rows[item].state != "kept":
            raise Invalid.field(f"params.ids[{index}]", "invalid", f"{item} is {rows[item].state}, and no longer kept")
    return [by_pk[pk] for pk in sorted({row.instance_id for row in rows.values()})]


def _checked(run: Run, instance: Instance, operation: Operation | QuarantineIds, name: str) -> Run:
    reason = _why_unsupported(instance, operation, name)
    if reason:
        run.state = RunState.UNSUPPORTED
        run.error = {"code": "unsupported", "detail": reason, "hint": ""}
    return run


def _why_unsupported(instance: Instance, operation: Operation | QuarantineIds, name: str) -> str:
    adapter = adapter_for(instance.mta)
    able = capability(adapter, name)
    if able.support is Support.ABSENT:
        return f"{instance.mta} cannot do {name}" + (f": {able.note}" if able.note else "")
    for place, queue_id in _queue_ids(operation):
        wrong = adapter.queue_id_error(queue_id)
        if wrong:
            raise Invalid.field(f"params.{place}", "bad_queue_id", wrong)
    if isinstance(operation, MessageTrace) and operation.queue_id:
        return adapter.queue_id_error(operation.queue_id) or ""
    if isinstance(operation, SenderBlock):
        _check_protected(operation.pattern, instance)
    expression = _expression(operation)
    missing = unsupported_fields(expression, adapter.match_fields) if expression is not None else []
    return f"{instance.mta} does not keep {', '.join(missing)}" if missing else ""


def _queue_ids(operation: Operation | QuarantineIds) -> list[tuple[str, str]]:
    if isinstance(operation, MessageShow | MessageDeliver):
        return [("queue_id", operation.queue_id)]
    if isinstance(operation, ChangesMessages):
        return [(f"queue_ids[{index}]", item) for index, item in enumerate(operation.selection.queue_ids)]
    return []


def _expression(operation: Operation | QuarantineIds) -> Expression | None:
    if isinstance(operation, ChangesMessages):
        return operation.selection.match
    return getattr(operation, "match", None)


def _check_protected(pattern: str, instance: Instance) -> None:
    """Refuse to block a domain of our own: it would stop the customer's own mail."""
    hit = own_domain(parse_block_pattern(pattern), instance.options.get("own_domains", []))
    if hit:
        raise Invalid.field("params.pattern", "protected", f"{hit} is a domain of {instance} itself")
