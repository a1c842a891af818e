"""What brings a host in: its installer, and looks at what is missing there."""

from django.http import HttpResponse
from drf_spectacular.types import OpenApiTypes
from drf_spectacular.utils import extend_schema
from rest_framework.decorators import action
from rest_framework.request import Request

from api.filters import choice
from api.viewsets import ApiViewSet
from fleet.installer.role import role_of
from jobs.administration import inventory

SCRIPT, ROLE = "text/x-shellscript", "application/x-tar"


class Onboarding(ApiViewSet):
    """The part of hosts/ that concerns their way in."""

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
