"""Customers, people, integrations and tokens as JSON."""

from typing import Any

from rest_framework import serializers
from rest_framework.fields import SkipField

from api.auth import actor_of
from api.fields import LINE, Choice, Flag, Instant, Name, Reference, StrictSerializer, Text, Texts
from api.models import Token
from api.tokens import SCOPES, effective_scopes
from api.v1.serializers.fleet import DefaultsSerializer
from jobs.models import Account, AccountKind, Role, RoleName
from jobs.selectors import visible_roles

SLUG = (r"[a-z0-9][a-z0-9_-]*", "small letters, digits, hyphens and underscores, beginning with a letter or digit")
EMAIL = (r"[^@\s\x00-\x1f<>]{1,64}@[^@\s\x00-\x1f<>]+", "an e-mail address")
MINTED_BY = "who else had a hand in the token; empty: its person made it. A token that others made decides nothing"
MADE_WITH = (
    "the token that it was made with, and is revoked with; null: made on the server, or before that was recorded"
)


class CustomerSerializer(StrictSerializer):
    """An MSP's customer."""

    slug = Text(max_length=63, pattern=SLUG)
    name = Text(max_length=200, pattern=LINE)
    contact = Text(max_length=200, allow_blank=True, required=False, pattern=LINE)
    enabled = Flag(required=False)
    defaults = DefaultsSerializer(required=False)


class RoleSerializer(StrictSerializer):
    """A role, for one customer or (null) for all of them."""

    role = Choice(choices=RoleName.values)
    customer = Reference("slug", max_length=63, allow_null=True)


class Roles(serializers.ListField):
    """An account's roles, as far as the caller may see them."""

    child = RoleSerializer()

    def get_attribute(self, instance: Any) -> list[Role]:
        account: Any = instance if isinstance(instance, Account) else super().get_attribute(instance)
        rows = visible_roles(self.context["request"].auth, account)
        return sorted(rows, key=lambda row: (row.customer.slug if row.customer else "", row.role))


class UserSerializer(StrictSerializer):
    """A person. Roles at customers that the caller may not see are left out."""

    username = Name()
    name = Text(max_length=200, allow_blank=True, required=False, pattern=LINE)
    email = Text(max_length=254, allow_blank=True, required=False, pattern=EMAIL)
    roles = Roles(required=False, max_length=1000)
    enabled = Flag(required=False, source="is_active")


class ServiceAccountSerializer(UserSerializer):
    """An integration."""

    kind = Choice(choices=["service"], required=False)


class Owner(Name):
    """The token's account, where it is of this kind."""

    def __init__(self, kind: AccountKind, **options: Any) -> None:
        super().__init__(required=False, **options)
        self.kind = kind

    def get_attribute(self, instance: Token) -> str:
        if instance.account.kind != self.kind:
            raise SkipField
        return instance.account.username


class Scopes(Texts):
    """What a token may be used for: as asked for, and as it comes to by its account's roles."""

    def get_attribute(self, instance: Token) -> list[str]:
        return effective_scopes(actor_of(instance))


class TokenSerializer(StrictSerializer):
    """A bearer token."""

    id = serializers.UUIDField(read_only=True)
    name = Text(max_length=100, pattern=LINE)
    user = Owner(AccountKind.PERSON)
    service_account = Owner(AccountKind.SERVICE)
    scopes = Scopes(child=Choice(choices=SCOPES), required=False, allow_empty=False, max_length=len(SCOPES))
    networks = Texts(child=Text(max_length=64), required=False, max_length=100)
    expires_at = Instant(required=False, allow_null=True)
    customers = Texts(read_only=True, allow_null=True, help_text="null: all that the account's roles name")
    minted_by = Texts(read_only=True, help_text=MINTED_BY)
    made_with = serializers.UUIDField(read_only=True, allow_null=True, source="made_with_id", help_text=MADE_WITH)
    created_at = Instant(read_only=True)
    last_used_at = Instant(read_only=True, allow_null=True)


class NewTokenSerializer(TokenSerializer):
    """A token as it is told once."""

    token = Text(read_only=True, source="secret", help_text="told once; only its SHA-256 is kept")


class WhoamiSerializer(StrictSerializer):
    """Who the caller is."""

    username = Text(read_only=True)
    kind = Text(read_only=True)
    customers = Texts(read_only=True)
    roles = Roles(read_only=True)
    scopes = Texts(read_only=True)
    minted_by = Texts(read_only=True, help_text=MINTED_BY)
    tokens_by_others = TokenSerializer(
        many=True, read_only=True, help_text="the caller's tokens that somebody else had a hand in"
    )
