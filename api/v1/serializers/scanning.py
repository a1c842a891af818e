"""The keys of many hosts, asked for and compared, as JSON."""

from typing import Any

from rest_framework import serializers

from api.fields import Choice, Flag, JsonObject, StrictSerializer, Text, Texts
from api.v1.serializers.fleet import NameOf
from fleet.ssh.comparison import Verdict, fingerprint_of

MOST_HOSTS = 100
"""Of one request."""
MOST_KEYS = 8
"""Of one host."""


class KnownKeys(serializers.DictField):
    """{host: [fingerprint or public key line]}, kept as fingerprints."""

    child = Texts(child=Text(max_length=16_384), max_length=MOST_KEYS, allow_empty=False)

    def to_internal_value(self, data: Any) -> dict[str, list[str]]:
        found: dict[str, list[str]] = super().to_internal_value(data)
        wrong = {}
        for host, keys in found.items():
            try:
                found[host] = [fingerprint_of(key) for key in keys]
            except ValueError as error:
                wrong[host] = [serializers.ErrorDetail(str(error), code="invalid")]
        if wrong:
            raise serializers.ValidationError(wrong)
        return found


class ScanSerializer(StrictSerializer):
    """Which hosts, besides the query's filters, and what is known of their keys."""

    hosts = Texts(child=NameOf(), required=False, allow_empty=False, max_length=MOST_HOSTS)
    keys = KnownKeys(required=False, help_text="by host: what its keys should be, as SHA256:... or public key lines")


class KeyEvidenceSerializer(StrictSerializer):
    """What one source says of a key."""

    by = Choice(choices=["sshfp", "host_ca", "list"])
    verdict = Choice(choices=[*Verdict])
    expected = Texts(help_text="fingerprints")
    detail = Text()


class ScannedSerializer(StrictSerializer):
    """A key that a host showed. Nothing is trusted until PATCH sets `host_key`."""

    host = Text()
    verdict = Choice(choices=[*Verdict], help_text="differs: some source has another key; unproven: none says anything")
    host_key = Text(read_only=True, allow_null=True, source="key.host_key")
    fingerprint = Text(read_only=True, allow_null=True, source="key.fingerprint")
    algorithm = Text(read_only=True, allow_null=True, source="key.algorithm")
    is_trusted = Flag(help_text="it is the host's `host_key` already")
    evidence = KeyEvidenceSerializer(many=True)
    error = JsonObject(allow_null=True, help_text="why the host showed none: code, detail, hint")

    def to_representation(self, instance: Any) -> Any:
        shown = super().to_representation(instance)
        return {**shown, "error": instance.error.as_dict() if instance.error else None}


class ScansSerializer(StrictSerializer):
    """One for each host, by name."""

    results = ScannedSerializer(many=True)
