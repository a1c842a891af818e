"""The JSON shapes of jobs, runs, plans, blocks, quarantine and audit.

Those of answers are there for the OpenAPI document: rows are rendered by hand (render.py), for speed.
"""

from typing import Any

from rest_framework import serializers

from api.fields import Choice, Duration, Flag, Instant, Integer, JsonObject, StrictSerializer, Text, Texts
from jobs.models import BlockState, Decision, QuarantineState
from jobs.rules.state import JobState, RunState

JOB_STATES = [state.value for state in JobState]
RUN_STATES = [state.value for state in RunState]
CHANNELS = ["api", "cli", "web", "slack", "mattermost", "ticket", "schedule"]


class JobRequest(StrictSerializer):
    """A job as it is asked for. What `target` and `params` hold is checked against the fleet and the catalogue."""

    operation = Text(max_length=32)
    target = JsonObject()
    params = JsonObject(required=False)
    reason = Text(required=False, allow_blank=True, max_length=2000)
    ticket = Text(required=False, allow_blank=True, max_length=200)
    dry_run = Flag(required=False)
    approval_ttl = Duration(required=False)

    def validate_approval_ttl(self, value: int) -> int:
        """More than a year is a typing error."""
        if value > 366 * 86_400:
            raise serializers.ValidationError("at most 366d", code="out_of_range")
        return value

    def validate_target(self, value: dict[str, Any]) -> dict[str, Any]:
        """JSON types only; which keys there are is the inventory's business."""
        return dict(value)


class DecisionRequest(StrictSerializer):
    """A decision on the plan that was seen."""

    digest = Text(max_length=80)
    comment = Text(required=False, allow_blank=True, max_length=2000)


class RejectionRequest(StrictSerializer):
    """A refusal says why."""

    digest = Text(max_length=80)
    comment = Text(max_length=2000)


class UndoRequest(StrictSerializer):
    """Why the job is undone."""

    reason = Text(max_length=2000)


class PlanSummaryShape(StrictSerializer):
    """What a job's plan comes to."""

    digest = Text()
    messages = Integer()
    instances = Integer()
    frozen_at = Instant()


class DecisionShape(StrictSerializer):
    """A person's decision."""

    person = Text()
    decision = Choice(choices=Decision.values)
    comment = Text(allow_blank=True)
    at = Instant()


class ApprovalShape(StrictSerializer):
    """How far the approval of a job has come."""

    needed = Integer()
    given = Integer()
    deadline = Instant(allow_null=True)
    rule = Text(allow_blank=True)
    why = Text(allow_blank=True)
    decisions = serializers.ListField(child=DecisionShape())


class CountsShape(StrictSerializer):
    """`messages`: planned while the job is not final, done after. `left_queue`: those that were no longer queued when a
    deletion that was cut off was read back."""

    runs = serializers.DictField(child=Integer())
    messages = Integer()
    left_queue = Integer()


class JobShape(StrictSerializer):
    """A job."""

    id = serializers.UUIDField()
    operation = Text()
    target = JsonObject()
    params = JsonObject()
    reason = Text(allow_blank=True)
    ticket = Text(allow_blank=True)
    dry_run = Flag()
    state = Choice(choices=JOB_STATES)
    error = JsonObject(allow_null=True)
    requested_by = Text()
    channel = Choice(choices=CHANNELS)
    created_at = Instant()
    started_at = Instant(allow_null=True)
    finished_at = Instant(allow_null=True)
    expires_at = Instant(allow_null=True)
    customers = Texts()
    undo_of = serializers.UUIDField(allow_null=True)
    undone_by = serializers.UUIDField(allow_null=True)
    retry_of = serializers.UUIDField(allow_null=True)
    links = serializers.DictField(child=Text())
    plan = PlanSummaryShape(allow_null=True)
    approval = ApprovalShape(allow_null=True)
    counts = CountsShape()


class EvidenceShape(StrictSerializer):
    """What the host showed before and after."""

    before = serializers.JSONField(allow_null=True)
    after = serializers.JSONField(allow_null=True)


class RunShape(StrictSerializer):
    """A job on one instance (on one host, for discovery)."""

    id = serializers.UUIDField()
    instance = Text(allow_null=True)
    host = Text()
    state = Choice(choices=RUN_STATES)
    error = JsonObject(allow_null=True)
    result = JsonObject(allow_null=True)
    commands = serializers.ListField(child=JsonObject())
    evidence = EvidenceShape()
    started_at = Instant(allow_null=True)
    finished_at = Instant(allow_null=True)


class MessageShape(StrictSerializer):
    """What became of a message; `outcome` is null until that is known, `new_id` where it got none."""

    queue_id = Text()
    outcome = Text(allow_null=True)
    new_id = Text(allow_null=True)


class PlannedMessageShape(StrictSerializer):
    """A message that the plan names."""

    instance = Text()
    queue_id = Text()
    arrival_time = Instant()
    sender = Text()
    size = Integer()


class PlannedPageShape(StrictSerializer):
    """A list page."""

    next = Text(allow_null=True)
    previous = Text(allow_null=True)
    results = serializers.ListField(child=PlannedMessageShape())


class PlanShape(StrictSerializer):
    """A frozen plan. `limit`, `cursor` page through `messages`."""

    digest = Text()
    frozen_at = Instant()
    instances = serializers.ListField(child=JsonObject())
    messages = PlannedPageShape()


class CancelledShape(StrictSerializer):
    """Which runs (ids) were cancelled, and which are in flight and finish."""

    cancelled = Texts()
    in_flight = Texts()


class BlockInstanceShape(StrictSerializer):
    """A block on one instance."""

    instance = Text()
    state = Choice(choices=BlockState.values)
    detail = Text(allow_blank=True)


class BlockShape(StrictSerializer):
    """A sender that is wanted blocked."""

    id = serializers.UUIDField()
    pattern = Text()
    action = Text()
    reply = Text()
    target = JsonObject()
    reason = Text(allow_blank=True)
    ticket = Text(allow_blank=True)
    owner = Text()
    job = serializers.UUIDField()
    wanted = Flag()
    created_at = Instant()
    expires_at = Instant(allow_null=True)
    instances = serializers.ListField(child=BlockInstanceShape())


class QuarantineShape(StrictSerializer):
    """A message that was taken out of a queue."""

    id = serializers.UUIDField()
    job = serializers.UUIDField()
    instance = Text()
    queue_id = Text()
    sender = Text()
    recipients = Texts()
    subject = Text(allow_blank=True)
    size = Integer()
    state = Choice(choices=QuarantineState.values)
    arrival_time = Instant()
    created_at = Instant()
    expires_at = Instant()


class AuditShape(StrictSerializer):
    """One entry of the audit trail; `customer` is null for the installation's own chain."""

    seq = Integer()
    at = Instant()
    customer = Text(allow_null=True)
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


class FirstBadShape(StrictSerializer):
    """Where a chain stops to be what was written."""

    seq = Integer()
    reason = Text()
    customer = Text(allow_null=True)


class GapShape(StrictSerializer):
    """Entries `first` to `last` as they once were are not, or not all, there; the entry `seq` acknowledges it."""

    customer = Text(allow_null=True)
    seq = Integer()
    first = Integer()
    last = Integer()
    last_known_hash = Text()
    at = Instant()
    reason = Text()


class VerdictShape(StrictSerializer):
    """Whether the chains are what was written."""

    ok = Flag()
    checked = Integer()
    first_bad = FirstBadShape(allow_null=True)
    gaps = GapShape(many=True)


class CheckpointShape(StrictSerializer):
    """A signed statement of how far a chain had got; `previous` is null in those of mxfleet 0.2."""

    customer = Text(allow_null=True)
    seq = Integer()
    hash = Text()
    at = Instant()
    previous = Integer(allow_null=True)
    previous_hash = Text(allow_blank=True)
    signature = Text()
