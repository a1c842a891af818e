"""What brings a host in: its installer, and looks at what is missing there."""

from collections.abc import Mapping, Sequence
from typing import Any

from django.http import HttpResponse
from drf_spectacular.types import OpenApiTypes
from drf_spectacular.utils import extend_schema
from rest_framework.decorators import action
from rest_framework.request import Request
from rest_framework.response import Response

from api import prefer
from api.filters import choice
from api.idempotency import Answer
from api.throttle import ScanManyBucket, TokenBucket
from api.v1.answers import job_answer, made
from api.v1.serializers.fleet import EmptySerializer
from api.v1.serializers.jobs import JobSerializer
from api.v1.serializers.scanning import MOST_HOSTS, ScanSerializer, ScansSerializer
from api.viewsets import ApiViewSet
from fleet.installer.role import role_of
from fleet.models import Host
from jobs.administration import inventory
from jobs.errors import FieldError, Invalid
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

    @extend_schema(
        operation_id="post_scan_host_keys",
        summary="Show and compare the keys that hosts have",
        responses=ScansSerializer,
    )
    @action(
        methods=["post"],
        detail=False,
        url_path="scan-host-keys",
        serializer_class=ScanSerializer,
        filtered=frozenset({"scan_host_keys"}),
        throttle_classes=[TokenBucket, ScanManyBucket],
    )
    def scan_host_keys(self, request: Request) -> Response:
        """Ask hosts for their keys, and SSHFP records, the hosts' CA and a list whether they are right. Nothing is
        trusted by that. The hosts are named, or chosen by the filters of the list, or both."""
        asked = self.body()
        hosts = self._chosen(asked)
        inventory.must_administer_all(self.actor, hosts)
        return self.answered(lambda: _scans(hosts, asked.get("keys", {})), is_long=True)

    def _chosen(self, asked: dict[str, Any]) -> list[Host]:
        """Raises Invalid: where nothing is chosen, a name is unknown, or there are too many."""
        names: list[str] = asked.get("hosts", [])
        if not names and not self.request.query_params:
            raise Invalid.field("hosts", "required", "name hosts, or choose them by the filters of the list")
        rows = self.filter_queryset(self.get_queryset().order_by("name"))
        if names:
            rows = rows.filter(name__in=names)
        jumps = ("jump_host__credential", "jump_host__jump_host__credential")
        hosts = list(rows.select_related("customer", "credential", *jumps)[: MOST_HOSTS + 1])
        if len(hosts) > MOST_HOSTS:
            raise Invalid.field("hosts", "too_broad", f"more than {MOST_HOSTS} hosts are chosen; ask in parts")
        known = {host.name for host in hosts}
        wrong = [(f"hosts[{at}]", name) for at, name in enumerate(names) if name not in known]
        wrong += [(f"keys.{name}", name) for name in asked.get("keys", {}) if name not in known]
        if wrong:
            raise Invalid.fields(*(FieldError(at, "unknown_target", f"{name!r} is not chosen") for at, name in wrong))
        return hosts

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


def _scans(hosts: Sequence[Host], given: Mapping[str, Sequence[str]]) -> Answer:
    from jobs.worker.scanning import scan  # it brings asyncssh, which no other request needs

    return Answer(200, ScansSerializer({"results": scan(hosts, given)}).data)
