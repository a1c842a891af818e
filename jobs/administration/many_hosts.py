"""Many hosts written at once, all of them or none, with one entry for each customer in the audit trail."""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from django.db import transaction

from jobs.actor import Actor
from jobs.administration.host_fields import Row
from jobs.administration.hosts import Decision, decide, store
from jobs.audit import trail
from jobs.errors import FieldError


def import_hosts(actor: Actor, rows: Sequence[Row], *, dry_run: bool) -> list[Decision]:
    """Add the hosts that are not there, and change what the rows name of those that are; `dry_run`: only say so.

    Raises Forbidden, and Invalid with all that is wrong: then nothing is written.
    """
    with transaction.atomic():
        decisions = decide(actor, _each_once(rows))
        if not dry_run:
            store(decisions)
            trail.append(*_imported(actor, decisions))
    return decisions


def _each_once(rows: Sequence[Row]) -> list[Row]:
    """The rows; one with the name of an earlier one is wrong."""
    first: dict[str, Row] = {}
    checked = []
    for row in rows:
        name = row.values.get("name", "")
        earlier = first.setdefault(name, row)
        if name and earlier is not row:
            twice = FieldError("name", "duplicate", f"{name} stands in {earlier.place} already")
            row = replace(row, wrong=(*row.wrong, twice))
        checked.append(row)
    return checked


def _imported(actor: Actor, decisions: Sequence[Decision]) -> list[trail.Entry]:
    found: dict[str, dict[str, Any]] = {}
    for each in decisions:
        if each.changes:
            customer = each.host.customer
            data = found.setdefault(customer.slug, {"new": {}, "changed": {}, "defaults": customer.defaults})
            given = {name: value for name, value in each.row.values.items() if name not in ("name", "customer")}
            if not each.is_new:
                given = {name: value for name, value in given.items() if name in (*each.changes, "old_fingerprint")}
            data["new" if each.is_new else "changed"][each.host.name] = given
    return [trail.Entry(slug, "hosts.imported", actor, data=data) for slug, data in sorted(found.items())]
