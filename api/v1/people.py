"""Customers, users, service accounts, tokens, and who am I."""

from typing import Any, ClassVar

from drf_spectacular.utils import extend_schema, extend_schema_view
from rest_framework.request import Request
from rest_framework.response import Response
from rest_framework.serializers import BaseSerializer

from api.auth import UNSCOPED
from api.filters import Rows, Through, equals, flag, one_of
from api.tokens import effective_scopes, issue, revoke, visible_tokens
from api.v1.serializers.people import (
    CustomerSerializer,
    NewTokenSerializer,
    ServiceAccountSerializer,
    TokenSerializer,
    UserSerializer,
    WhoamiSerializer,
)
from api.viewsets import ApiViewSet, CreateMixin, DestroyMixin, ObjectViewSet, ReadViewSet
from jobs import selectors
from jobs.administration import accounts, customers
from jobs.models import AccountKind, RoleName

ROLES = Through(selectors.visible_role_rows, "account")
NARROW_ADMIN = {"GET": "fleet:read", "POST": "admin", "PATCH": "admin", "DELETE": "admin"}


@extend_schema(tags=["people"])
@extend_schema_view(
    list=extend_schema(operation_id="get_customers", summary="List customers"),
    create=extend_schema(operation_id="post_customers", summary="Add a customer"),
    retrieve=extend_schema(operation_id="get_customer", summary="Show a customer"),
    partial_update=extend_schema(operation_id="patch_customer", summary="Change a customer"),
    destroy=extend_schema(operation_id="delete_customer", summary="Delete a customer"),
)
class Customers(ObjectViewSet):
    """The customers that the caller may see."""

    scopes = NARROW_ADMIN
    serializer_class = CustomerSerializer
    lookup_field = "slug"
    lookup_value_converter = "name"
    orderings = {"slug": ("slug",)}
    filters = {"enabled": flag("enabled", "Only the enabled, or the disabled ones.")}

    def get_queryset(self) -> Rows:
        return selectors.visible_customers(self.actor)

    def perform_create(self, serializer: Any) -> None:
        serializer.instance = customers.create_customer(self.actor, dict(serializer.validated_data))

    def perform_update(self, serializer: Any) -> None:
        customers.update_customer(self.actor, serializer.instance, dict(serializer.validated_data))

    def perform_destroy(self, row: Any) -> None:
        customers.delete_customer(self.actor, row)


class Accounts(ObjectViewSet):
    """Accounts of one kind: oneself, and those that the caller administers."""

    scopes = NARROW_ADMIN
    lookup_field = "username"
    lookup_value_converter = "name"
    orderings = {"username": ("username",)}
    filters = {
        "enabled": flag("is_active", "Only the enabled, or the disabled ones."),
        "role": one_of("role", RoleName.values, "Only who has this role; with `customer`: there.", ROLES),
        "customer": equals("customer__slug", "Only who has a role at this customer itself.", ROLES),
    }
    kind: ClassVar[AccountKind]

    def get_queryset(self) -> Rows:
        return selectors.visible_accounts(self.actor, self.kind)

    def perform_create(self, serializer: Any) -> None:
        serializer.instance = accounts.create_account(self.actor, self.kind, _without_kind(serializer))

    def perform_update(self, serializer: Any) -> None:
        accounts.update_account(self.actor, serializer.instance, _without_kind(serializer))

    def perform_destroy(self, row: Any) -> None:
        accounts.delete_account(self.actor, row)


def _without_kind(serializer: Any) -> dict[str, Any]:
    return {name: value for name, value in serializer.validated_data.items() if name != "kind"}


@extend_schema(tags=["people"])
@extend_schema_view(
    list=extend_schema(operation_id="get_users", summary="List people"),
    create=extend_schema(operation_id="post_users", summary="Add a person"),
    retrieve=extend_schema(operation_id="get_user", summary="Show a person"),
    partial_update=extend_schema(operation_id="patch_user", summary="Change a person"),
    destroy=extend_schema(operation_id="delete_user", summary="Delete a person"),
)
class Users(Accounts):
    """People: oneself, and those that the caller administers."""

    serializer_class = UserSerializer
    kind = AccountKind.PERSON


@extend_schema(tags=["people"])
@extend_schema_view(
    list=extend_schema(operation_id="get_service_accounts", summary="List integrations"),
    create=extend_schema(operation_id="post_service_accounts", summary="Add an integration"),
    retrieve=extend_schema(operation_id="get_service_account", summary="Show an integration"),
    partial_update=extend_schema(operation_id="patch_service_account", summary="Change an integration"),
    destroy=extend_schema(operation_id="delete_service_account", summary="Delete an integration"),
)
class ServiceAccounts(Accounts):
    """Integrations."""

    serializer_class = ServiceAccountSerializer
    kind = AccountKind.SERVICE


@extend_schema(tags=["people"])
@extend_schema_view(
    list=extend_schema(operation_id="get_tokens", summary="List tokens"),
    create=extend_schema(
        operation_id="post_tokens",
        summary="Make a token; it is told once",
        request=TokenSerializer,
        responses={201: NewTokenSerializer},
    ),
    retrieve=extend_schema(operation_id="get_token_view", summary="Show a token"),
    destroy=extend_schema(operation_id="delete_token_view", summary="Revoke a token"),
)
class Tokens(CreateMixin, DestroyMixin, ReadViewSet):
    """The caller's tokens, and those of accounts that the caller administers. DELETE revokes one at once."""

    scopes = dict.fromkeys(("GET", "POST", "DELETE"), UNSCOPED)
    serializer_class = TokenSerializer
    lookup_value_converter = "uuid"
    orderings = {"-created_at": ("-id",)}

    def get_queryset(self) -> Rows:
        return visible_tokens(self.actor)

    def get_serializer_class(self) -> type[BaseSerializer[Any]]:
        return NewTokenSerializer if self.action == "create" else TokenSerializer

    def perform_create(self, serializer: Any) -> None:
        serializer.instance, secret = issue(self.actor, dict(serializer.validated_data))
        serializer.instance.secret = secret

    def perform_destroy(self, row: Any) -> None:
        revoke(self.actor, row)


class Whoami(ApiViewSet):
    """The caller."""

    scopes = {"GET": UNSCOPED}
    serializer_class = WhoamiSerializer

    @extend_schema(operation_id="get_whoami", summary="Who am I", tags=["people"])
    def retrieve(self, request: Request) -> Response:
        account = self.actor.account
        of_others = visible_tokens(self.actor).filter(account=account).exclude(minted_by=[]).order_by("-id")
        caller = {
            "username": account.username,
            "kind": account.kind,
            "customers": selectors.visible_customers(self.actor).values_list("slug", flat=True),
            "roles": account,
            "scopes": effective_scopes(self.actor),
            "minted_by": self.actor.minted_by,
            "tokens_by_others": of_others,
        }
        return Response(self.get_serializer(caller).data)
