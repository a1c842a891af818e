"""Bearer tokens: who asks, from where, and with which scopes."""

from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime, timedelta
from ipaddress import ip_network
from traceback import clear_frames
from typing import Any

from django.db import DatabaseError, connection, transaction
from django.utils import timezone
from rest_framework.authentication import BaseAuthentication
from rest_framework.exceptions import AuthenticationFailed, NotAuthenticated, PermissionDenied
from rest_framework.permissions import BasePermission
from rest_framework.request import Request

from api.access import record_caller
from api.callers import digest_of, note_good
from api.errors import HOW_TO_LOG_IN, Problem
from api.models import Token
from api.origin import is_inside
from jobs.actor import Actor
from jobs.models import Account

UNKNOWN = "the token is unknown, expired or revoked"
UNSCOPED = ""
"""In a view's `scopes`: any good token may do this."""
COARSE = timedelta(minutes=1)
"""`last_used_at` is no more exact than this, so that reading does not mean writing."""


class BearerAuthentication(BaseAuthentication):
    """`Authorization: Bearer mxf_...` (RFC 6750). The account is `request.user`, the Actor `request.auth`."""

    def authenticate(self, request: Request) -> tuple[Any, Any] | None:
        header = request.META.get("HTTP_AUTHORIZATION")
        if header is None:
            return None
        actor = actor_for(header, request.META.get("REMOTE_ADDR") or "")
        return actor.account, actor

    def authenticate_header(self, request: Request) -> str:
        return 'Bearer realm="mxfleet"'


def digest(token: str) -> str:
    """What is stored of a token."""
    return digest_of(token.encode("utf-8", "surrogateescape"))


def actor_for(header: str, source: str) -> Actor:
    """Who sent this Authorization header from that address.

    Raises AuthenticationFailed, the same for all that is wrong with a token; Problem 403 for an address that the
    token is not good for.
    """
    scheme, _, secret = header.partition(" ")
    if scheme.lower() != "bearer":
        raise AuthenticationFailed(HOW_TO_LOG_IN)
    now = timezone.now()
    token = (
        Token.objects.select_related("account")
        .prefetch_related("account__roles")
        .filter(digest=digest(secret.strip(" ")))
        .first()
    )
    if token is None or not _is_good(token, now):
        raise AuthenticationFailed(UNKNOWN)
    note_good(token.digest)
    record_caller(token.account.username, str(token.pk))
    if token.networks and not is_inside(source, map(ip_network, token.networks)):
        raise Problem(403, "forbidden", "this token is not good for the address that it came from")
    if token.last_used_at is None or now - token.last_used_at > COARSE:
        _note_use(token, now)
    return actor_of(token, source)


def scoped_actor(header: str | None, source: str, scope: str) -> Actor:
    """`actor_for` outside of a view, while an answer goes on. Raises also when the token lacks the scope."""
    if header is None:
        raise NotAuthenticated
    actor = actor_for(header, source)
    if not actor.has_scope(scope):
        raise PermissionDenied(f"the token lacks the scope {scope}")
    return actor


def actor_of(token: Token, source: str = "") -> Actor:
    """Who acts with this token, and how far it reaches."""
    return Actor(
        account=token.account,
        scopes=frozenset(token.scopes) if token.scopes else None,
        channel="api",
        source=source,
        token=token.pk,
        within=frozenset(token.customers) if token.customers is not None else None,
        minted_by=tuple(token.minted_by),
    )


def _note_use(token: Token, now: datetime) -> None:
    """Write it down unless somebody else is writing: no reading request waits for that, or fails by it."""
    try:
        with _without_waiting(), transaction.atomic():
            for row in Token.objects.select_for_update(skip_locked=True).filter(pk=token.pk):
                row.last_used_at = now
                row.save(update_fields=["last_used_at"])
    except DatabaseError as error:
        _let_go(error)


def _let_go(error: BaseException | None) -> None:
    """End now what the error's frames hold, a cursor among it, instead of when garbage is collected.

    That may be in another thread, which then waits for this one's connection, while it holds the lock that this one
    waits for: both stand still until SQLite's time is over.
    """
    while error is not None:
        clear_frames(error.__traceback__)
        error = error.__cause__


@contextmanager
def _without_waiting() -> Iterator[None]:
    """The block waits for no other writer on SQLite, which has one lock for all of them."""
    if connection.vendor != "sqlite":
        yield
        return
    usual = round(connection.settings_dict["OPTIONS"]["timeout"] * 1000)
    with connection.cursor() as cursor:
        cursor.execute("PRAGMA busy_timeout = 0")
        try:
            yield
        finally:
            cursor.execute(f"PRAGMA busy_timeout = {usual}")


def _is_good(token: Token, now: datetime) -> bool:
    if not token.account.is_active or (token.expires_at is not None and token.expires_at <= now):
        return False
    # Who made it for somebody else has seen it, and would go on with it.
    return not Account.objects.filter(username__in=token.minted_by, is_active=False).exists()


class HasScope(BasePermission):
    """The token was not narrowed away from what the view's method needs; what names no scope is refused."""

    def has_permission(self, request: Request, view: Any) -> bool:
        if not isinstance(request.auth, Actor):
            return False
        if (request.method or "").lower() not in view.action_map:
            return True  # 405 comes next
        scope = view.scopes.get("GET" if request.method == "HEAD" else request.method)
        self.message = f"the token lacks the scope {scope}"
        return scope == UNSCOPED or (scope is not None and request.auth.has_scope(scope))
