"""The audited writers of tokens. A token is shown once; stored is its SHA-256."""

import secrets
from collections.abc import Mapping
from datetime import datetime, timedelta
from ipaddress import ip_network
from typing import Any
from uuid import UUID

from django.db import transaction
from django.db.models import Q, QuerySet
from django.utils import timezone
from rest_framework.exceptions import AuthenticationFailed

from api.auth import UNKNOWN, digest
from api.models import Token
from jobs.actor import Actor
from jobs.administration.accounts import must_reach, reach_of
from jobs.audit import trail
from jobs.errors import Forbidden, Invalid
from jobs.models import Account, AccountKind, Role
from jobs.selectors import visible_accounts

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
    """His own tokens, and those of the accounts all of whose roles are at customers that he administers."""
    rows = Token.objects.select_related("account").prefetch_related("account__roles__customer")
    if actor.may_everywhere("administer") and actor.has_scope("admin"):
        return rows
    mine = Q(account=actor.account)
    if not actor.has_scope("admin"):
        return rows.filter(mine)
    administered = actor.customers("administer")
    within = Role.objects.filter(customer__in=administered).values("account")
    beyond = Role.objects.exclude(customer__in=administered).values("account")
    return rows.filter(mine | (Q(account__in=within) & ~Q(account__in=beyond)))


def effective_scopes(actor: Actor) -> list[str]:
    """What a token can be used for: all that the account's roles allow, less what it was narrowed away from."""
    decides = actor.account.kind == AccountKind.PERSON and not actor.minted_by
    return [
        scope
        for scope in SCOPES
        if actor.may_somewhere(GRANT_OF[scope]) and actor.has_scope(scope) and (decides or scope != "jobs:approve")
    ]


def issue(actor: Actor, values: Mapping[str, Any]) -> tuple[Token, str]:
    """A new token and its secret. `values`: name, user or service_account, scopes, expires_at, networks.

    It is never wider than the token that the actor uses, whoever it is for, and ends with that one. Raises Invalid,
    Forbidden, and AuthenticationFailed when that token was revoked a moment ago.
    """
    with transaction.atomic():
        return _issue(actor, values)


def _issue(actor: Actor, values: Mapping[str, Any]) -> tuple[Token, str]:
    # Locked, so that who revokes that token at this moment finds the new one too, or this one no more.
    by = Token.objects.select_for_update().filter(pk=actor.token).first() if actor.token else None
    if by is None:
        raise AuthenticationFailed(UNKNOWN)
    owner = _owner(actor, values)
    row = _unsaved(owner, values)
    row.made_with = by
    _narrow(row, by)
    is_own = owner.pk == actor.account.pk
    row.customers = by.customers if is_own else _reach(actor, owner)
    row.minted_by = by.minted_by if is_own else sorted({*by.minted_by, actor.account.username} - {owner.username})
    is_act_on_person = not is_own and owner.kind == AccountKind.PERSON
    return row, _store(actor, row, "token.created_for_other" if is_act_on_person else "token.created")


def issue_on_server(account: Account, values: Mapping[str, Any]) -> str:
    """The secret of a new token that counts as made by the account's own person. Only for who is on the machine."""
    return _store(None, _unsaved(account, values), "token.first")


def first_token(username: str) -> str:
    """The secret of a person's first own token. Raises Invalid: there is no such person, or they have one already."""
    row = Account.objects.filter(username=username, kind=AccountKind.PERSON, is_active=True).first()
    if row is None:
        raise Invalid.field("username", "invalid", f"there is no enabled person {username!r}")
    still_good = Q(expires_at=None) | Q(expires_at__gt=timezone.now())
    own = row.tokens.filter(still_good, minted_by=[]).first()
    if own is not None:
        detail = (
            f"{username} has a token of their own, {own.pk} ({own.name}), and makes others with it; lost? revoke it"
        )
        raise Invalid.field("username", "invalid", detail)
    return issue_on_server(row, {"name": "first token"})


def revoke(actor: Actor, row: Token) -> None:
    """End a token, and all that were made with it, at once: each request looks it up anew.

    Raises Forbidden, also for one of his own with customers or, unless he has the scope admin, with scopes that the one
    he uses lacks: who was given a token for reading shall not take away what others work with.
    """
    if row.account_id != actor.account.pk:
        must_reach(actor, reach_of(row.account))
    elif _is_wider(row, actor):
        raise Forbidden("forbidden", "a token cannot revoke one that has scopes or customers which it lacks itself")
    with transaction.atomic():
        rows = _tree([row.pk])
        entries = [entry for each in rows for entry in _entries(actor, each, "token.revoked", _audited(each, "name"))]
        trail.append(*entries)
        Token.objects.filter(pk__in=[each.pk for each in rows]).delete()


def _tree(ids: list[UUID]) -> list[Token]:
    """These tokens and all that were made with them, locked from the root on, so that none is made meanwhile."""
    tokens = Token.objects.select_for_update(of=("self",)).select_related("account").order_by("pk")
    level, found = list(tokens.filter(pk__in=ids)), []
    while level:
        found += level
        level = list(tokens.filter(made_with__in=level))
    return found


def _unsaved(owner: Account, values: Mapping[str, Any]) -> Token:
    return Token(
        account=owner,
        name=values["name"],
        scopes=values.get("scopes") or [],
        networks=_networks(values.get("networks") or []),
        expires_at=_expiry(values.get("expires_at")),
    )


def _store(actor: Actor | None, row: Token, action: str) -> str:
    secret = f"mxf_{row.pk.hex[-8:]}_{secrets.token_urlsafe(32)}"
    row.digest = digest(secret)
    data = _audited(row, "name", "scopes", "networks", "expires_at", "minted_by")
    with transaction.atomic():
        row.save(force_insert=True)
        trail.append(*_entries(actor, row, action, data))
    return secret


def _owner(actor: Actor, values: Mapping[str, Any]) -> Account:
    username = values.get("user") or values.get("service_account")
    if "user" in values and "service_account" in values:
        raise Invalid.field("service_account", "invalid", "give user or service_account, not both")
    if username is None or username == actor.account.username:
        return actor.account
    if not actor.may_somewhere("administer") or not actor.has_scope("admin"):
        raise Forbidden("forbidden", "a token for somebody else needs the role and the scope admin")
    field, kind = ("user", AccountKind.PERSON) if "user" in values else ("service_account", AccountKind.SERVICE)
    row = visible_accounts(actor, kind).filter(username=username).first()
    if row is None:
        nobody = f"there is no {field.replace('_', ' ')} {username!r} that you administer"
        hint = "; a service account is named in service_account" if field == "user" else ""
        raise Invalid.field(field, "invalid", nobody + hint)
    must_reach(actor, reach_of(row))
    return row


def _reach(actor: Actor, owner: Account) -> list[str] | None:
    """Roles that the owner gets later, from others, must not widen what an administrator of some customers gave."""
    if actor.may_everywhere("administer"):
        return None
    return sorted({role.customer.slug for role in owner.roles.all() if role.customer})


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


def _is_wider(row: Token, actor: Actor) -> bool:
    """Whether the token is good for customers that the one which the actor uses is not good for, or for scopes."""
    if actor.within is not None and (row.customers is None or not actor.within.issuperset(row.customers)):
        return True
    return not actor.has_scope("admin") and not set(actor.scopes or ()).issuperset(row.scopes or SCOPES)


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


def _audited(row: Token, *names: str) -> dict[str, Any]:
    return {name: getattr(row, name) for name in names} | {"token": row.pk, "made_with": row.made_with_id}


def _entries(actor: Actor | None, row: Token, action: str, data: dict[str, Any]) -> list[trail.Entry]:
    """One for the chain of each customer at which the token's account has roles."""
    owner = row.account
    slugs = {role.customer.slug if role.customer else "" for role in owner.roles.select_related("customer")} or {""}
    within = {slug: {} if row.customers is None else {"customers": [slug]} for slug in sorted(slugs)}
    return [trail.Entry(slug, action, actor, owner.username, data=data | own) for slug, own in within.items()]
