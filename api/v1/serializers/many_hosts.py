"""Files of hosts, and what they came to, as JSON."""

from typing import Any

from rest_framework import serializers

from api.fields import LINE, Choice, Flag, Integer, Name, StrictSerializer, Text, Texts
from api.v1.serializers.fleet import LOGIN, OLD_FINGERPRINT, HostSerializer, Labels, NameOf
from fleet.models import Become
from jobs.administration.many_hosts import MOST_CHANGED


class NewHostSerializer(HostSerializer):
    """A host to be added. What is left out is the customer's default, where it has one."""

    username = Text(max_length=64, pattern=LOGIN, required=False)
    credential = NameOf(required=False)


class PutHostSerializer(NewHostSerializer):
    """A host as it is to be. What is left out stays as it is; for a new host it is the customer's default."""

    name = Name(required=False, help_text="as in the address")


class RowCountsSerializer(StrictSerializer):
    """How many hosts came to what."""

    new = Integer()
    changed = Integer()
    same = Integer()


class ChangedHostSerializer(StrictSerializer):
    """A host of which something is not as it was."""

    name = Name()
    changes = Texts(help_text="the names of these fields")


class ImportedSerializer(StrictSerializer):
    """What a file of hosts came to, or with `dry_run` would come to."""

    dry_run = Flag()
    counts = RowCountsSerializer()
    new = Texts()
    changed = ChangedHostSerializer(many=True)
    same = Texts()


class LabelChanges(Labels):
    """Labels to be set beside those that a host has; null takes one away."""

    child = Text(max_length=200, pattern=LINE, allow_null=True)


class HostChangesSerializer(StrictSerializer):
    """What may be changed for many hosts at once."""

    port = Integer(min_value=1, max_value=65_535, required=False)
    username = Text(max_length=64, pattern=LOGIN, required=False)
    credential = Name(required=False)
    host_ca = Text(required=False, allow_blank=True, max_length=16_384)
    old_fingerprint = Text(required=False, max_length=100, help_text=OLD_FINGERPRINT)
    become = Choice(choices=Become.values, required=False)
    jump_host = Name(required=False, allow_null=True)
    labels = LabelChanges(required=False, help_text="set beside those that a host has; null takes one away")
    site = Name(required=False, allow_blank=True)
    enabled = Flag(required=False)

    def validate(self, attrs: Any) -> Any:
        if not attrs:
            raise serializers.ValidationError("say what is to be changed", code="required")
        return attrs


class BulkChangeSerializer(StrictSerializer):
    """A change of all hosts that the query selects, where they are as many as the caller has seen."""

    expected = Integer(min_value=1, max_value=MOST_CHANGED)
    changes = HostChangesSerializer()


class BulkChangedSerializer(StrictSerializer):
    """What it came to: the hosts that were changed, and those that were so already."""

    found = Integer()
    changed = Texts()
    same = Texts()
