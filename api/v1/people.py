"""Customers, users, service accounts, tokens, and who am I."""

from typing import Any, ClassVar

from rest_framework.request import Request
from rest_framework.response import Response

from api.filters import flag
from api.idempotency import Answer
from api.tokens import effective_scopes, issue, revoke, visible_tokens
from api.v1.shapes_fleet import CustomerShape, NewTokenShape, ServiceAccountShape, TokenShape, UserShape, WhoamiShape
from api.view import ApiView, ListView, Method, ObjectView, Rows, found
from jobs import selectors
from jobs.administration import accounts, inventory
from jobs.models import AccountKind

NARROW_ADMIN = {"GET": "fleet:read", "POST": "admin", "PATCH": "admin", "DELETE": "admin"}


class Customers(ListView):
    """The customers that the caller may see."""

    tag = "people"
    scopes = NARROW_ADMIN
    serializer = CustomerShape
    orderings = {"slug": ("slug",)}
    filters = {"enabled": flag("enabled", "Only the enabled, or the disabled ones.")}
    methods = {
        "GET": Method("List customers", CustomerShape, is_page=True),
        "POST": Method("Add a customer", CustomerShape, CustomerShape, 201),
    }

    def rows(self) -> Rows:
        return selectors.visible_customers(self.actor)

    def post(self, request: Request) -> Response:
        values = self.read(CustomerShape)

        def work() -> Answer:
            row = inventory.create_customer(self.actor, values)
            return Answer(201, dict(CustomerShape(row).data), {"Location": self.url(f"/api/v1/customers/{row.slug}/")})

        return self.answered(work)


class Customer(ObjectView):
    """One customer."""

    tag = "people"
    scopes = NARROW_ADMIN
    serializer = CustomerShape
    methods = {
        "GET": Method("Show a customer", CustomerShape),
        "PATCH": Method("Change a customer", CustomerShape, CustomerShape),
        "DELETE": Method("Delete a customer", status=204),
    }

    def _row(self, slug: str) -> Any:
        return found(selectors.visible_customers(self.actor), slug=slug)

    def get(self, request: Request, slug: str) -> Response:
        return self.detail_response(self.render(self._row(slug)))

    def patch(self, request: Request, slug: str) -> Response:
        return self.change(lambda: self._row(slug), lambda row, new: inventory.update_customer(self.actor, row, new))

    def delete(self, request: Request, slug: str) -> Response:
        return self.remove(lambda: self._row(slug), lambda row: inventory.delete_customer(self.actor, row))


class Users(ListView):
    """People: oneself, and those that the caller administers."""

    tag = "people"
    scopes = NARROW_ADMIN
    serializer = UserShape
    kind: ClassVar[AccountKind] = AccountKind.PERSON
    path: ClassVar[str] = "users"
    orderings = {"username": ("username",)}
    filters = {"enabled": flag("is_active", "Only the enabled, or the disabled ones.")}
    methods = {
        "GET": Method("List people", UserShape, is_page=True),
        "POST": Method("Add a person", UserShape, UserShape, 201),
    }

    def rows(self) -> Rows:
        return selectors.visible_accounts(self.actor, self.kind)

    def post(self, request: Request) -> Response:
        values = self.read(self.serializer)
        values.pop("kind", None)

        def work() -> Answer:
            row = accounts.create_account(self.actor, self.kind, values)
            location = self.url(f"/api/v1/{self.path}/{row.username}/")
            return Answer(201, self.render([row])[0], {"Location": location})

        return self.answered(work)

    def render(self, rows: list[Any]) -> list[Any]:
        return [dict(self.serializer(row, context={"actor": self.actor}).data) for row in rows]


class User(ObjectView):
    """One person."""

    tag = "people"
    scopes = NARROW_ADMIN
    serializer = UserShape
    kind: ClassVar[AccountKind] = AccountKind.PERSON
    methods = {
        "GET": Method("Show a person", UserShape),
        "PATCH": Method("Change a person", UserShape, UserShape),
        "DELETE": Method("Delete a person", status=204),
    }

    def _row(self, username: str) -> Any:
        return found(selectors.visible_accounts(self.actor, self.kind), username=username)

    def render(self, row: Any) -> dict[str, Any]:
        return dict(self.serializer(row, context={"actor": self.actor}).data)

    def get(self, request: Request, username: str) -> Response:
        return self.detail_response(self.render(self._row(username)))

    def patch(self, request: Request, username: str) -> Response:
        def update(row: Any, values: dict[str, Any]) -> None:
            values.pop("kind", None)
            accounts.update_account(self.actor, row, values)

        return self.change(lambda: self._row(username), update)

    def delete(self, request: Request, username: str) -> Response:
        return self.remove(lambda: self._row(username), lambda row: accounts.delete_account(self.actor, row))


class ServiceAccounts(Users):
    """Integrations."""

    serializer = ServiceAccountShape
    kind = AccountKind.SERVICE
    path = "service-accounts"
    methods = {
        "GET": Method("List integrations", ServiceAccountShape, is_page=True),
        "POST": Method("Add an integration", ServiceAccountShape, ServiceAccountShape, 201),
    }


class ServiceAccount(User):
    """One integration."""

    serializer = ServiceAccountShape
    kind = AccountKind.SERVICE
    methods = {
        "GET": Method("Show an integration", ServiceAccountShape),
        "PATCH": Method("Change an integration", ServiceAccountShape, ServiceAccountShape),
        "DELETE": Method("Delete an integration", status=204),
    }


class Tokens(ListView):
    """The caller's tokens, and those of accounts that the caller administers."""

    tag = "people"
    serializer = TokenShape
    orderings = {"-created_at": ("-id",)}
    methods = {
        "GET": Method("List tokens", TokenShape, is_page=True),
        "POST": Method("Make a token; it is told once", NewTokenShape, TokenShape, 201),
    }

    def rows(self) -> Rows:
        return visible_tokens(self.actor)

    def post(self, request: Request) -> Response:
        values = self.read(TokenShape)

        def work() -> Answer:
            row, secret = issue(self.actor, values)
            body = {**TokenShape(row).data, "token": secret}
            return Answer(201, body, {"Location": self.url(f"/api/v1/tokens/{row.pk}/")})

        return self.answered(work)


class TokenView(ObjectView):
    """One token. DELETE revokes it at once."""

    tag = "people"
    serializer = TokenShape
    methods = {"GET": Method("Show a token", TokenShape), "DELETE": Method("Revoke a token", status=204)}

    def _row(self, pk: Any) -> Any:
        return found(visible_tokens(self.actor), pk=pk)

    def get(self, request: Request, pk: Any) -> Response:
        return self.detail_response(self.render(self._row(pk)))

    def delete(self, request: Request, pk: Any) -> Response:
        return self.remove(lambda: self._row(pk), lambda row: revoke(self.actor, row))


class Whoami(ApiView):
    """The caller."""

    tag = "people"
    methods = {"GET": Method("Who am I", WhoamiShape)}

    def get(self, request: Request) -> Response:
        account = self.actor.account
        roles = UserShape(account, context={"actor": self.actor}).data["roles"]
        of_others = visible_tokens(self.actor).filter(account=account).exclude(minted_by=[]).order_by("-id")
        content = {
            "username": account.username,
            "kind": account.kind,
            "customers": list(selectors.visible_customers(self.actor).values_list("slug", flat=True)),
            "roles": roles,
            "scopes": effective_scopes(self.actor),
            "minted_by": list(self.actor.minted_by),
            "tokens_by_others": [dict(TokenShape(row).data) for row in of_others],
        }
        return Response(content)
