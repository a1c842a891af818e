"""The JSON shapes of customers, people, tokens, credentials, hosts and instances."""

from typing import Any

from rest_framework import serializers

from api.auth import actor_of
from api.fields import Choice, Flag, Instant, Integer, JsonObject, Name, StrictSerializer, Text, Texts
from api.tokens import SCOPES, effective_scopes
from fleet.models import Become, Credential, Host
from jobs.models import RoleName
from jobs.selectors import visible_roles

LINE = (r"[^\x00-\x1f\x7f-\x9f\u2028\u2029\u202a-\u202e\u2066-\u2069]*", "one line without control characters")
SLUG = (r"[a-z0-9][a-z0-9_-]*", "small letters, digits, hyphens and underscores, beginning with a letter or digit")
LOGIN = (r"[A-Za-z_][A-Za-z0-9_.-]*\$?", "a login name of letters, digits, dots, hyphens and underscores")
EMAIL = (r"[^@\s\x00-\x1f<>]{1,64}@[^@\s\x00-\x1f<>]+", "an e-mail address")
LABEL_KEY = (r"[A-Za-z0-9]([A-Za-z0-9_./-]*[A-Za-z0-9])?", "a label of letters, digits and inner _ . / -")
MOST_LABELS = 64
MINTED_BY = "who else had a hand in the token; empty: its person made it. A token that others made decides nothing"
MADE_WITH = (
    "the token that it was made with, and is revoked with; null: made on the server, or before that was recorded"
)


class CustomerShape(StrictSerializer):
    """An MSP's customer."""

    slug = Text(max_length=63, pattern=SLUG)
    name = Text(max_length=200, pattern=LINE)
    contact = Text(max_length=200, allow_blank=True, required=False, pattern=LINE)
    enabled = Flag(required=False)


class RoleShape(StrictSerializer):
    """A role, for one customer or (null) for all of them."""

    role = Choice(choices=RoleName.values)
    customer = Text(max_length=63, allow_null=True)


class UserShape(StrictSerializer):
    """A person. Roles at customers that the caller may not see are left out."""

    username = Name()
    name = Text(max_length=200, allow_blank=True, required=False, pattern=LINE)
    email = Text(max_length=254, allow_blank=True, required=False, pattern=EMAIL)
    roles = serializers.ListField(child=RoleShape(), required=False, max_length=1000)
    enabled = Flag(required=False, source="is_active")

    def to_representation(self, instance: Any) -> dict[str, Any]:
        roles = [
            {"role": row.role, "customer": row.customer.slug if row.customer else None}
            for row in visible_roles(self.context["actor"], instance)
        ]
        return {
            "username": instance.username,
            "name": instance.name,
            "email": instance.email,
            "roles": sorted(roles, key=lambda role: (role["customer"] or "", role["role"])),
            "enabled": instance.is_active,
        }


class ServiceAccountShape(UserShape):
    """An integration."""

    kind = Choice(choices=["service"], required=False)

    def to_representation(self, instance: Any) -> dict[str, Any]:
        return {**super().to_representation(instance), "kind": instance.kind}


class TokenShape(StrictSerializer):
    """A bearer token."""

    id = serializers.UUIDField(read_only=True)
    name = Text(max_length=100, pattern=LINE)
    user = Name(required=False)
    service_account = Name(required=False)
    scopes = Texts(child=Choice(choices=SCOPES), required=False, allow_empty=False, max_length=len(SCOPES))
    networks = Texts(child=Text(max_length=64), required=False, max_length=100)
    expires_at = Instant(required=False, allow_null=True)
    customers = Texts(read_only=True, allow_null=True, help_text="null: all that the account's roles name")
    minted_by = Texts(read_only=True, help_text=MINTED_BY)
    made_with = serializers.UUIDField(read_only=True, allow_null=True, help_text=MADE_WITH)
    created_at = Instant(read_only=True)
    last_used_at = Instant(read_only=True, allow_null=True)

    def to_representation(self, instance: Any) -> dict[str, Any]:
        owner = instance.account
        instant = Instant()
        return {
            "id": str(instance.pk),
            "name": instance.name,
            ("user" if owner.kind == "person" else "service_account"): owner.username,
            "scopes": effective_scopes(actor_of(instance)),
            "networks": instance.networks,
            "customers": instance.customers,
            "minted_by": instance.minted_by,
            "made_with": str(instance.made_with_id) if instance.made_with_id else None,
            "expires_at": instant.to_representation(instance.expires_at) if instance.expires_at else None,
            "created_at": instant.to_representation(instance.created_at),
            "last_used_at": instant.to_representation(instance.last_used_at) if instance.last_used_at else None,
        }


class NewTokenShape(TokenShape):
    """A token as it is told once."""

    token = Text(read_only=True, help_text="told once; only its SHA-256 is kept")


class WhoamiShape(StrictSerializer):
    """Who the caller is."""

    username = Text(read_only=True)
    kind = Text(read_only=True)
    customers = Texts(read_only=True)
    roles = serializers.ListField(child=RoleShape(), read_only=True)
    scopes = Texts(read_only=True)
    minted_by = Texts(read_only=True, help_text=MINTED_BY)
    tokens_by_others = serializers.ListField(
        child=TokenShape(), read_only=True, help_text="the caller's tokens that somebody else had a hand in"
    )


class CredentialShape(StrictSerializer):
    """An SSH key of a customer. The private key is never returned."""

    name = Name()
    customer = Text(max_length=63)
    private_key = Text(write_only=True, max_length=65_536)
    passphrase = Text(write_only=True, required=False, max_length=1024)
    certificate = Text(required=False, allow_blank=True, max_length=16_384)
    public_key = Text(read_only=True)

    def to_representation(self, instance: Credential) -> dict[str, Any]:
        return {
            "name": instance.name,
            "customer": instance.customer.slug,
            "certificate": instance.certificate,
            "public_key": instance.public_key,
        }


class HostShape(StrictSerializer):
    """An MX host that is reached by SSH."""

    name = Name()
    customer = Text(max_length=63)
    address = Text(max_length=255)
    port = Integer(min_value=1, max_value=65_535, required=False)
    username = Text(max_length=64, pattern=LOGIN)
    credential = Name()
    host_key = Text(required=False, allow_blank=True, max_length=16_384)
    host_ca = Text(required=False, allow_blank=True, max_length=16_384)
    become = Choice(choices=Become.values, required=False)
    jump_host = Name(required=False, allow_null=True)
    labels = serializers.DictField(child=Text(max_length=200, pattern=LINE), required=False)
    site = Name(required=False, allow_blank=True)
    enabled = Flag(required=False)
    status = Text(read_only=True)
    status_reason = Text(read_only=True)
    last_seen_at = Instant(read_only=True, allow_null=True)

    def validate_labels(self, value: dict[str, str]) -> dict[str, str]:
        """Labels are few, and their names can stand in a query."""
        if len(value) > MOST_LABELS:
            raise serializers.ValidationError(f"at most {MOST_LABELS} labels are taken", code="invalid")
        for key in value:
            try:
                Text(max_length=63, pattern=LABEL_KEY).run_validation(key)
            except serializers.ValidationError as error:
                raise serializers.ValidationError({key: error.detail}) from None
        return value

    def to_representation(self, instance: Host) -> dict[str, Any]:
        same = ("name", "address", "port", "username", "host_key", "host_ca", "become", "labels", "site", "enabled")
        seen = instance.last_seen_at
        return {
            **{name: getattr(instance, name) for name in same},
            "customer": instance.customer.slug,
            "credential": instance.credential.name,
            "jump_host": instance.jump_host.name if instance.jump_host else None,
            "status": instance.status,
            "status_reason": instance.status_reason,
            "last_seen_at": Instant().to_representation(seen) if seen else None,
        }


class HostKeyShape(StrictSerializer):
    """A key that a host showed. Nothing is trusted until PATCH sets `host_key`."""

    host_key = Text(read_only=True)
    fingerprint = Text(read_only=True)
    algorithm = Text(read_only=True)


class CapabilityShape(StrictSerializer):
    """Whether and how an MTA does an operation."""

    support = Choice(choices=["native", "emulated", "absent"], read_only=True)
    note = Text(read_only=True)


class OrphansShape(StrictSerializer):
    """What the last look into an instance's quarantine showed that the service has no record of."""

    count = Integer(read_only=True, help_text="messages; they are left alone, and never erased")
    more = Integer(read_only=True, help_text="messages that were not looked at because there were too many")
    odd = Integer(read_only=True, help_text="files that no job can have put there so")
    sample = Texts(read_only=True, help_text="JOB/QUEUE_ID of up to 20 messages")
    seen_at = Instant(read_only=True, allow_null=True, help_text="null: no look succeeded yet")
    error = Text(read_only=True, help_text="why the last look failed; empty when it did not")


class InstanceShape(StrictSerializer):
    """An MTA instance on a host."""

    id = Text(read_only=True)
    host = Text(read_only=True)
    customer = Text(read_only=True)
    mta = Text(read_only=True)
    version = Text(read_only=True)
    config_dir = Text(read_only=True)
    queue_dirs = Texts(read_only=True)
    front_ends = Texts(read_only=True)
    options = JsonObject(read_only=True)
    enabled = Flag(read_only=True)
    orphans = OrphansShape(read_only=True, allow_null=True, help_text="null: its quarantine was not looked at yet")
    capabilities = serializers.DictField(child=CapabilityShape(), read_only=True)


class OperationShape(StrictSerializer):
    """An operation of the catalogue."""

    name = Text(read_only=True)
    description = Text(read_only=True)
    changes = Flag(read_only=True)
    deadline = Integer(read_only=True, help_text="seconds for one run")
    params = JsonObject(read_only=True, help_text="JSON Schema (2020-12) of the job's params")
    mtas = serializers.DictField(child=CapabilityShape(), read_only=True)


class EmptyShape(StrictSerializer):
    """`{}`"""


class UnlockRequest(StrictSerializer):
    """Why a host is freed by hand."""

    reason = Text(max_length=2000)


class UnlockedShape(StrictSerializer):
    """The host, the job that had it, and that job's state now."""

    host = Text()
    job = Text()
    state = Text()
