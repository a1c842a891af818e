"""Blocks, quarantined messages and the audit trail as JSON."""

from rest_framework import serializers

from api.fields import Choice, Epoch, Flag, Instant, Integer, JsonObject, OrNull, StrictSerializer, Text, Texts
from api.v1.serializers.jobs import Target
from jobs.models import BlockState, QuarantineState


class BlockInstanceSerializer(StrictSerializer):
    """A block on one instance."""

    instance = Text()
    state = Choice(choices=BlockState.values)
    detail = Text(allow_blank=True)


class BlockSerializer(StrictSerializer):
    """A sender that is wanted blocked."""

    id = serializers.UUIDField()
    pattern = Text()
    action = Text()
    reply = Text()
    target = Target()
    reason = Text(allow_blank=True)
    ticket = Text(allow_blank=True)
    owner = Text(source="owner.username")
    job = serializers.UUIDField(source="job_id")
    wanted = Flag(source="is_wanted")
    created_at = Instant()
    expires_at = Instant(allow_null=True)
    instances = BlockInstanceSerializer(many=True, source="instances.all")


class QuarantineSerializer(StrictSerializer):
    """A message that was taken out of a queue."""

    id = serializers.UUIDField()
    job = serializers.UUIDField(source="job_id")
    instance = Text()
    queue_id = Text()
    sender = Text()
    recipients = Texts()
    subject = Text(allow_blank=True)
    size = Integer()
    state = Choice(choices=QuarantineState.values)
    arrival_time = Epoch()
    created_at = Instant()
    expires_at = Instant()


class AuditSerializer(StrictSerializer):
    """One entry of the audit trail; `customer` is null for the installation's own chain."""

    seq = Integer()
    at = Instant()
    customer = OrNull(source="chain")
    actor = Text(allow_blank=True)
    on_behalf_of = Text(allow_blank=True)
    channel = Text(allow_blank=True)
    source = Text(allow_blank=True)  # type: ignore[assignment]  # a declared field is no attribute of the class
    action = Text()
    object = Text(allow_blank=True)
    job = serializers.UUIDField(allow_null=True)
    data = JsonObject()  # type: ignore[assignment]  # as above
    prev_hash = Text(allow_blank=True)
    hash = Text()


class FirstBadSerializer(StrictSerializer):
    """Where a chain stops to be what was written."""

    seq = Integer()
    reason = Text()
    customer = OrNull(source="chain")


class GapSerializer(StrictSerializer):
    """Entries `first` to `last` as they once were are not, or not all, there; the entry `seq` acknowledges it."""

    customer = OrNull(source="chain")
    seq = Integer()
    first = Integer()
    last = Integer()
    last_known_hash = Text()
    at = Instant()
    reason = Text()


class VerdictSerializer(StrictSerializer):
    """Whether the chains are what was written."""

    ok = Flag()
    checked = Integer()
    first_bad = FirstBadSerializer(allow_null=True)
    gaps = GapSerializer(many=True)


class CheckpointSerializer(StrictSerializer):
    """A signed statement of how far a chain had got; `previous` is null in those of mxfleet 0.2."""

    customer = OrNull(source="chain")
    seq = Integer()
    hash = Text()
    at = Instant()
    previous = Integer(allow_null=True)
    previous_hash = Text(allow_blank=True)
    signature = Text()
