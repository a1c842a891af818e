"""The wanted blocklist, the quarantine, the audit trail."""

import logging
from itertools import islice
from uuid import UUID

from django.db.models import Q
from django.http import HttpResponse
from rest_framework.exceptions import PermissionDenied
from rest_framework.request import Request
from rest_framework.response import Response

from api.auth import scoped_actor
from api.errors import Problem
from api.filters import equals, identity, instance, one_of, when
from api.held import Exchange, exchange_of
from api.hub import Listener
from api.v1 import render
from api.v1.shapes_jobs import AuditShape, BlockShape, CheckpointShape, QuarantineShape, VerdictShape
from api.view import ApiView, Filter, Method, Rows, found
from fleet.match import Expression, MatchError, parse
from fleet.mta.records import QueueEntry, Recipient
from jobs import selectors
from jobs.audit import trail
from jobs.clock import db_now
from jobs.models import BlockState, QuarantineState
from jobs.models import QuarantineItem as QuarantineRow

READ = {"GET": "jobs:read"}
AUDIT = {"GET": "audit:read"}
NEWEST = {"-created_at": ("-id",)}
MOST_JUDGED = 5000
LINES = 500
PART = 1 << 18
"""Bytes after which a part of an export ends, whatever lines it has: its client has seconds to read it, and it is kept
in memory until then. A line may be as long as a request's body."""
NDJSON = "application/x-ndjson"
log = logging.getLogger(__name__)


class Blocks(ApiView):
    """Senders that are wanted blocked, and how far each instance has got."""

    tag = "records"
    scopes = READ
    orderings = NEWEST
    filters = {
        "pattern": equals("pattern", "Only this pattern."),
        "state": Filter(
            "Only blocks with an instance in this state.",
            lambda rows, value: rows.filter(instances__state=value).distinct(),
            one_of("state", BlockState.values, "").read,
            {"type": "string", "enum": BlockState.values},
        ),
        "instance": instance("instances__instance__", "Only blocks on this instance, as host/name."),
        "customer": equals("customers__slug", "Only blocks that concern this customer."),
    }
    methods = {"GET": Method("List blocks", BlockShape, is_page=True)}

    def get(self, request: Request) -> Response:
        rows = selectors.visible_blocks(self.actor)
        return Response(self.page(rows, lambda page: [render.block(row) for row in page]))


class Block(ApiView):
    """One block."""

    tag = "records"
    scopes = READ
    methods = {"GET": Method("Show a block", BlockShape)}

    def get(self, request: Request, pk: UUID) -> Response:
        return self.detail_response(render.block(found(selectors.visible_blocks(self.actor), pk=pk)))


def _expression(text: str) -> Expression:
    try:
        expression = parse(text)
    except MatchError as error:
        raise ValueError(str(error)) from error
    if expression.needs_headers or expression.needs_body:
        raise ValueError("of a quarantined message only the envelope is known here")
    return expression


def _matching(rows: Rows, expression: Expression) -> Rows:
    judge = expression.compile(db_now().timestamp())
    newest = rows.order_by("-id")[: MOST_JUDGED + 1]
    if len(newest) > MOST_JUDGED:
        raise Problem(422, "too_broad", f"more than {MOST_JUDGED} messages to judge; narrow them by job or instance")
    return rows.filter(pk__in=[row.pk for row in newest if judge(_entry(row))])


def _entry(row: QuarantineRow) -> QueueEntry:
    recipients = [Recipient(address) for address in row.recipients]
    return QueueEntry(
        row.queue_id, row.native_state, row.native_state, row.arrival_time, row.sender, recipients, row.size
    )


class Quarantine(ApiView):
    """Messages that were taken out of queues."""

    tag = "records"
    scopes = READ
    orderings = NEWEST
    filters = {
        "job": identity("job_id", "Only those that this job took out."),
        "instance": instance("instance__", "Only those of this instance, as host/name."),
        "state": one_of("state", QuarantineState.values, "Only those in this state."),
        "match": Filter("Only those that this expression of the selection language selects.", _matching, _expression),
    }
    methods = {"GET": Method("List quarantined messages", QuarantineShape, is_page=True)}

    def get(self, request: Request) -> Response:
        rows = selectors.visible_quarantine(self.actor)
        return Response(self.page(rows, lambda page: [render.quarantined(row) for row in page]))


class QuarantineItem(ApiView):
    """One quarantined message."""

    tag = "records"
    scopes = READ
    methods = {"GET": Method("Show a quarantined message", QuarantineShape)}

    def get(self, request: Request, pk: UUID) -> Response:
        return self.detail_response(render.quarantined(found(selectors.visible_quarantine(self.actor), pk=pk)))


class Audit(ApiView):
    """The audit trail, newest first."""

    tag = "audit"
    scopes = AUDIT
    orderings = {"-at": ("-id",)}
    filters = {
        "job": identity("job", "Only what concerns this job."),
        "actor": Filter("Only what this person did or had done.", lambda rows, value: rows.filter(_by(value))),
        "action": equals("action", "Only this action, such as job.submitted."),
        "customer": equals("chain", "Only this customer's chain."),
        "since": when("at__gte", "Only from this time on."),
        "until": when("at__lt", "Only before this time."),
    }
    methods = {"GET": Method("List audit entries", AuditShape, is_page=True)}

    def get(self, request: Request) -> Response:
        rows = selectors.visible_audit(self.actor)
        return Response(self.page(rows, lambda page: [render.audit_event(row) for row in page]))


def _by(person: str) -> Q:
    return Q(actor=person) | Q(on_behalf_of=person)


class AuditVerify(ApiView):
    """Follow the chains that the caller may see, to the first bad entry."""

    tag = "audit"
    scopes = AUDIT
    methods = {"GET": Method("Verify the audit trail", VerdictShape)}

    def get(self, request: Request) -> Response:
        verdict = trail.verify(selectors.audit_chains(self.actor))
        bad = verdict.first_bad
        first_bad = {"seq": bad.seq, "reason": bad.reason, "customer": bad.chain or None} if bad else None
        gaps = [render.gap(each) for each in verdict.gaps]
        return Response({"ok": verdict.ok, "checked": verdict.checked, "first_bad": first_bad, "gaps": gaps})


class AuditExport(ApiView):
    """The chains that the caller may see as JSON lines, for the offline verifier."""

    tag = "audit"
    scopes = AUDIT
    methods = {"GET": Method("Export the audit trail", media=NDJSON)}

    def get(self, request: Request) -> HttpResponse:
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


class AuditCheckpoints(ApiView):
    """Signed statements of how far each chain had got."""

    tag = "audit"
    scopes = AUDIT
    orderings = {"-at": ("-id",)}
    filters = {"customer": equals("chain", "Only this customer's chain.")}
    methods = {"GET": Method("List checkpoints", CheckpointShape, is_page=True)}

    def get(self, request: Request) -> Response:
        rows = selectors.visible_checkpoints(self.actor)
        return Response(self.page(rows, lambda page: [render.checkpoint(row) for row in page]))
