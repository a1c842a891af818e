"""Plans as JSON."""

from typing import Any

from drf_spectacular.utils import extend_schema_field
from rest_framework import serializers

from api.fields import Epoch, Instant, Integer, JsonObject, StrictSerializer, Text
from api.results import reference
from jobs.jsonvalues import readable
from jobs.rules.plan import PlanInstance


class PlannedMessageSerializer(StrictSerializer):
    """A message that the plan names."""

    instance = Text(source="run.planned_name")
    queue_id = Text()
    arrival_time = Epoch()
    sender = Text()
    size = Integer()


class PlannedPageSerializer(StrictSerializer):
    """A list page."""

    next = Text(allow_null=True)
    previous = Text(allow_null=True)
    results = PlannedMessageSerializer(many=True)


@extend_schema_field(reference(PlanInstance))
class PlannedInstance(JsonObject):
    """An instance's part of a plan."""

    def to_representation(self, value: Any) -> dict[str, Any]:
        plan = value.plan or {}
        return {"instance": value.planned_name, **plan, "sample": readable(plan.get("sample", []))}


class PlanSerializer(StrictSerializer):
    """A frozen plan: the job's digest, its runs that have a plan, and a page of its messages."""

    digest = Text()
    frozen_at = Instant()
    instances = serializers.ListField(child=PlannedInstance())
    messages = PlannedPageSerializer()
