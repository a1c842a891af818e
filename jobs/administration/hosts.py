"""The audited writers of hosts: one alone, or what rows of many come to."""

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from django.db import IntegrityError, transaction

from fleet.models import Customer, Host, HostStatus
from jobs.actor import Actor
from jobs.administration import renaming
from jobs.administration.host_fields import Known, Row, fields_of, not_as_pinned, placed
from jobs.administration.inventory import (
    Values,
    delete_row,
    follow_default,
    must_administer,
    record,
    refuse_default,
    update_row,
)
from jobs.administration.names import check_name
from jobs.errors import FieldError, Forbidden, Invalid
from jobs.rows import BATCH

CONNECTION = frozenset(
    {"address", "port", "username", "credential", "host_key", "host_ca", "become", "jump_host", "enabled"}
)
"""Who changes one of these wants the host to be tried again, whatever was wrong with it."""

NONE_NEXT: Mapping[str, Any] = {
    "next_credential": None,
    "next_credential_due": None,
    "next_credential_tries": 0,
    "next_credential_error": "",
}
"""Who says which credential a host has ends the trying of another one."""

FORBIDDEN = "forbidden"
NEEDED = ("username", "credential")
"""What a new host has from its row or from its customer's defaults."""


@dataclass(frozen=True, slots=True)
class Decision:
    """What a row comes to: `host` with what it is to be, not yet written. `changes`: the fields that are not as they
    were; none: nothing is to be done."""

    row: Row
    host: Host
    is_new: bool
    changes: tuple[str, ...] = field(default=())

    def audited(self) -> dict[str, Any]:
        """What the audit trail tells of it: what was given, and for a new host what its customer's defaults added."""
        added = self.host.customer.defaults if self.is_new else {}
        return {**{name: value for name, value in added.items() if name in self.changes}, **self.row.values}


def create_host(actor: Actor, values: Values) -> Host:
    """A new host. Raises Forbidden, Invalid (name_taken, forbidden_range, ...)."""
    with transaction.atomic():
        decision = decide(actor, [Row(values)], must_be_new=True)[0]
        store([decision])
        record(actor, decision.host.customer.slug, "host.created", decision.host.name, decision.audited())
    return decision.host


def put_host(actor: Actor, values: Values) -> Decision:
    """Add the host, or change what the values name of the one that is there. Raises Forbidden, Invalid."""
    with transaction.atomic():
        decision = decide(actor, [Row(values)])[0]
        store([decision])
        if decision.changes:
            action = "host.created" if decision.is_new else "host.updated"
            record(actor, decision.host.customer.slug, action, decision.host.name, decision.audited())
    return decision


def update_host(actor: Actor, row: Host, values: Values) -> Host:
    """Change a host. What concerns its connection makes it `new` again, what names it follows another name.

    Raises Forbidden, Invalid, OperationalError.
    """
    must_administer(actor, row.customer)
    if values.get("customer", row.customer.slug) != row.customer.slug:
        raise Invalid.field("customer", "invalid", "a host cannot be moved to another customer; make it anew there")
    old_name = row.name
    if values.get("name", old_name) != old_name:
        check_name("name", values["name"])
    given = {name: value for name, value in values.items() if name != "customer"}
    with transaction.atomic():
        fields, wrong = fields_of(Known([row.customer], [Row({**given, "name": old_name})]), row, given)
        if "old_fingerprint" in values:
            wrong += not_as_pinned(row, fields, values["old_fingerprint"])
        if wrong:
            raise Invalid.fields(*wrong)
        if CONNECTION & fields.keys():
            fields |= {"status": HostStatus.NEW, "status_reason": ""}
        if "credential" in fields:
            fields |= NONE_NEXT
        update_row(row, fields, "name", "this host name is taken; host names are unique in an installation")
        if row.name != old_name:
            follow_default(row.customer, "jump_host", old_name, row.name)
            renaming.follow(row.customer.slug, old_name, row.name)
        record(actor, row.customer.slug, "host.updated", old_name, values)
    return row


def delete_host(actor: Actor, row: Host) -> None:
    """Delete a host that no job has touched and no other host is reached through. Raises Forbidden, Clash (in_use)."""
    must_administer(actor, row.customer)
    refuse_default(row.customer, "jump_host", row.name)
    delete_row(actor, row, row.customer.slug, "host.deleted", row.name)


def decide(actor: Actor, rows: Sequence[Row], *, must_be_new: bool = False) -> list[Decision]:
    """What the rows come to, in their order; within the transaction that stores it.

    Raises Forbidden, and Invalid with all that is wrong, in the order of the rows.
    """
    foreign, administered = _customers(actor, rows)
    known = Known(administered, rows)
    decisions: list[Decision] = []
    wrong: list[FieldError] = []
    for row, values in zip(rows, known.wanted, strict=True):
        found: Sequence[FieldError] = (*row.wrong, *_not_his(row, foreign))
        if not found:
            try:
                decisions.append(_decide(known, row, values, must_be_new=must_be_new))
            except Invalid as error:
                found = error.errors
        wrong += [placed(row, each) for each in found]
    if wrong:
        raise _refusal(tuple(dict.fromkeys(wrong)))
    return decisions


def _refusal(errors: tuple[FieldError, ...]) -> Invalid | Forbidden:
    if all(each.code == FORBIDDEN for each in errors):
        return Forbidden(FORBIDDEN, errors[0].detail, errors)
    return Invalid.fields(*errors)


def store(decisions: Sequence[Decision]) -> None:
    """Write them, in a few statements. Raises Invalid when somebody took one of the names meanwhile."""
    changed = [each.host for each in decisions if each.changes and not each.is_new]
    fields = {name for each in decisions if not each.is_new for name in each.changes}
    if CONNECTION & fields:
        fields |= {"status", "status_reason"}
    if "credential" in fields:
        fields |= NONE_NEXT.keys()
    try:
        with transaction.atomic():
            for hosts in _those_before([each.host for each in decisions if each.is_new]):
                Host.objects.bulk_create(hosts, BATCH)
            if changed:
                written = [*sorted(fields), "updated_at"]
                Host.objects.bulk_create(
                    changed, BATCH, update_conflicts=True, unique_fields=["id"], update_fields=written
                )
    except IntegrityError as error:
        raise Invalid.field("name", "name_taken", "a host of such a name was added meanwhile; send it again") from error


def _customers(actor: Actor, rows: Sequence[Row]) -> tuple[set[str], list[Customer]]:
    """Of the customers that the rows name and the actor sees: those that he does not administer, and the others."""
    slugs = {row.values["customer"] for row in rows if "customer" in row.values}
    seen = list(actor.customers("read").filter(slug__in=slugs))
    administered = [customer for customer in seen if actor.may("administer", [customer.pk])]
    return {customer.slug for customer in seen if customer not in administered}, administered


def _not_his(row: Row, foreign: Collection[str]) -> list[FieldError]:
    slug = row.values.get("customer")
    if slug not in foreign:
        return []
    return [FieldError("customer", "forbidden", f"only an administrator of {slug} changes that")]


def _decide(known: Known, row: Row, values: Mapping[str, Any], *, must_be_new: bool) -> Decision:
    slug, name = row.values["customer"], row.values["name"]
    customer = known.customers.get(slug)
    if customer is None:
        raise Invalid.field("customer", "invalid", f"there is no customer {slug!r}")
    host = known.hosts.get(name)
    if host is None or host.customer_id != customer.pk or (must_be_new and host.pk is not None):
        raise Invalid.field("name", "name_taken", f"the name {name} is taken; host names are unique in an installation")
    is_new = host.pk is None
    if is_new:
        check_name("name", name)
    given = {key: value for key, value in values.items() if key not in ("customer", "name")}
    fields, wrong = fields_of(known, host, given)
    wrong += [_needed(customer, each) for each in NEEDED if is_new and each not in values]
    wrong += not_as_pinned(host, fields, row.values.get("old_fingerprint"))
    if wrong:
        raise Invalid.fields(*wrong)
    changes = tuple(key for key, value in fields.items() if is_new or getattr(host, key) != value)
    for key in changes:
        setattr(host, key, fields[key])
    if CONNECTION & set(changes):
        host.status, host.status_reason = HostStatus.NEW, ""
    if "credential" in changes:
        for key, value in NONE_NEXT.items():
            setattr(host, key, value)
    return Decision(row, host, is_new, changes)


def _needed(customer: Customer, name: str) -> FieldError:
    return FieldError(name, "required", f"{customer.slug} has no default for it")


def _those_before(hosts: Sequence[Host]) -> Iterator[list[Host]]:
    """The hosts in groups: each is reached through one of an earlier group, or through one that is stored already."""
    while hosts:
        ready = [row for row in hosts if row.jump_host is None or row.jump_host.pk is not None]
        yield ready
        hosts = [row for row in hosts if row.pk is None]
