"""What brings a host in: its installer, and looks at what is missing there."""

from django.http import HttpResponse
from drf_spectacular.types import OpenApiTypes
from drf_spectacular.utils import extend_schema
from rest_framework.decorators import action
from rest_framework.request import Request
from rest_framework.response import Response

from api import prefer
from api.filters import choice
from api.v1.answers import job_answer, made
from api.v1.serializers.fleet import EmptySerializer
from api.v1.serializers.jobs import JobSerializer
from api.viewsets import ApiViewSet
from fleet.installer.role import role_of
from jobs.administration import inventory
from jobs.lifecycle.submit import Request as JobRequest
from jobs.lifecycle.submit import submit

SCRIPT, ROLE = "text/x-shellscript", "application/x-tar"


class Onboarding(ApiViewSet):
    """The part of hosts/ that concerns their way in."""

    @extend_schema(operation_id="post_discover", summary="Make a host.discover job", responses={202: JobSerializer})
    @action(methods=["post"], detail=True, serializer_class=EmptySerializer, scopes={"POST": "jobs:request"})
    def discover(self, request: Request, name: str) -> Response:
        """Find the host's MTA instances."""
        return self._job("host.discover")

    @extend_schema(operation_id="post_check", summary="Make a host.check job", responses={202: JobSerializer})
    @action(methods=["post"], detail=True, serializer_class=EmptySerializer, scopes={"POST": "jobs:request"})
    def check(self, request: Request, name: str) -> Response:
        """Look whether the host has all that is needed: what is missing, and what to do about it."""
        return self._job("host.check")

    def _job(self, operation: str) -> Response:
        """A job of this host alone, held as `Prefer` asks."""
        row = self.get_object()
        self.body()
        requested = JobRequest(operation=operation, target={"hosts": [row.name]})
        hold = prefer.holder(self.request, job_answer)
        return self.answered(lambda: made(self.url, submit(self.actor, requested)), hold=hold)

    @extend_schema(
        operation_id="get_installer",
        summary="Get the installer",
        responses={(200, SCRIPT): OpenApiTypes.STR, (200, ROLE): OpenApiTypes.BINARY},
    )
    @action(
        detail=True,
        scopes={"GET": "fleet:write"},
        filters={
            "format": choice(["sh", "ansible"], "A script, which is what comes without this, or a role in a tar.")
        },
        filtered=frozenset({"installer"}),
    )
    def installer(self, request: Request, name: str) -> HttpResponse:
        """One POSIX script, to be run as root on the host: account, scripts and, once discovered, sudo rules."""
        from jobs.installer import installer_of

        row = self.get_object()
        inventory.must_administer(self.actor, row.customer)
        self.filter_queryset(self.get_queryset())
        script = installer_of(row)
        if request.query_params.get("format") == "ansible":
            return self.tagged_file(role_of(row.name, script), ROLE, f"mxfleet-{row.name}.tar")
        return self.tagged_file(script, SCRIPT, f"mxfleet-{row.name}.sh")
