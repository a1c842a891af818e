"""The audited writers of tokens. A token is told once; stored is its SHA-256."""

import secrets
from collections.abc import Mapping
from datetime import datetime, timedelta
from ipaddress import ip_network
from typing import Any

from django.db import transaction
from django.db.models import Q, QuerySet
from django.utils import timezone

from api.auth import digest
from api.models import Token
from jobs import audit
from jobs.actor import Actor
from jobs.errors import Forbidden, Invalid
from jobs.models import Account, AccountKind

SCOPES = ("jobs:read", "jobs:request", "jobs:approve", "fleet:read", "fleet:write", "audit:read", "admin")
GRANT_OF = {
    "jobs:read": "read",
    "jobs:request": "request_reading",
    "jobs:approve": "decide",
    "fleet:read": "read",
    "fleet:write": "administer",
    "audit:read": "read",
    "admin": "administer",
}
LONGEST = timedelta(days=3660)


def visible_tokens(actor: Actor) -> QuerySet[Token]:
    """His own tokens, and those of the accounts that he administers."""
    rows = Token.objects.select_related("account").prefetch_related("account__roles")
    if actor.may_everywhere("administer") and actor.has_scope("admin"):
        return rows
    mine = Q(account=actor.account)
    if not actor.has_scope("admin"):
        return rows.filter(mine)
    administered = actor.customers("administer")
    within = Account.objects.filter(roles__customer__in=administered)
    beyond = Account.objects.filter(roles__isnull=False).exclude(roles__customer__in=administered)
    wide = Account.objects.filter(roles__customer=None, roles__isnull=False)
    return rows.filter(mine | (Q(account__in=within) & ~Q(account__in=beyond) & ~Q(account__in=wide)))


def effective_scopes(account: Account, narrowed: list[str] | frozenset[str] | None) -> list[str]:
    """What a token can be used for: all that the account's roles allow, less what it was narrowed away from."""
    actor = Actor(account=account)
    return [
        scope
        for scope in SCOPES
        if actor.may_somewhere(GRANT_OF[scope])
        and (not narrowed or scope in narrowed)
        and not (scope == "jobs:approve" and account.kind == AccountKind.SERVICE)
    ]


def issue(actor: Actor, values: Mapping[str, Any], by: Token | None) -> tuple[Token, str]:
    """A new token and its secret. `values`: name, user or service_account, scopes, expires_at, networks.

    `by`: the token that the caller used: a token for himself is never wider than that one. Raises Invalid, Forbidden.
    """
    owner = _owner(actor, values)
    row = Token(
        account=owner,
        name=values["name"],
        scopes=values.get("scopes") or [],
        networks=_networks(values.get("networks") or []),
        expires_at=_expiry(values.get("expires_at")),
    )
    if owner.pk == actor.account.pk and by is not None:
        _narrow(row, by)
    secret = f"mxf_{row.pk.hex[-8:]}_{secrets.token_urlsafe(32)}"
    row.digest = digest(secret)
    with transaction.atomic():
        row.save(force_insert=True)
        _record(actor, row, "token.created", {"scopes": row.scopes, "networks": row.networks, "name": row.name})
    return row, secret


def issue_first(account: Account) -> str:
    """The first administrator's token."""
    return issue(Actor(account=account, channel="cli"), {"name": "first administrator"}, None)[1]


def revoke(actor: Actor, row: Token) -> None:
    """End a token at once: each request looks it up anew."""
    with transaction.atomic():
        _record(actor, row, "token.revoked", {"name": row.name})
        row.delete()


def _owner(actor: Actor, values: Mapping[str, Any]) -> Account:
    username = values.get("user") or values.get("service_account")
    if "user" in values and "service_account" in values:
        raise Invalid.field("service_account", "invalid", "give user or service_account, not both")
    if username is None or username == actor.account.username:
        return actor.account
    if not actor.may_somewhere("administer") or not actor.has_scope("admin"):
        raise Forbidden("forbidden", "a token for somebody else needs the role and the scope admin")
    field, kind = ("user", AccountKind.PERSON) if "user" in values else ("service_account", AccountKind.SERVICE)
    row = Account.objects.filter(username=username, kind=kind).prefetch_related("roles").first()
    if row is None:
        raise Invalid.field(field, "invalid", f"there is no account {username!r} of that kind")
    if not actor.may_everywhere("administer"):
        reach = {role.customer_id for role in row.roles.all()} or {None}
        if not all(pk is not None and actor.may("administer", [pk]) for pk in reach):
            raise Forbidden("forbidden", "that account's roles reach beyond your own customers")
    return row


def _narrow(row: Token, by: Token) -> None:
    """A token made with another one is good for no more, for no longer, and from nowhere else."""
    if by.scopes and not set(row.scopes or by.scopes) <= set(by.scopes):
        raise Forbidden("forbidden", "a token cannot give away scopes that it does not have itself")
    row.scopes = row.scopes or by.scopes
    if by.networks:
        allowed = [ip_network(text) for text in by.networks]
        wanted = [ip_network(text) for text in row.networks] or allowed
        if not all(any(_is_within(inner, outer) for outer in allowed) for inner in wanted):
            raise Forbidden("forbidden", "a token cannot give away networks that it is not good for itself")
        row.networks = [str(network) for network in wanted]
    if by.expires_at is not None:
        row.expires_at = min(row.expires_at or by.expires_at, by.expires_at)


def _is_within(inner: Any, outer: Any) -> bool:
    return inner.version == outer.version and bool(inner.subnet_of(outer))


def _networks(texts: list[str]) -> list[str]:
    networks = []
    for index, text in enumerate(texts):
        try:
            networks.append(str(ip_network(text)))
        except ValueError as error:
            raise Invalid.field(
                f"networks[{index}]", "invalid", f"expected a network such as 192.0.2.0/24: {error}"
            ) from error
    return networks


def _expiry(moment: datetime | None) -> datetime | None:
    now = timezone.now()
    if moment is not None and not now < moment <= now + LONGEST:
        raise Invalid.field("expires_at", "out_of_range", "expected a time in the future, at most ten years ahead")
    return moment


def _record(actor: Actor, row: Token, action: str, data: dict[str, Any]) -> None:
    owner = row.account
    slugs = {role.customer.slug if role.customer else "" for role in owner.roles.select_related("customer")} or {""}
    data = {**data, "token": str(row.pk)}
    entries = [audit.Entry(slug, action, actor, owner.username, data=data) for slug in sorted(slugs)]
    audit.append(*entries)
