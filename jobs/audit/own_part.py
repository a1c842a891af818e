"""What each customer's audit chain records of a job over several customers: its own part, and nothing of the others."""

from collections.abc import Sequence
from typing import Any

from fleet.models import Customer
from jobs.models import Job, QuarantineItem, Run

ELSEWHERE = "a host of another customer stands against it"

Parts = dict[str, dict[str, Any]]
"""{chain: what its entry says instead of, or besides, what all entries say}."""


def of_request(job: Job, runs: Sequence[Run]) -> Parts:
    """Its hosts in place of the target as it was requested, and its quarantined messages of those that were named.

    Everything else in `params` was requested of each customer's hosts alike.
    """
    named = _customers_of_ids(job.params.get("ids"))
    parts = {}
    for customer in Customer.objects.filter(jobs=job):
        own = [run for run in runs if run.host.customer_id == customer.pk]
        kind = "instances" if any(run.instance for run in runs) else "hosts"
        params = dict(job.params)
        if named:
            params["ids"] = [item for item in job.params["ids"] if named.get(item) == customer.pk]
        target = {kind: sorted(str(run.instance or run.host) for run in own)}
        parts[customer.slug] = {"target": target, "params": params, "runs": len(own)}
    return parts


def _customers_of_ids(ids: list[str] | None) -> dict[str, int]:
    rows = QuarantineItem.objects.filter(pk__in=ids or []).values_list("pk", "instance__host__customer")
    return {str(pk): customer for pk, customer in rows}


def of_error(job: Job, whose: str) -> Parts:
    """Why the job ended. `whose`: the customer whose host the error names, "" when it names none."""
    if not (job.error and whose):
        return {}
    blurred = {"error": {"code": job.error["code"], "detail": ELSEWHERE, "hint": ""}}
    return {customer.slug: blurred for customer in job.customers.exclude(slug=whose)}
