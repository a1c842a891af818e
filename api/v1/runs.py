"""Runs over all jobs: what happened on a host, and what failed anywhere."""

from typing import Any

from drf_spectacular.utils import extend_schema, extend_schema_view
from rest_framework.mixins import ListModelMixin

from api.filters import Rows, equals, identity, when
from api.v1.jobs import RUN_FILTERS
from api.v1.serializers.jobs import EMBEDDED, RunSerializer
from api.v1.serializers.runs import any_run
from api.viewsets import ApiViewSet
from jobs import selectors


@extend_schema(tags=["jobs"])
@extend_schema_view(
    list=extend_schema(operation_id="get_all_runs", summary="List runs over all jobs", responses=any_run(many=True))
)
class Runs(ListModelMixin, ApiViewSet):
    """The runs of all jobs that concern only customers that the caller may see, newest first."""

    scopes = {"GET": "jobs:read"}
    serializer_class = RunSerializer
    orderings = {"-id": ("-id",)}
    filters = {
        **RUN_FILTERS,
        "operation": equals("job__operation", "Only runs of this operation."),
        "job": identity("job_id", "Only runs of this job."),
        "customer": equals("host__customer__slug", "Only runs on hosts of this customer."),
        "since": when("job__created_at__gte", "Only runs of jobs made from this time on."),
        "until": when("job__created_at__lt", "Only runs of jobs made before this time."),
    }

    def get_queryset(self) -> Rows:
        return selectors.visible_runs(self.actor)

    def paginate_queryset(self, queryset: Any) -> list[Any]:
        """With the first messages of those that count messages, in one statement for all."""
        return selectors.with_messages(list(super().paginate_queryset(queryset) or ()), EMBEDDED + 1)
