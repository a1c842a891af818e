"""The audited writers of customers, and of the defaults that their new hosts get."""

from typing import Any

from django.db import transaction

from fleet.models import Customer
from jobs.actor import Actor
from jobs.administration.host_fields import checked_defaults
from jobs.administration.inventory import Values, delete_row, insert_row, must_administer, record, update_row
from jobs.administration.names import check_name
from jobs.errors import Clash, Forbidden, Invalid


def create_customer(actor: Actor, values: Values) -> Customer:
    """A new customer. Raises Forbidden, Invalid (name_taken)."""
    if not actor.may_everywhere("administer"):
        raise Forbidden("forbidden", "only an administrator of all customers makes a new one")
    check_name("slug", values["slug"])
    row = Customer(**{name: value for name, value in values.items() if name != "defaults"})
    with transaction.atomic():
        insert_row(row, "slug", f"there is a customer {row.slug} already")
        update_row(row, {"defaults": _defaults(row, values)})
        record(actor, row.slug, "customer.created", row.slug, values)
    return row


def update_customer(actor: Actor, row: Customer, values: Values) -> Customer:
    """Change a customer. Raises Forbidden; Invalid for another slug: the audit trail is filed by it."""
    must_administer(actor, row)
    if values.get("slug", row.slug) != row.slug:
        raise Invalid.field("slug", "invalid", "the slug of a customer cannot be changed")
    with transaction.atomic():
        update_row(row, {**values, "defaults": _defaults(row, values)})
        record(actor, row.slug, "customer.updated", row.slug, values)
    return row


def delete_customer(actor: Actor, row: Customer) -> None:
    """Delete a customer without hosts, credentials and jobs. Raises Forbidden, Clash (in_use)."""
    if not actor.may_everywhere("administer"):
        raise Forbidden("forbidden", "only an administrator of all customers deletes one")
    if row.jobs.exists() or row.blocks.exists() or row.roles.exists():
        raise Clash("in_use", f"{row.slug} has jobs, blocks or roles; disable it instead")
    delete_row(actor, row, row.slug, "customer.deleted", row.slug)


def _defaults(row: Customer, values: Values) -> dict[str, Any]:
    """The customer's defaults: those given, whole, or those that it has. Raises Invalid."""
    return checked_defaults(row, values["defaults"]) if "defaults" in values else row.defaults
