"""Many hosts written at once, all of them or none, with one entry for each customer in the audit trail."""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from django.db import transaction
from django.db.models import QuerySet

from fleet.models import Host
from jobs.actor import Actor
from jobs.administration.host_fields import Row
from jobs.administration.hosts import Decision, decide, store
from jobs.administration.inventory import Values, must_administer_all
from jobs.audit import trail
from jobs.errors import Clash, FieldError

MOST_CHANGED = 5000


class CountDiffers(Clash):
    """There are `found` hosts, and the caller has seen another number."""

    def __init__(self, code: str, found: int, expected: int) -> None:
        super().__init__(code, f"{found} hosts fit the filter, not {expected}; look at them again")
        self.found = found


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


def change_hosts(actor: Actor, hosts: QuerySet[Host], expected: int, changes: Values) -> list[Decision]:
    """Change all of these hosts, of which the caller has seen `expected`.

    Raises Forbidden, CountDiffers, Invalid: then nothing is changed.
    """
    with transaction.atomic():
        chosen = set(hosts.values_list("pk", flat=True))
        locked = Host.objects.select_for_update(of=("self",), no_key=True).filter(pk__in=chosen).order_by("pk")
        rows_now = list(locked.select_related("customer"))
        must_administer_all(actor, rows_now)
        names = sorted((row.name, row.customer.slug) for row in rows_now)
        found = set(hosts.values_list("pk", flat=True))  # as they are now that nobody else changes them
        if len(found) != expected or found != chosen:
            raise CountDiffers("count_differs", len(found), expected)
        rows = [Row({"name": name, "customer": slug, **changes}, "changes", adds_labels=True) for name, slug in names]
        decisions = decide(actor, rows)
        store(decisions)
        changed: dict[str, list[str]] = {}
        for each in decisions:
            if each.changes:
                changed.setdefault(each.host.customer.slug, []).append(each.host.name)
        trail.append(
            *(
                trail.Entry(slug, "hosts.updated", actor, data={"hosts": names, "changes": dict(changes)})
                for slug, names in sorted(changed.items())
            )
        )
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
