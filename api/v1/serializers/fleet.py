"""Credentials, hosts, instances and the catalogue of operations as JSON."""

from functools import cache
from typing import Any

from rest_framework import serializers

from api.fields import (
    LINE,
    NAME,
    NAME_LENGTH,
    Choice,
    Flag,
    Instant,
    Integer,
    JsonObject,
    Name,
    Reference,
    StrictSerializer,
    Text,
    Texts,
)
from fleet.installer.installed import Scripts, scripts_there
from fleet.models import Become, Instance
from fleet.mta import REGISTRY
from fleet.mta.adapter import adapter_for, capability
from fleet.mta.params.catalogue import CATALOGUE, OF_HOSTS, OperationSpec
from jobs.administration.host_fields import MOST_LABELS

LOGIN = (r"[A-Za-z_][A-Za-z0-9_.-]*\$?", "a login name of letters, digits, dots, hyphens and underscores")
LABEL_KEY = (r"[A-Za-z0-9]([A-Za-z0-9_./-]*[A-Za-z0-9])?", "a label of letters, digits and inner _ . / -")
LABEL_NAME = Text(max_length=63, pattern=LABEL_KEY)


class CredentialSerializer(StrictSerializer):
    """An SSH key of a customer. The private key is never returned."""

    name = Name()
    customer = Reference("slug", max_length=63)
    private_key = Text(write_only=True, max_length=65_536)
    passphrase = Text(write_only=True, required=False, max_length=1024)
    certificate = Text(required=False, allow_blank=True, max_length=16_384)
    public_key = Text(read_only=True)


class ReplaceSerializer(StrictSerializer):
    """Another credential of the same customer."""

    by = Name()


class NotTakenSerializer(StrictSerializer):
    """A host on which a login with the new credential did not work. It is tried again."""

    host = Text(source="name")
    error = Text(source="next_credential_error")
    tries = Integer(source="next_credential_tries")


class ReplacementSerializer(StrictSerializer):
    """How far a credential has taken another one's place."""

    by = Text(help_text="the new one; empty: none takes its place")
    left = Integer(help_text="hosts that still have the old one, and get the new one when a login with it has worked")
    failed = NotTakenSerializer(many=True, help_text="the first hundred on which none did")


class Labels(serializers.DictField):
    """Few, and their names can stand in a query."""

    child = Text(max_length=200, pattern=LINE)

    def to_internal_value(self, data: Any) -> dict[str, Any]:
        labels = super().to_internal_value(data)
        if len(labels) > MOST_LABELS:
            raise serializers.ValidationError(f"at most {MOST_LABELS} labels are taken", code="invalid")
        for key in labels:
            try:
                LABEL_NAME.run_validation(key)
            except serializers.ValidationError as error:
                raise serializers.ValidationError({key: error.detail}) from None
        return labels


class DefaultsSerializer(StrictSerializer):
    """What new hosts of a customer get where nobody says otherwise. To change it changes no host."""

    username = Text(max_length=64, pattern=LOGIN, required=False)
    credential = Name(required=False)
    become = Choice(choices=Become.values, required=False)
    host_ca = Text(required=False, max_length=16_384)
    jump_host = Name(required=False)
    port = Integer(min_value=1, max_value=65_535, required=False)
    labels = Labels(required=False)


class NameOf(Reference):
    """Another row by its name."""

    def __init__(self, **options: Any) -> None:
        super().__init__("name", pattern=NAME, max_length=NAME_LENGTH, **options)


OLD_FINGERPRINT = "of the key that is pinned: the change is refused when that is another one"


class ScriptsThere(Choice):
    """How our scripts stand on a host, by what was seen of it last."""

    def __init__(self) -> None:
        known = "our scripts there, by their digests at the last discovery or check; null: nobody looked yet"
        super().__init__(choices=[*Scripts], read_only=True, allow_null=True, source="facts", help_text=known)

    def to_representation(self, value: Any) -> Any:
        return str(scripts_there(value["helpers"])) if "helpers" in value else None


class HostSerializer(StrictSerializer):
    """An MX host that is reached by SSH."""

    name = Name()
    customer = Reference("slug", max_length=63)
    address = Text(max_length=255)
    port = Integer(min_value=1, max_value=65_535, required=False)
    username = Text(max_length=64, pattern=LOGIN)
    credential = NameOf()
    host_key = Text(required=False, allow_blank=True, max_length=16_384)
    host_ca = Text(required=False, allow_blank=True, max_length=16_384)
    old_fingerprint = Text(required=False, write_only=True, max_length=100, help_text=OLD_FINGERPRINT)
    become = Choice(choices=Become.values, required=False)
    jump_host = NameOf(required=False, allow_null=True)
    labels = Labels(required=False)
    site = Name(required=False, allow_blank=True)
    enabled = Flag(required=False)
    status = Text(read_only=True)
    status_reason = Text(read_only=True)
    last_seen_at = Instant(read_only=True, allow_null=True)
    scripts = ScriptsThere()


class HostKeySerializer(StrictSerializer):
    """A key that a host showed. Nothing is trusted until PATCH sets `host_key`."""

    host_key = Text(read_only=True)
    fingerprint = Text(read_only=True)
    algorithm = Text(read_only=True)


class CapabilitySerializer(StrictSerializer):
    """Whether and how an MTA does an operation."""

    support = Choice(choices=["native", "emulated", "absent"], read_only=True)
    note = Text(read_only=True)


class OrphansSerializer(StrictSerializer):
    """What the last look into an instance's quarantine showed that the service has no record of."""

    count = Integer(read_only=True, source="orphans", help_text="messages; they are left alone, and never erased")
    more = Integer(read_only=True, help_text="messages that were not looked at because there were too many")
    odd = Integer(read_only=True, help_text="files that no job can have put there so")
    sample = Texts(read_only=True, help_text="JOB/QUEUE_ID of up to 20 messages")
    seen_at = Instant(read_only=True, allow_null=True, source="looked_at", help_text="null: no look succeeded yet")
    error = Text(read_only=True, help_text="why the last look failed; empty when it did not")

    def to_representation(self, instance: Instance) -> Any:
        look = getattr(instance, "quarantine_look", None)
        return super().to_representation(look) if look and (look.looked_at or look.error) else None


@cache
def capabilities_of(mta: str) -> dict[str, dict[str, str]]:
    """{operation: {"support", "note"}} of an MTA."""
    adapter = adapter_for(mta)
    able = {name: capability(adapter, name) for name in CATALOGUE if name not in OF_HOSTS}
    return {name: {"support": str(each.support), "note": each.note} for name, each in able.items()}


class Capabilities(serializers.DictField):
    """What an MTA can do."""

    child = CapabilitySerializer()

    def to_representation(self, value: Any) -> dict[str, Any]:
        return capabilities_of(value)


class InstanceSerializer(StrictSerializer):
    """An MTA instance on a host."""

    id = Text(read_only=True, source="*")
    host = Text(read_only=True, source="host.name")
    customer = Text(read_only=True, source="host.customer.slug")
    mta = Text(read_only=True)
    version = Text(read_only=True)
    config_dir = Text(read_only=True)
    queue_dirs = Texts(read_only=True)
    front_ends = Texts(read_only=True)
    options = JsonObject(read_only=True)
    enabled = Flag(read_only=True)
    orphans = OrphansSerializer(
        read_only=True, allow_null=True, source="*", help_text="null: its quarantine was not looked at yet"
    )
    capabilities = Capabilities(read_only=True, source="mta")


class MtasAble(serializers.DictField):
    """How each MTA does an operation."""

    child = CapabilitySerializer()

    def get_attribute(self, instance: OperationSpec) -> dict[str, Any]:
        if instance.of_host:
            return {}
        return {mta: capabilities_of(mta)[instance.name] for mta in REGISTRY}


class OperationSerializer(StrictSerializer):
    """An operation of the catalogue."""

    name = Text(read_only=True)
    description = Text(read_only=True)
    changes = Flag(read_only=True)
    deadline = Integer(read_only=True, help_text="seconds for one run")
    params = JsonObject(read_only=True, source="schema", help_text="JSON Schema (2020-12) of the job's params")
    mtas = MtasAble(read_only=True)


class EmptySerializer(StrictSerializer):
    """`{}`"""


class UnlockSerializer(StrictSerializer):
    """Why a host is freed by hand."""

    reason = Text(max_length=2000)


class UnlockedSerializer(StrictSerializer):
    """The host, the job that had it, and that job's state now."""

    host = Text()
    job = Text()
    state = Text()
