"""Files of hosts, and what they came to, as JSON."""

from api.fields import Flag, Integer, Name, StrictSerializer, Text, Texts
from api.v1.serializers.fleet import LOGIN, HostSerializer, NameOf


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
