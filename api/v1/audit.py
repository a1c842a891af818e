"""The audit trail: its entries, whether they are what was written, all of it to take away, and its checkpoints."""

import logging
from itertools import islice

from django.db.models import Q
from django.http import HttpResponse
from drf_spectacular.utils import extend_schema, extend_schema_view
from rest_framework.decorators import action
from rest_framework.exceptions import PermissionDenied
from rest_framework.mixins import ListModelMixin
from rest_framework.request import Request
from rest_framework.response import Response

from api.auth import scoped_actor
from api.errors import Problem
from api.filters import Filter, Rows, equals, identity, when
from api.held import Exchange, exchange_of
from api.hub import Listener
from api.v1.serializers.records import AuditSerializer, CheckpointSerializer, VerdictSerializer
from api.viewsets import ApiViewSet
from jobs import selectors
from jobs.audit import trail

AUDIT = {"GET": "audit:read"}
LINES = 500
PART = 1 << 18
"""Bytes after which a part of an export ends, whatever lines it has: its client has seconds to read it, and it is kept
in memory until then. A line may be as long as a request's body."""
NDJSON = "application/x-ndjson"
log = logging.getLogger(__name__)


def _by(person: str) -> Q:
    return Q(actor=person) | Q(on_behalf_of=person)


@extend_schema(tags=["audit"])
@extend_schema_view(list=extend_schema(operation_id="get_audit", summary="List audit entries"))
class Audit(ListModelMixin, ApiViewSet):
    """The audit trail, newest first."""

    scopes = AUDIT
    serializer_class = AuditSerializer
    orderings = {"-at": ("-id",)}
    filters = {
        "job": identity("job", "Only what concerns this job."),
        "actor": Filter("Only what this person did or had done.", lambda rows, value: rows.filter(_by(value))),
        "action": equals("action", "Only this action, such as job.submitted."),
        "customer": equals("chain", "Only this customer's chain."),
        "since": when("at__gte", "Only from this time on."),
        "until": when("at__lt", "Only before this time."),
    }
    filtered = paged = frozenset({"list", "checkpoints"})

    def get_queryset(self) -> Rows:
        return selectors.visible_audit(self.actor)

    @extend_schema(operation_id="get_audit_verify", summary="Verify the audit trail")
    @action(detail=False, serializer_class=VerdictSerializer)
    def verify(self, request: Request) -> Response:
        """Follow the chains that the caller may see, to the first bad entry."""
        return Response(self.get_serializer(trail.verify(selectors.audit_chains(self.actor))).data)

    @extend_schema(operation_id="get_audit_export", summary="Export the audit trail", responses={(200, NDJSON): str})
    @action(detail=False)
    def export(self, request: Request) -> HttpResponse:
        """The chains that the caller may see as JSON lines, for the offline verifier."""
        exchange = exchange_of(request._request)
        if exchange is None:
            raise Problem(503, "unavailable", "this server cannot stream")
        if not exchange.take_place("exports", str(request.user.pk)):
            detail = "an export of yours is on its way, or as many as may be"
            raise Problem(429, "rate_limited", detail, {"Retry-After": "5"})
        chains = selectors.audit_chains(self.actor)
        if request.method != "HEAD":
            exchange.go_on(_Export(str(request.META["HTTP_AUTHORIZATION"]), self.actor.source, chains))
        return HttpResponse(content_type=NDJSON)

    @extend_schema(
        operation_id="get_audit_checkpoints", summary="List checkpoints", responses=CheckpointSerializer(many=True)
    )
    @action(
        detail=False,
        serializer_class=CheckpointSerializer,
        filters={"customer": equals("chain", "Only this customer's chain.")},
    )
    def checkpoints(self, request: Request) -> Response:
        """Signed statements of how far each chain had got."""
        return self.page(selectors.visible_checkpoints(self.actor))


class _Export:
    """What is left to do: tell the chains (None: all) to their end, part by part.

    A client that does not read, or may read them no more, is cut off: its answer has no end.
    """

    def __init__(self, header: str, source: str, chains: list[str] | None) -> None:
        self._header, self._source, self._chains = header, source, chains
        self._lines = trail.export(chains)

    async def __call__(self, exchange: Exchange, listener: Listener) -> None:
        await exchange.start(200, {})
        is_last = False
        while not is_last and not listener.is_over:
            try:
                part = await exchange.hub.query(self._part)
            except Exception as error:
                log.warning("an export was not told to its end: %s: %s", type(error).__name__, error)
                return
            is_last = not part
            await exchange.write(part, is_last=is_last)

    def _part(self) -> bytes:
        """The next lines. Raises what refuses the caller now."""
        actor = scoped_actor(self._header, self._source, AUDIT["GET"])
        if selectors.audit_chains(actor) != self._chains:
            raise PermissionDenied("the caller may read other chains now")
        part = bytearray()
        for line in islice(self._lines, LINES):
            part += line.encode()
            if len(part) >= PART:
                break
        return bytes(part)
