"""Where to begin: the addresses that a client follows from, and the way of a browser to the documentation."""

from typing import Any

from django.http import HttpRequest, HttpResponse, HttpResponseRedirect
from drf_spectacular.utils import extend_schema
from rest_framework import serializers
from rest_framework.request import Request
from rest_framework.response import Response

from api.auth import UNSCOPED
from api.errors import Problem, respond
from api.fields import StrictSerializer
from api.viewsets import ApiViewSet

API = "/api/v1/"
PLACES = (
    "jobs", "runs", "blocks", "quarantine", "hosts", "instances", "operations", "credentials", "customers", "users",
    "service-accounts", "tokens", "whoami", "audit", "pause", "schema", "docs",
)  # fmt: skip
"""What lies directly below."""


def home(request: HttpRequest) -> HttpResponse:
    """To the documentation, while there is no console."""
    if request.method not in ("GET", "HEAD"):
        return respond(request, Problem(405, "method_not_allowed", "only GET is known here", {"Allow": "GET, HEAD"}))
    return HttpResponseRedirect(f"{API}docs/")


class RootSerializer(StrictSerializer):
    """The address of each collection."""

    def get_fields(self) -> dict[str, Any]:
        return {name: serializers.URLField(read_only=True) for name in PLACES}


class Root(ApiViewSet):
    """The collections."""

    scopes = {"GET": UNSCOPED}
    serializer_class = RootSerializer
    trimmed = frozenset()

    @extend_schema(operation_id="get_root", summary="List the collections", tags=["root"])
    def retrieve(self, request: Request) -> Response:
        return Response({name: self.url(f"{API}{name}/") for name in PLACES})
