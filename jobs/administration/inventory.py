"""The audited writers of what exists: customers, credentials, hosts."""

from collections.abc import Iterable, Mapping
from typing import Any

from django.db import IntegrityError, models, transaction
from django.db.models import ProtectedError, RestrictedError

from fleet.models import Credential, Customer, Host, HostStatus
from fleet.secrets import open_credential, seal_credential
from fleet.ssh.hostkeys import parse_host_key
from fleet.ssh.keys import UnusableKey, load_private_key
from jobs.actor import Actor
from jobs.administration import renaming
from jobs.administration.addresses import check_address
from jobs.audit import trail
from jobs.errors import Clash, Forbidden, Invalid

Values = Mapping[str, Any]

CONNECTION = frozenset(
    {"address", "port", "username", "credential", "host_key", "host_ca", "become", "jump_host", "enabled"}
)
"""Who changes one of these wants the host to be tried again, whatever was wrong with it."""

SECRETS = frozenset({"private_key", "passphrase", "certificate"})
MOST_JUMPS = 4


def create_customer(actor: Actor, values: Values) -> Customer:
    """A new customer. Raises Forbidden, Invalid (name_taken)."""
    if not actor.may_everywhere("administer"):
        raise Forbidden("forbidden", "only an administrator of all customers makes a new one")
    row = Customer(**values)
    with transaction.atomic():
        _insert(row, "slug", f"there is a customer {row.slug} already")
        _record(actor, row.slug, "customer.created", row.slug, values)
    return row


def update_customer(actor: Actor, row: Customer, values: Values) -> Customer:
    """Change a customer. Raises Forbidden; Invalid for another slug: the audit trail is filed by it."""
    must_administer(actor, row)
    if values.get("slug", row.slug) != row.slug:
        raise Invalid.field("slug", "invalid", "the slug of a customer cannot be changed")
    with transaction.atomic():
        _update(row, values)
        _record(actor, row.slug, "customer.updated", row.slug, values)
    return row


def delete_customer(actor: Actor, row: Customer) -> None:
    """Delete a customer without hosts, credentials and jobs. Raises Forbidden, Clash (in_use)."""
    if not actor.may_everywhere("administer"):
        raise Forbidden("forbidden", "only an administrator of all customers deletes one")
    if row.jobs.exists() or row.blocks.exists() or row.roles.exists():
        raise Clash("in_use", f"{row.slug} has jobs, blocks or roles; disable it instead")
    _delete(actor, row, row.slug, "customer.deleted", row.slug)


def create_credential(actor: Actor, values: Values) -> Credential:
    """A new credential, its private key sealed. Raises Forbidden, Invalid (unusable_key, name_taken)."""
    customer = administered_customer(actor, values["customer"])
    row = Credential(customer=customer, name=values["name"], certificate=values.get("certificate", ""))
    _set_key(row, values["private_key"], values.get("passphrase"))
    with transaction.atomic():
        _insert(row, "name", f"{customer.slug} has a credential {row.name} already")
        _record(actor, customer.slug, "credential.created", row.name, {**values, "public_key": row.public_key})
    return row


def update_credential(actor: Actor, row: Credential, values: Values) -> Credential:
    """Change a credential: another key, certificate or name. Raises Forbidden, Invalid."""
    must_administer(actor, row.customer)
    if values.get("customer", row.customer.slug) != row.customer.slug:
        raise Invalid.field("customer", "invalid", "a credential cannot be moved to another customer")
    if "passphrase" in values and "private_key" not in values:
        raise Invalid.field("passphrase", "invalid", "a passphrase belongs to a private_key that is given with it")
    pem = None if "private_key" in values else open_credential(row)
    row.name = values.get("name", row.name)
    row.certificate = values.get("certificate", row.certificate)
    if pem is None:
        _set_key(row, values["private_key"], values.get("passphrase"))
    else:
        seal_credential(row, pem)  # it is sealed for its name
    with transaction.atomic():
        _save(row, "name", f"{row.customer.slug} has a credential {row.name} already")
        _record(actor, row.customer.slug, "credential.updated", row.name, values)
    return row


def delete_credential(actor: Actor, row: Credential) -> None:
    """Delete a credential that no host uses. Raises Forbidden, Clash (in_use)."""
    must_administer(actor, row.customer)
    _delete(actor, row, row.customer.slug, "credential.deleted", row.name)


def create_host(actor: Actor, values: Values) -> Host:
    """A new host. Raises Forbidden, Invalid (name_taken, forbidden_range, ...)."""
    customer = administered_customer(actor, values["customer"])
    row = Host(customer=customer, **_host_fields(customer, None, values))
    check_address(row.address)
    with transaction.atomic():
        _insert(row, "name", f"the name {row.name} is taken; host names are unique in an installation")
        _record(actor, customer.slug, "host.created", row.name, values)
    return row


def update_host(actor: Actor, row: Host, values: Values) -> Host:
    """Change a host. What concerns its connection makes it `new` again, what names it follows another name.

    Raises Forbidden, Invalid, OperationalError.
    """
    must_administer(actor, row.customer)
    if values.get("customer", row.customer.slug) != row.customer.slug:
        raise Invalid.field("customer", "invalid", "a host cannot be moved to another customer; make it anew there")
    fields = _host_fields(row.customer, row, values)
    if CONNECTION & values.keys():
        fields |= {"status": HostStatus.NEW, "status_reason": ""}
    if "address" in values:
        check_address(fields.get("address", row.address))
    old_name = row.name
    with transaction.atomic():
        _update(row, fields, "name", "this host name is taken; host names are unique in an installation")
        if row.name != old_name:
            renaming.follow(row.customer.slug, old_name, row.name)
        _record(actor, row.customer.slug, "host.updated", old_name, values)
    return row


def delete_host(actor: Actor, row: Host) -> None:
    """Delete a host that no job has touched and no other host is reached through. Raises Forbidden, Clash (in_use)."""
    must_administer(actor, row.customer)
    _delete(actor, row, row.customer.slug, "host.deleted", row.name)


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


def _set_key(row: Credential, pem: str, passphrase: str | None) -> None:
    try:
        plain, row.public_key = load_private_key(pem, passphrase)
    except UnusableKey as error:
        raise Invalid.field("private_key", "unusable_key", error.reason) from error
    seal_credential(row, plain)


def _host_fields(customer: Customer, row: Host | None, values: Values) -> dict[str, Any]:
    fields = {name: value for name, value in values.items() if name != "customer"}
    if "credential" in fields:
        fields["credential"] = _credential(customer, fields["credential"])
    if "jump_host" in fields:
        fields["jump_host"] = _jump_host(customer, row, fields["jump_host"])
    for name in ("host_key", "host_ca"):
        if fields.get(name):
            fields[name] = _host_key(name, fields[name])
    return fields


def _credential(customer: Customer, name: str) -> Credential:
    row = customer.credentials.filter(name=name).first()
    if row is None:
        raise Invalid.field("credential", "invalid", f"{customer.slug} has no credential {name!r}")
    return row


def _jump_host(customer: Customer, row: Host | None, name: str | None) -> Host | None:
    if name is None:
        return None
    jump = customer.hosts.filter(name=name).first()
    if jump is None:
        raise Invalid.field("jump_host", "invalid", f"{customer.slug} has no host {name!r}")
    step: Host | None = jump
    for _ in range(MOST_JUMPS):
        if step is None:
            return jump
        if row is not None and step.pk == row.pk:
            raise Invalid.field("jump_host", "invalid", f"{row.name} would be reached through itself")
        step = step.jump_host
    raise Invalid.field("jump_host", "invalid", f"a host is reached through at most {MOST_JUMPS} others")


def _host_key(field: str, text: str) -> str:
    try:
        return parse_host_key(text)
    except ValueError as error:
        raise Invalid.field(field, "invalid", str(error)) from error


def _insert(row: models.Model, field: str, taken: str) -> None:
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


def _update(row: models.Model, values: Values, field: str = "", taken: str = "") -> None:
    for name, value in values.items():
        setattr(row, name, value)
    try:
        with transaction.atomic():
            row.save(update_fields=[*values, "updated_at"])
    except IntegrityError as error:
        raise Invalid.field(field, "name_taken", taken) from error


def _delete(actor: Actor, row: models.Model, customer: str, action: str, name: str) -> None:
    try:
        with transaction.atomic():
            row.delete()
            _record(actor, customer, action, name, {})
    except (ProtectedError, RestrictedError) as error:
        raise Clash("in_use", f"{name} is in use; disable it instead") from error


def _record(actor: Actor, customer: str, action: str, name: str, values: Values) -> None:
    shown = {key: "(not shown)" if key in SECRETS else value for key, value in values.items()}
    trail.append(trail.Entry(customer=customer, action=action, actor=actor, object=name, data=shown))
