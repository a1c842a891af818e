"""The audited writers of credentials, and what those of hosts and customers share with them."""

from collections.abc import Iterable, Mapping
from typing import Any

from django.db import IntegrityError, models, transaction
from django.db.models import ProtectedError, RestrictedError

from fleet.models import Credential, Customer, Host
from fleet.secrets import open_credential, seal_credential
from fleet.ssh.keys import UnusableKey, load_private_key
from jobs.actor import Actor
from jobs.administration.names import check_name
from jobs.audit import trail
from jobs.errors import Clash, Forbidden, Invalid

Values = Mapping[str, Any]

SECRETS = frozenset({"private_key", "passphrase", "certificate"})


def create_credential(actor: Actor, values: Values) -> Credential:
    """A new credential, its private key sealed. Raises Forbidden, Invalid (unusable_key, name_taken)."""
    customer = administered_customer(actor, values["customer"])
    check_name("name", values["name"])
    row = Credential(customer=customer, name=values["name"], certificate=values.get("certificate", ""))
    _set_key(row, values["private_key"], values.get("passphrase"))
    with transaction.atomic():
        insert_row(row, "name", f"{customer.slug} has a credential {row.name} already")
        record(actor, customer.slug, "credential.created", row.name, {**values, "public_key": row.public_key})
    return row


def update_credential(actor: Actor, row: Credential, values: Values) -> Credential:
    """Change a credential: another key, certificate or name. Raises Forbidden, Invalid."""
    must_administer(actor, row.customer)
    if values.get("customer", row.customer.slug) != row.customer.slug:
        raise Invalid.field("customer", "invalid", "a credential cannot be moved to another customer")
    if "passphrase" in values and "private_key" not in values:
        raise Invalid.field("passphrase", "invalid", "a passphrase belongs to a private_key that is given with it")
    pem = None if "private_key" in values else open_credential(row)
    old_name = row.name
    row.name = values.get("name", old_name)
    if row.name != old_name:
        check_name("name", row.name)
    row.certificate = values.get("certificate", row.certificate)
    if pem is None:
        _set_key(row, values["private_key"], values.get("passphrase"))
    else:
        seal_credential(row, pem)  # it is sealed for its name
    with transaction.atomic():
        _save(row, "name", f"{row.customer.slug} has a credential {row.name} already")
        if row.name != old_name:
            follow_default(row.customer, "credential", old_name, row.name)
        record(actor, row.customer.slug, "credential.updated", row.name, values)
    return row


def delete_credential(actor: Actor, row: Credential) -> None:
    """Delete a credential that no host uses. Raises Forbidden, Clash (in_use)."""
    must_administer(actor, row.customer)
    refuse_default(row.customer, "credential", row.name)
    delete_row(actor, row, row.customer.slug, "credential.deleted", row.name)


def must_administer(actor: Actor, customer: Customer) -> None:
    """Raise Forbidden unless the actor's roles and token let him change what belongs to the customer."""
    if not actor.may("administer", [customer.pk]):
        raise Forbidden("forbidden", f"only an administrator of {customer.slug} changes that")


def must_administer_all(actor: Actor, hosts: Iterable[Host]) -> None:
    """The same of the customers of these hosts."""
    for customer in {host.customer_id: host.customer for host in hosts}.values():
        must_administer(actor, customer)


def administered_customer(actor: Actor, slug: str) -> Customer:
    """The customer of that name. Raises Invalid when it is not visible, Forbidden when it is not administered."""
    row = actor.customers("read").filter(slug=slug).first()
    if row is None:
        raise Invalid.field("customer", "invalid", f"there is no customer {slug!r}")
    must_administer(actor, row)
    return row


def follow_default(customer: Customer, field: str, old: str, new: str) -> None:
    """Go on to mean, in the customer's defaults, what is called otherwise from now on."""
    row = Customer.objects.select_for_update(no_key=True).get(pk=customer.pk)
    if row.defaults.get(field) == old:
        update_row(row, {"defaults": {**row.defaults, field: new}})


def refuse_default(customer: Customer, field: str, name: str) -> None:
    """Raise Clash where the customer's defaults name it: new hosts would refer to nothing."""
    if customer.defaults.get(field) == name:
        raise Clash("in_use", f"{name} is a default of {customer.slug}; take that away first")


def _set_key(row: Credential, pem: str, passphrase: str | None) -> None:
    try:
        plain, row.public_key = load_private_key(pem, passphrase)
    except UnusableKey as error:
        raise Invalid.field("private_key", "unusable_key", error.reason) from error
    seal_credential(row, plain)


def insert_row(row: models.Model, field: str, taken: str) -> None:
    """Raises Invalid (name_taken), for that field and in these words."""
    try:
        with transaction.atomic():
            row.save(force_insert=True)
    except IntegrityError as error:
        raise Invalid.field(field, "name_taken", taken) from error


def _save(row: models.Model, field: str, taken: str) -> None:
    try:
        with transaction.atomic():
            row.save()
    except IntegrityError as error:
        raise Invalid.field(field, "name_taken", taken) from error


def update_row(row: models.Model, values: Values, field: str = "", taken: str = "") -> None:
    """Write these fields of a row. Raises Invalid (name_taken), for that field and in these words."""
    for name, value in values.items():
        setattr(row, name, value)
    try:
        with transaction.atomic():
            row.save(update_fields=[*values, "updated_at"])
    except IntegrityError as error:
        raise Invalid.field(field, "name_taken", taken) from error


def delete_row(actor: Actor, row: models.Model, customer: str, action: str, name: str) -> None:
    """Delete a row and record it. Raises Clash (in_use)."""
    try:
        with transaction.atomic():
            row.delete()
            record(actor, customer, action, name, {})
    except (ProtectedError, RestrictedError) as error:
        raise Clash("in_use", f"{name} is in use; disable it instead") from error


def record(actor: Actor, customer: str, action: str, name: str, values: Values) -> None:
    """An entry in that customer's chain, without what is secret."""
    shown = {key: "(not shown)" if key in SECRETS else value for key, value in values.items()}
    trail.append(trail.Entry(customer=customer, action=action, actor=actor, object=name, data=shown))
