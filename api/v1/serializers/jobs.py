"""Jobs and their runs as JSON, and what is asked of them."""

from typing import Any

from drf_spectacular.utils import extend_schema_field
from rest_framework import serializers

from api.codes import HOST_CODES
from api.fields import (
    Choice,
    Duration,
    Flag,
    Instant,
    Integer,
    JsonObject,
    OrNull,
    StrictSerializer,
    Text,
    Texts,
)
from api.pagination import Page, first_page
from fleet.inventory import MOST_NAMES
from fleet.mta import REGISTRY
from fleet.mta.params.catalogue import CATALOGUE
from jobs.models import Decision, Job
from jobs.rules.state import JobState, RunState
from jobs.selectors import FINAL

JOB_STATES = [state.value for state in JobState]
RUN_STATES = [state.value for state in RunState]
EMBEDDED = 100
"""Messages of a run that stand in its `result` at once; the others follow by the page's `next`."""
BY_ID = {"id": ("id",)}
CHANNELS = ["api", "cli", "web", "slack", "mattermost", "ticket", "schedule"]


class TargetSerializer(StrictSerializer):
    """What a job is about: keys narrow each other, values of one key widen. `all` is the only way to say everything."""

    all = Flag(required=False)
    customers = Texts(required=False, min_length=1, max_length=MOST_NAMES)
    hosts = Texts(required=False, min_length=1, max_length=MOST_NAMES)
    labels = serializers.DictField(child=Texts(min_length=1, max_length=MOST_NAMES), required=False)
    mta = Texts(child=Choice(choices=list(REGISTRY)), required=False, min_length=1)
    instances = Texts(required=False, min_length=1, max_length=MOST_NAMES)


@extend_schema_field(TargetSerializer)
class Target(JsonObject):
    """A target; what it may hold is the inventory's business."""


class HostErrorSerializer(serializers.Serializer[Any]):
    """Why something did not come to what was asked; what else is known stands beside."""

    code = Choice(choices=HOST_CODES)
    detail = Text()
    hint = Text(allow_blank=True)


@extend_schema_field(HostErrorSerializer)
class HostError(JsonObject):
    """Such an error as it was recorded."""


class JobRequestSerializer(StrictSerializer):
    """A job as it is asked for. What `target` and `params` hold is checked against the fleet and the catalogue."""

    operation = Text(max_length=32)
    target = Target()
    params = JsonObject(required=False)
    reason = Text(required=False, allow_blank=True, max_length=2000)
    ticket = Text(required=False, allow_blank=True, max_length=200)
    dry_run = Flag(required=False)
    approval_ttl = Duration(required=False)
    confirm = Flag(required=False)
    start_after = Instant(required=False)
    group = Text(required=False, allow_blank=True, max_length=100)

    def validate_approval_ttl(self, value: int) -> int:
        """More than a year is a typing error."""
        if value > 366 * 86_400:
            raise serializers.ValidationError("at most 366d", code="out_of_range")
        return value

    def validate_target(self, value: dict[str, Any]) -> dict[str, Any]:
        """JSON types only; which keys there are is the inventory's business."""
        return dict(value)


class ApproveSerializer(StrictSerializer):
    """A decision on the plan that was seen."""

    digest = Text(max_length=80)
    comment = Text(required=False, allow_blank=True, max_length=2000)


class RejectSerializer(StrictSerializer):
    """A refusal says why."""

    digest = Text(max_length=80)
    comment = Text(max_length=2000)


class ConfirmSerializer(StrictSerializer):
    """That the plan that was seen is the one that is meant."""

    digest = Text(max_length=80)


class UndoSerializer(StrictSerializer):
    """Why the job is undone, and whether that is to be confirmed first."""

    reason = Text(max_length=2000)
    confirm = Flag(required=False)


class RetrySerializer(StrictSerializer):
    """Whether what is done again is to be confirmed first."""

    confirm = Flag(required=False)


class PlanSummarySerializer(StrictSerializer):
    """What a job's plan comes to."""

    digest = Text()
    messages = Integer(source="planned_messages")
    instances = Integer(source="details.planned_instances")
    frozen_at = Instant()

    def to_representation(self, instance: Job) -> Any:
        return super().to_representation(instance) if instance.frozen_at else None


class DecisionSerializer(StrictSerializer):
    """A person's decision."""

    person = Text(source="person.username")
    decision = Choice(choices=Decision.values)
    comment = Text(allow_blank=True)
    at = Instant()


class Deadline(Instant):
    """Until when people may decide; null when they need not, or cannot any more."""

    def get_attribute(self, instance: Job) -> Any:
        return instance.expires_at if instance.state == JobState.AWAITING_APPROVAL else None


class Given(Integer):
    """How many have agreed."""

    def get_attribute(self, instance: Job) -> int:
        return sum(each.decision == Decision.APPROVED for each in instance.approvals.all())


class ApprovalSerializer(StrictSerializer):
    """How far the approval of a job has come. `confirmed`: false while its requester has not confirmed the plan."""

    needed = Integer(source="approvals_needed")
    given = Given()
    confirmed = Flag(source="is_confirmed")
    deadline = Deadline(allow_null=True)
    rule = Text(allow_blank=True)
    why = Text(allow_blank=True)
    decisions = DecisionSerializer(many=True, source="approvals.all")

    def to_representation(self, instance: Job) -> Any:
        is_asked_for = instance.approvals_needed or (instance.confirm and instance.frozen_at)
        return super().to_representation(instance) if is_asked_for else None


class CountsSerializer(StrictSerializer):
    """`messages`: planned while the job is not final, done after. `left_queue`: those that were no longer queued when a
    deletion that was cut off was read back."""

    runs = serializers.DictField(child=Integer(), source="details.runs")
    messages = Integer(source="planned_messages")
    left_queue = Integer(source="details.left_queue")

    def to_representation(self, instance: Job) -> Any:
        counts = super().to_representation(instance)
        if instance.state in FINAL and instance.state != JobState.PLANNED:
            counts["messages"] = instance.details.done
        return counts


class Slugs(Texts):
    """Customers by their slugs."""

    def to_representation(self, data: Any) -> list[str]:
        return sorted(customer.slug for customer in data.all())


class Links(serializers.DictField):
    """Where what belongs to a job is."""

    child = Text()

    def to_representation(self, value: Any) -> dict[str, str]:
        base = self.context["url"](f"/api/v1/jobs/{value.pk}/")
        links = {"self": base, "runs": f"{base}runs/", "summary": f"{base}summary/", "events": f"{base}events/"}
        return {**links, "plan": f"{base}plan/"} if value.frozen_at and value.totals is None else links


class JobSerializer(StrictSerializer):
    """A job. Its row has been through `selectors.detailed`."""

    id = serializers.UUIDField()
    operation = Choice(choices=list(CATALOGUE))
    target = Target()
    params = JsonObject()
    reason = Text(allow_blank=True)
    ticket = Text(allow_blank=True)
    group = Text(allow_blank=True)
    dry_run = Flag()
    confirm = Flag()
    start_after = Instant(allow_null=True)
    state = Choice(choices=JOB_STATES)
    error = HostError(allow_null=True)
    requested_by = Text(source="requested_by.username")
    channel = Choice(choices=CHANNELS)
    created_at = Instant()
    started_at = Instant(allow_null=True)
    finished_at = Instant(allow_null=True)
    expires_at = Instant(allow_null=True)
    customers = Slugs()
    undo_of = serializers.UUIDField(allow_null=True, source="undo_of_id")
    undone_by = serializers.UUIDField(allow_null=True, source="details.undone_by")
    retry_of = serializers.UUIDField(allow_null=True, source="retry_of_id")
    drift_of = serializers.UUIDField(allow_null=True, source="drift_of_id")
    links = Links(source="*")
    plan = PlanSummarySerializer(allow_null=True, source="*")
    approval = ApprovalSerializer(allow_null=True, source="*")
    counts = CountsSerializer(source="*")


class CommandSerializer(StrictSerializer):
    """A command that was run on the host; secrets are masked. `exit_status`: null where its end was not seen."""

    argv = Texts()
    exit_status = Integer(allow_null=True)
    duration_ms = Integer()
    stderr_tail = Text(allow_blank=True)


@extend_schema_field(CommandSerializer)
class Command(JsonObject):
    """Such a command as it was recorded."""


class EvidenceSerializer(StrictSerializer):
    """What the host showed before and after."""

    before = serializers.JSONField(allow_null=True)
    after = serializers.JSONField(allow_null=True)


class MessageSerializer(StrictSerializer):
    """What became of a message; `outcome` is null until that is known, `new_id` where it got none."""

    queue_id = Text()
    outcome = OrNull()
    new_id = OrNull()


class Result(JsonObject):
    """What a run came to, with the first page of its messages where it counts messages (`selectors.with_messages`)."""

    def to_representation(self, value: Any) -> Any:
        if value.first_messages is None:
            return None if value.job.drift_of_id else value.result
        return {
            **value.result,
            "messages": self._page(value).of(MessageSerializer(value.first_messages[:EMBEDDED], many=True).data),
        }

    def _page(self, run: Any) -> Page:
        """The first one; its `next` leads to the run's own list."""
        url = self.context["url"](f"/api/v1/jobs/{run.job_id}/runs/{run.pk}/messages/")
        return first_page(run.first_messages, EMBEDDED, url, BY_ID)


class Drift(JsonObject):
    """How the queue differs from the plan, of a run whose job compares one with it: all that such a run comes to.

    It is no `result`, so that the type of a result does not depend on what else a job is for.
    """

    def to_representation(self, value: Any) -> Any:
        return value.result if value.job.drift_of_id else None


class RunSerializer(StrictSerializer):
    """A job on one instance (on one host, for discovery). Its row has been through `selectors.with_messages`."""

    id = serializers.UUIDField()
    job = serializers.UUIDField(source="job_id")
    operation = Choice(choices=list(CATALOGUE), source="job.operation")
    instance = Text(allow_null=True)
    host = Text(source="host.name")
    state = Choice(choices=RUN_STATES)
    error = HostError(allow_null=True)
    result = Result(allow_null=True, source="*")
    drift = Drift(allow_null=True, source="*")
    commands = serializers.ListField(child=Command())
    evidence = EvidenceSerializer(source="*")
    started_at = Instant(allow_null=True)
    finished_at = Instant(allow_null=True)


class CancelledSerializer(StrictSerializer):
    """Which runs (ids) were cancelled, and which are in flight and finish."""

    cancelled = Texts()
    in_flight = Texts()
