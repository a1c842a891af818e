"""The audited writers of people and integrations, and of their roles."""

from collections.abc import Iterable, Mapping
from typing import Any

from django.db import IntegrityError, transaction
from django.db.models import ProtectedError, RestrictedError

from fleet.models import Customer
from jobs.actor import Actor
from jobs.administration.names import check_name
from jobs.audit import trail
from jobs.errors import Clash, Forbidden, Invalid
from jobs.models import Account, AccountKind, Role, RoleName

Values = Mapping[str, Any]
SYSTEM = "mxfleet"
"""Who the schedule is in jobs and in the audit trail: nobody else may be called so."""


def create_account(actor: Actor, kind: AccountKind, values: Values) -> Account:
    """A new person or integration. `roles`: [{"role", "customer": slug or None}]. Raises Forbidden, Invalid."""
    roles = _roles(actor, values.get("roles", []))
    must_reach(actor, {role.customer_id for role in roles} or {None})
    fields = {name: value for name, value in values.items() if name != "roles"}
    with transaction.atomic():
        row = _insert(kind, fields)
        _set_roles(row, roles)
        _record(actor, row, "created", values)
    return row


def update_account(actor: Actor, row: Account, values: Values) -> Account:
    """Change an account. Who administers some customers changes accounts whose roles are all there."""
    reach = reach_of(row)
    must_reach(actor, reach)
    if values.get("username", row.username) != row.username:
        raise Invalid.field("username", "invalid", "a username cannot be changed: the audit trail names people by it")
    fields = {name: value for name, value in values.items() if name not in ("roles", "username")}
    with transaction.atomic():
        for name, value in fields.items():
            setattr(row, name, value)
        row.save(update_fields=[*fields, "updated_at"])
        if "roles" in values:
            roles = _roles(actor, values["roles"])
            must_reach(actor, {role.customer_id for role in roles})
            _set_roles(row, roles)
        _record(actor, row, "updated", values, reach)
    return row


def delete_account(actor: Actor, row: Account) -> None:
    """Delete an account that never requested or decided anything, nor made a token for another one.

    Raises Forbidden, Clash (in_use).
    """
    reach = reach_of(row)
    must_reach(actor, reach)
    if row.pk == actor.account.pk:
        raise Clash("in_use", "an account cannot delete itself")
    try:
        with transaction.atomic():
            _record(actor, row, "deleted", {}, reach)
            row.delete()
    except ProtectedError as error:
        raise Clash("in_use", f"{row.username} has jobs or decisions; disable the account instead") from error
    except RestrictedError as error:
        raise Clash("in_use", f"tokens of others were made with those of {row.username}; revoke these first") from error


def first_admin(username: str) -> Account:
    """The installation's first administrator, a person for all customers; made with that name when there is none."""
    with transaction.atomic():
        admins = Role.objects.filter(role=RoleName.ADMIN, customer=None, account__kind=AccountKind.PERSON)
        known = admins.filter(account__is_active=True).order_by("account_id").first()
        if known is not None:
            return known.account
        row = Account.objects.create_user(username, name="First administrator")
        _set_roles(row, [Role(role=RoleName.ADMIN, customer=None)])
        trail.append(trail.Entry(customer="", action="user.created", actor=None, object=username, data={"first": True}))
    return row


def reach_of(row: Account) -> set[int | None]:
    """The customers at which the account has roles; None stands for all of them, and for an account without any."""
    return {role.customer_id for role in row.roles.all()} or {None}


def must_reach(actor: Actor, customers: Iterable[int | None]) -> None:
    """Raise Forbidden unless the actor administers all of these. None stands for all customers."""
    if not actor.may_somewhere("administer"):
        raise Forbidden("forbidden", "only an administrator changes accounts")
    for pk in customers:
        allowed = actor.may_everywhere("administer") if pk is None else actor.may("administer", [pk])
        if not allowed:
            raise Forbidden("forbidden", "that account, or a role given to it, reaches beyond your own customers")


def _roles(actor: Actor, wanted: list[Values]) -> list[Role]:
    slugs = {item["customer"] for item in wanted if item["customer"] is not None}
    known: dict[str, Customer] = {row.slug: row for row in actor.customers("read").filter(slug__in=slugs)}
    roles = []
    seen = set()
    for index, item in enumerate(wanted):
        slug = item["customer"]
        if slug is not None and slug not in known:
            raise Invalid.field(f"roles[{index}].customer", "invalid", f"there is no customer {slug!r}")
        if (item["role"], slug) in seen:
            raise Invalid.field(f"roles[{index}]", "invalid", "this role is given twice")
        seen.add((item["role"], slug))
        roles.append(Role(role=item["role"], customer=known[slug] if slug is not None else None))
    return roles


def _insert(kind: AccountKind, fields: dict[str, Any]) -> Account:
    username = fields.pop("username")
    if username.casefold() == SYSTEM:
        raise Invalid.field("username", "name_taken", f"{SYSTEM} is the name in which the schedule acts")
    check_name("username", username)
    if Account.objects.filter(username__iexact=username).exists():
        raise _taken(username)
    try:
        with transaction.atomic():
            return Account.objects.create_user(username, kind=kind, **fields)
    except IntegrityError as error:
        raise _taken(username) from error


def _taken(username: str) -> Invalid:
    return Invalid.field("username", "name_taken", f"there is an account {username} already (case does not count)")


def _set_roles(row: Account, roles: list[Role]) -> None:
    row.roles.all().delete()
    for role in roles:
        role.account = row
    Role.objects.bulk_create(roles)
    vars(row).pop("_prefetched_objects_cache", None)  # the roles that were read before are no longer true


def _record(actor: Actor, row: Account, action: str, values: Values, also: Iterable[int | None] = ()) -> None:
    """One entry in the chain of each customer that the account's roles touch, before or after."""
    kind = "user" if row.kind == AccountKind.PERSON else "service_account"
    reached = {*also, *row.roles.values_list("customer_id", flat=True)}
    slugs = set(Customer.objects.filter(pk__in=[pk for pk in reached if pk]).values_list("slug", flat=True))
    if None in reached or not slugs:
        slugs.add("")
    trail.append(
        *(
            trail.Entry(slug, f"{kind}.{action}", actor, object=row.username, data=_own_part(values, slug))
            for slug in sorted(slugs)
        )
    )


def _own_part(values: Values, slug: str) -> dict[str, Any]:
    """Without the roles at other customers. The installation's own chain, "", is read only by who reads them all."""
    if "roles" not in values or not slug:
        return dict(values)
    return {**values, "roles": [role for role in values["roles"] if role["customer"] in (slug, None)]}
