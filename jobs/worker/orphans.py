"""A worker's inspections of quarantines: list what lies there, prove what may be ours by reading its purge back."""

import logging
import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from functools import partial
from typing import Any
from uuid import UUID

from fleet.inventory import instance_facts
from fleet.models import Instance
from fleet.mta.adapter import adapter_for
from fleet.mta.records import Context, Found, InQuarantine, Result
from fleet.ssh.engine import Outcome, Request
from fleet.ssh.gate import Lane
from jobs.clock import db_now
from jobs.lifecycle import orphans
from jobs.lifecycle.hosts import is_touched
from jobs.models import Run
from jobs.operation import fingerprint, operation_for
from jobs.worker.endpoints import endpoint_for

DEADLINE = 150.0
"""Seconds for one look, the connection with it."""

Execute = Callable[[Sequence[Request[Any]]], Iterator[list[Outcome]]]
Proofs = dict[UUID, tuple[Run, dict[str, str]]]
"""By the id of a run: itself, and where its host says that the messages of the request lie."""

log = logging.getLogger(__name__)
_round = threading.Lock()


@dataclass(slots=True)
class Inspection:
    """What is known so far of one instance in this round."""

    instance: Instance
    there: InQuarantine
    compared: orphans.Compared


def inspect(queue: str, execute: Execute) -> None:
    """Look at this queue's instances that are due. One round at a time: it takes one thread, whatever the hosts do."""
    if not _round.acquire(blocking=False):
        return
    try:
        _round_of(orphans.take(db_now(), queue), execute)
    finally:
        _round.release()


def _round_of(instances: Sequence[Instance], execute: Execute) -> None:
    began = db_now()
    inspections = [each for each in _inspected(instances, execute) if each is not None]
    proofs = _proofs(inspections, execute)
    for each in inspections:
        try:
            _end(each, proofs, began)
        except Exception:  # what one host's quarantine holds must not keep the others from being looked at
            log.exception("the look at %s cannot be stored", each.instance)
            orphans.put_off(each.instance)


def _inspected(instances: Sequence[Instance], execute: Execute) -> Iterator[Inspection | None]:
    by_key = {f"instance {each.pk}": each for each in instances}
    requests = list(_possible(_request, by_key.items()))
    for outcomes in execute(requests):
        for outcome in outcomes:
            yield _seen(by_key[outcome.key], outcome)


def _possible(request: Callable[..., Request[Any]], arguments: Iterable[tuple[Any, ...]]) -> Iterator[Request[Any]]:
    """The requests that can be made: a credential that does not open must not keep the others from being looked at."""
    for each in arguments:
        try:
            yield request(*each)
        except Exception:
            log.exception("%s cannot be asked", each[-1])


def _request(key: str, instance: Instance) -> Request[Any]:
    steps = partial(adapter_for(instance.mta).in_quarantine, instance_facts(instance))
    return Request(key, endpoint_for(instance.host), steps, until_plan=False, deadline=DEADLINE, lane=Lane.LOOK)


def _seen(instance: Instance, outcome: Outcome) -> Inspection | None:
    if not isinstance(outcome.value, InQuarantine):
        orphans.put_off(instance, outcome.error)
        return None
    mark = adapter_for(instance.mta).quarantine_mark
    return Inspection(instance, outcome.value, orphans.compare(instance, outcome.value, mark))


def _proofs(inspections: Sequence[Inspection], execute: Execute) -> Proofs:
    """What reading the purges back proved of the messages that were found."""
    found = {pk: each for inspection in inspections for pk, each in inspection.compared.ours.items()}
    runs = {str(run.pk): run for inspection in inspections for run in orphans.runs_of(inspection.compared)}
    requests = list(_possible(_proof, ((found[run.pk], run) for run in runs.values())))
    proofs: Proofs = {}
    for outcomes in execute(requests):
        for outcome in outcomes:
            if isinstance(outcome.value, Result):
                run = runs[outcome.key]
                proofs[run.pk] = (run, outcome.value.data.get("places", {}))
    return proofs


def _proof(found: Sequence[Found], run: Run) -> Request[Any]:
    """Reading back looks into queue and quarantine, changes nothing, and compares whatever the plan knows."""
    if run.instance is None:
        raise ValueError(f"{run} has no instance")
    operation = operation_for(run.job, run)
    frozen = tuple(map(fingerprint, orphans.messages_of(run, found)))
    context = Context(now=db_now().timestamp(), job=str(run.job_id), frozen=frozen)
    steps = partial(adapter_for(run.instance.mta).read_back, instance_facts(run.instance), operation, context)
    return Request(
        str(run.pk), endpoint_for(run.host), steps, until_plan=False, deadline=operation.deadline, lane=Lane.LOOK
    )


def _end(inspection: Inspection, proofs: Proofs, began: datetime) -> None:
    left = list(inspection.compared.orphans)
    is_early = inspection.compared.is_early
    for pk, found in inspection.compared.ours.items():
        proof = proofs.get(pk)
        rest = None if proof is None else orphans.adopt(proof[0], found, proof[1], began)
        left += rest or ()
        is_early = is_early or rest is None
    if is_touched(inspection.instance.host_id, began):
        orphans.put_off(inspection.instance)
    else:
        orphans.settle(inspection.instance, inspection.there, left, is_early=is_early)
