"""The audit trail: its entries, whether they are what was written, all of it to take away, and its checkpoints."""

import json
import logging
from collections.abc import Iterable, Iterator
from itertools import islice

from django.db.models import Q
from django.http import HttpResponse
from drf_spectacular.types import OpenApiTypes
from drf_spectacular.utils import extend_schema, extend_schema_view
from rest_framework.decorators import action
from rest_framework.exceptions import PermissionDenied
from rest_framework.mixins import ListModelMixin
from rest_framework.request import Request
from rest_framework.response import Response

from api import sheets
from api.auth import scoped_actor
from api.errors import Problem
from api.filters import Rows, any_of, asked, choice, equals, identity, when
from api.held import Exchange, exchange_of
from api.hub import Listener
from api.v1.serializers.records import AuditSerializer, CheckpointSerializer, VerdictSerializer
from api.viewsets import ApiViewSet
from jobs import selectors
from jobs.audit import trail
from jobs.audit.verify import Line
from jobs.audit.window import Window

AUDIT = {"GET": "audit:read"}
LINES = 500
PART = 1 << 18
"""Bytes after which a part of an export ends, whatever lines it has: its client has seconds to read it, and it is kept
in memory until then. A line may be as long as a request's body."""
NDJSON = "application/x-ndjson"
CSV = "text/csv"
COLUMNS = (
    "seq", "at", "chain", "actor", "on_behalf_of", "channel", "source", "action", "object", "job", "data", "prev_hash",
    "hash",
)  # fmt: skip
CUSTOMER = equals("chain", "Only this customer's chain.")
SINCE = when("at__gte", "Only from this time on.")
UNTIL = when("at__lt", "Only before this time.")
log = logging.getLogger(__name__)


def _as_csv(lines: Iterable[Line]) -> Iterator[str]:
    """The entries only; without the checkpoints it proves nothing."""
    yield sheets.row("customer" if name == "chain" else name for name in COLUMNS)
    for line in lines:
        if line["type"] == "event":
            cells = {**line, "data": json.dumps(line["data"], ensure_ascii=False)}
            yield sheets.row(cells[name] for name in COLUMNS)


FORMATS = {
    "jsonl": (NDJSON, {}, trail.as_json),
    "csv": (
        f"{CSV}; charset=utf-8; header=present",
        {"Content-Disposition": 'attachment; filename="audit.csv"'},
        _as_csv,
    ),
}
"""How an export may be told: its type, its other headers, and what makes it of the lines."""
FORMAT = choice([*FORMATS], "JSON lines, or CSV for spreadsheets; `jsonl` unless this says otherwise.")


def _by(rows: Rows, people: list[str]) -> Rows:
    return rows.filter(Q(actor__in=people) | Q(on_behalf_of__in=people))


@extend_schema(tags=["audit"])
@extend_schema_view(list=extend_schema(operation_id="get_audit", summary="List audit entries"))
class Audit(ListModelMixin, ApiViewSet):
    """The audit trail, newest first."""

    scopes = AUDIT
    serializer_class = AuditSerializer
    orderings = {"-at": ("-id",)}
    filters = {
        "job": identity("job", "Only what concerns this job."),
        "actor": any_of("Only what this person did or had done.", _by),
        "action": equals("action", "Only this action, such as job.submitted."),
        "customer": CUSTOMER,
        "since": SINCE,
        "until": UNTIL,
    }
    filtered = frozenset({"list", "checkpoints", "export"})
    paged = frozenset({"list", "checkpoints"})
    trimmed = frozenset({"list", "checkpoints", "verify"})

    def get_queryset(self) -> Rows:
        return selectors.visible_audit(self.actor)

    @extend_schema(operation_id="get_audit_verify", summary="Verify the audit trail")
    @action(detail=False, serializer_class=VerdictSerializer)
    def verify(self, request: Request) -> Response:
        """Follow the chains that the caller may see, to the first bad entry."""
        return Response(self.get_serializer(trail.verify(selectors.audit_chains(self.actor))).data)

    @extend_schema(
        operation_id="get_audit_export",
        summary="Export the audit trail",
        responses={(200, kind): OpenApiTypes.BINARY for kind in (NDJSON, CSV)},
    )
    @action(detail=False, filters={"customer": CUSTOMER, "since": SINCE, "until": UNTIL, "format": FORMAT})
    def export(self, request: Request) -> HttpResponse:
        """The chains that the caller may see as JSON lines, for the offline verifier; or as CSV, which is not."""
        wanted = asked(request, self.filters)
        window = Window(wanted.get("since"), wanted.get("until"))
        content_type, headers, render = FORMATS[wanted.get("format", "jsonl")]
        exchange = exchange_of(request._request)
        if exchange is None:
            raise Problem(503, "unavailable", "this server cannot stream")
        if not exchange.take_place("exports", str(request.user.pk)):
            detail = "an export of yours is on its way, or as many as may be"
            raise Problem(429, "rate_limited", detail, {"Retry-After": "5"})
        chains = selectors.audit_chains(self.actor)
        if request.method != "HEAD":
            lines = render(trail.lines(_asked(chains, wanted.get("customer")), window))
            exchange.go_on(_Export(str(request.META["HTTP_AUTHORIZATION"]), self.actor.source, chains, lines))
        return HttpResponse(content_type=content_type, headers=headers)

    @extend_schema(
        operation_id="get_audit_checkpoints", summary="List checkpoints", responses=CheckpointSerializer(many=True)
    )
    @action(
        detail=False,
        serializer_class=CheckpointSerializer,
        filters={"customer": CUSTOMER},
    )
    def checkpoints(self, request: Request) -> Response:
        """Signed statements of how far each chain had got."""
        return self.page(selectors.visible_checkpoints(self.actor))


def _asked(chains: list[str] | None, customers: list[str] | None) -> list[str] | None:
    """Of the chains that the caller may read (None: all) those of the customers, where some are named."""
    if customers is None:
        return chains
    return sorted(name for name in {*customers} if chains is None or name in chains)


class _Export:
    """What is left to do: send the lines of the chains that the caller may read to their end, part by part.

    A client that does not read, or may read them no more, is cut off: its answer has no end.
    """

    def __init__(self, header: str, source: str, chains: list[str] | None, lines: Iterator[str]) -> None:
        self._header, self._source, self._chains, self._lines = header, source, chains, lines

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
