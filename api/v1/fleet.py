"""Credentials, hosts, instances, and the catalogue of operations."""

from datetime import UTC, datetime
from functools import cache
from typing import Any

from django.db.models.functions import Coalesce
from django.http import HttpResponse
from drf_spectacular.utils import extend_schema, extend_schema_view
from rest_framework.decorators import action
from rest_framework.mixins import ListModelMixin
from rest_framework.request import Request
from rest_framework.response import Response
from rest_framework.serializers import BaseSerializer

from api.auth import UNSCOPED
from api.errors import Problem
from api.filters import Rows, equals, flag, label, one_of
from api.idempotency import Answer
from api.search import search
from api.throttle import ScanBucket, TokenBucket
from api.v1.many_hosts import ManyHostsMixin
from api.v1.onboarding import Onboarding
from api.v1.serializers.fleet import (
    CredentialSerializer,
    EmptySerializer,
    HostKeySerializer,
    HostSerializer,
    InstanceSerializer,
    OperationSerializer,
    ReplacementSerializer,
    ReplaceSerializer,
    UnlockedSerializer,
    UnlockSerializer,
)
from api.v1.serializers.many_hosts import NewHostSerializer
from api.viewsets import ApiViewSet, ObjectViewSet, found
from fleet.inventory import called
from fleet.models import Host, HostStatus
from fleet.mta.errors import FleetError
from fleet.mta.params.catalogue import CATALOGUE
from jobs import selectors
from jobs.administration import hosts, inventory
from jobs.errors import Clash
from jobs.lifecycle import replacing
from jobs.lifecycle.unlock import unlock

FLEET = {"GET": "fleet:read", **dict.fromkeys(("POST", "PUT", "PATCH", "DELETE"), "fleet:write")}
CUSTOMER = equals("customer__slug", "Only those of this customer.")
SEARCHED = ("name", "address", "site")
NEVER = datetime(1970, 1, 1, tzinfo=UTC)
"""Stands for when a host was seen that never was, so that there is an order among all."""


@extend_schema(tags=["fleet"])
@extend_schema_view(
    list=extend_schema(operation_id="get_credentials", summary="List credentials"),
    create=extend_schema(operation_id="post_credentials", summary="Add a credential"),
    retrieve=extend_schema(operation_id="get_credential", summary="Show a credential"),
    partial_update=extend_schema(operation_id="patch_credential", summary="Change a credential"),
    destroy=extend_schema(operation_id="delete_credential", summary="Delete a credential"),
)
class Credentials(ObjectViewSet):
    """SSH keys; the private key is never returned. Names are unique per customer: `?customer=` says whose, where the
    caller sees several."""

    scopes = FLEET
    serializer_class = CredentialSerializer
    lookup_field = "name"
    lookup_value_converter = "name"
    orderings = {"name": ("name", "id")}
    filters = {"customer": CUSTOMER}
    filtered = frozenset(
        {"list", "retrieve", "partial_update", "destroy", "replacement", "begin_replacement", "stop_replacement"}
    )
    trimmed = frozenset({"list", "retrieve", "replacement"})

    def get_queryset(self) -> Rows:
        return selectors.visible_credentials(self.actor)

    def get_object(self) -> Any:
        rows = self.filter_queryset(self.get_queryset()).filter(name=self.kwargs["name"])
        if len(rows[:2]) == 2:
            raise Clash("ambiguous", f"several customers have a credential {self.kwargs['name']}; say ?customer=")
        return found(rows)

    def location(self, row: Any) -> str:
        return f"{super().location(row)}?customer={row.customer.slug}"

    def perform_create(self, serializer: Any) -> None:
        serializer.instance = inventory.create_credential(self.actor, dict(serializer.validated_data))

    def perform_update(self, serializer: Any) -> None:
        inventory.update_credential(self.actor, serializer.instance, dict(serializer.validated_data))

    def perform_destroy(self, row: Any) -> None:
        inventory.delete_credential(self.actor, row)

    @extend_schema(operation_id="get_credential_replacement", summary="Show how far a credential is replaced")
    @action(detail=True, url_path="replace", serializer_class=ReplacementSerializer)
    def replacement(self, request: Request, name: str) -> Response:
        """How far another credential has taken this one's place."""
        return self.tagged(self.get_serializer(replacing.progress(self.get_object())).data)

    @extend_schema(
        operation_id="post_credential_replacement",
        summary="Replace a credential on all its hosts",
        request=ReplaceSerializer,
        responses=ReplacementSerializer,
    )
    @replacement.mapping.post
    def begin_replacement(self, request: Request, name: str) -> Response:
        """Try another credential on each host that has this one; a host gets it when a login has worked."""
        row = self.get_object()
        inventory.must_administer(self.actor, row.customer)
        serializer = ReplaceSerializer(data=request.data)
        serializer.is_valid(raise_exception=True)

        def work() -> Answer:
            begun = replacing.begin(self.actor, row, serializer.validated_data["by"])
            return Answer(200, ReplacementSerializer(begun).data)

        return self.answered(work)

    @extend_schema(operation_id="delete_credential_replacement", summary="Stop replacing a credential")
    @replacement.mapping.delete
    def stop_replacement(self, request: Request, name: str) -> Response:
        """Leave it to the hosts that still have it."""
        row = self.get_object()
        inventory.must_administer(self.actor, row.customer)
        self.check_match(self.get_serializer(replacing.progress(row)).data)
        replacing.stop(self.actor, row)
        return Response(status=204)


@extend_schema(tags=["fleet"])
@extend_schema_view(
    list=extend_schema(operation_id="get_hosts", summary="List hosts"),
    create=extend_schema(
        operation_id="post_hosts", summary="Add a host", request=NewHostSerializer, responses={201: HostSerializer}
    ),
    retrieve=extend_schema(operation_id="get_host", summary="Show a host"),
    partial_update=extend_schema(operation_id="patch_host", summary="Change a host"),
    destroy=extend_schema(operation_id="delete_host", summary="Delete a host"),
)
class Hosts(ManyHostsMixin, Onboarding, ObjectViewSet):
    """MX hosts."""

    scopes = FLEET
    serializer_class = HostSerializer
    lookup_field = "name"
    lookup_value_converter = "name"
    orderings = {
        "name": ("name",),
        "last_added": ("-id",),
        "customer": ("customer__slug", "name"),
        "address": ("address", "name"),
        "site": ("site", "name"),
        "status": ("status", "name"),
        "last_seen_at": ("seen_at", "name"),
    }
    filters = {
        "customer": CUSTOMER,
        "site": equals("site", "Only those of this site."),
        "enabled": flag("enabled", "Only the enabled, or the disabled ones."),
        "status": one_of("status", HostStatus.values, "Only those in this status."),
        "label": label("Only those with this label, as key=value."),
        "search": search(SEARCHED, "labels", "Only those with these words in name, address, site or labels."),
    }
    filtered = frozenset({"list", "bulk_update"})

    def get_queryset(self) -> Rows:
        return selectors.visible_hosts(self.actor).annotate(seen_at=Coalesce("last_seen_at", NEVER))

    def get_serializer_class(self) -> type[BaseSerializer[Any]]:
        return NewHostSerializer if self.action == "create" else super().get_serializer_class()

    def perform_create(self, serializer: Any) -> None:
        serializer.instance = hosts.create_host(self.actor, dict(serializer.validated_data))

    def perform_update(self, serializer: Any) -> None:
        hosts.update_host(self.actor, serializer.instance, dict(serializer.validated_data))

    def perform_destroy(self, row: Any) -> None:
        hosts.delete_host(self.actor, row)

    @extend_schema(
        operation_id="post_scan_host_key",
        summary="Show the key that the host has",
        responses=HostKeySerializer,
    )
    @action(
        methods=["post"],
        detail=True,
        url_path="scan-host-key",
        serializer_class=EmptySerializer,
        throttle_classes=[TokenBucket, ScanBucket],
    )
    def scan_host_key(self, request: Request, name: str) -> Response:
        """Ask a host for its key. Nothing is trusted by that."""
        row = self.get_object()
        inventory.must_administer(self.actor, row.customer)
        self.body()
        return self.answered(lambda: _scan(row), is_long=True)

    @extend_schema(operation_id="post_unlock", summary="Free a host by hand", responses=UnlockedSerializer)
    @action(methods=["post"], detail=True, serializer_class=UnlockSerializer)
    def unlock(self, request: Request, name: str) -> Response:
        """Free a host from the job that has it, when that does not let go by itself."""
        row = self.get_object()
        inventory.must_administer(self.actor, row.customer)
        reason = self.body()["reason"]

        def work() -> Answer:
            job = unlock(self.actor, row, reason)
            freed = UnlockedSerializer({"host": row.name, "job": job.pk, "state": job.state})
            return Answer(200, freed.data)

        return self.answered(work)

    @extend_schema(operation_id="get_sudoers", summary="Show the sudoers file", responses={(200, "text/plain"): str})
    @action(detail=True)
    def sudoers(self, request: Request, name: str) -> HttpResponse:
        """The least-privilege sudoers file for what discovery found."""
        from jobs.sudoers import sudoers_file

        return HttpResponse(sudoers_file(self.get_object()), content_type="text/plain; charset=utf-8")


def _scan(row: Host) -> Answer:
    from jobs.worker.runner import scan_host_key  # the runner brings asyncssh, which no other request needs

    try:
        key = scan_host_key(row)
    except FleetError as error:
        problem = Problem(502, error.code, error.detail)
        problem.extra = {"error": error.as_dict()}
        raise problem from error
    return Answer(200, HostKeySerializer(key).data)


@extend_schema(tags=["fleet"])
@extend_schema_view(list=extend_schema(operation_id="get_instances", summary="List instances"))
class Instances(ListModelMixin, ApiViewSet):
    """MTA instances, as discovery found them."""

    scopes = FLEET
    serializer_class = InstanceSerializer
    trimmed = frozenset({"list", "one"})
    orderings = {"id": ("host__name", "name")}
    filters = {
        "host": equals("host__name", "Only those on this host."),
        "customer": equals("host__customer__slug", "Only those of this customer."),
        "mta": equals("mta", "Only those of this MTA."),
    }

    def get_queryset(self) -> Rows:
        return selectors.visible_instances(self.actor)

    @extend_schema(operation_id="get_instance", summary="Show an instance")
    @action(detail=False, url_path="<name:host>/<name:name>")
    def one(self, request: Request, host: str, name: str) -> Response:
        """One MTA instance."""
        row = found(self.get_queryset().filter(called(name)), host__name=host)
        return self.tagged(self.get_serializer(row).data)


class Operations(ApiViewSet):
    """The catalogue: every operation, its params, and which MTA can do it."""

    scopes = {"GET": UNSCOPED}
    serializer_class = OperationSerializer
    filtered = paged = frozenset()

    @extend_schema(operation_id="get_operations", summary="List operations", tags=["fleet"])
    def list(self, request: Request) -> Response:
        whole = self.get_serializer(CATALOGUE.values(), many=True).data if self.wanted is not None else catalogue()
        return Response({"next": None, "previous": None, "results": whole})


@cache
def catalogue() -> Any:
    """The operations as JSON."""
    return OperationSerializer(CATALOGUE.values(), many=True).data
