"""What happens to a job, while it happens: text/event-stream (HTML standard, 9.2), from rows, resumed by their ids."""

import asyncio
import json
import time
from collections.abc import AsyncIterator
from uuid import UUID

from asgiref.sync import sync_to_async
from django.http import HttpRequest, HttpResponse, StreamingHttpResponse
from django.http.response import HttpResponseBase
from rest_framework.exceptions import NotAuthenticated, PermissionDenied

from api.auth import actor_for
from api.errors import Problem, as_problem, respond
from api.v1.render import FINAL
from api.view import found
from jobs import selectors
from jobs.models import JobEvent

POLL = 0.2
HEARTBEAT = 15.0
LONGEST = 60.0
RETRY_MS = 1000
BATCH = 500


async def events(request: HttpRequest, pk: UUID) -> HttpResponseBase:
    """GET: the job's events after `Last-Event-ID` (or `?after=`). 204 when all of an ended job is known."""
    try:
        after = _after(request)
        await sync_to_async(_authorise)(request, pk)
        state = await sync_to_async(selectors.job_state)(pk)
        if after and state in FINAL and not await _next(pk, after):
            return HttpResponse(status=204)
    except Exception as error:
        problem = as_problem(error)
        if problem.status >= 500:
            raise
        return respond(request, problem)
    response = StreamingHttpResponse(stream(pk, after), content_type="text/event-stream")
    response.headers["Cache-Control"] = "no-cache"
    response.headers["X-Accel-Buffering"] = "no"  # nginx would keep it back
    return response


async def stream(pk: UUID, after: int) -> AsyncIterator[str]:
    """The text of the stream: until the job has ended and all is told, or LONGEST has passed; the client comes back."""
    started = told = time.monotonic()
    yield f"retry: {RETRY_MS}\n\n"
    while True:
        # The state first: what ended the job was written with its last event, so what is read after it is complete.
        state = await sync_to_async(selectors.job_state)(pk)
        batch = await _next(pk, after)
        for event in batch:
            after = event.pk
            yield f"id: {event.pk}\nevent: {event.kind}\ndata: {json.dumps(event.data)}\n\n"
        now = time.monotonic()
        if batch:
            told = now
            continue
        if state is None or state in FINAL or now - started > LONGEST:
            return
        if now - told > HEARTBEAT:
            told = now
            yield ": still here\n\n"
        await asyncio.sleep(POLL)


async def _next(pk: UUID, after: int) -> list[JobEvent]:
    return await sync_to_async(selectors.events_after)(pk, after, BATCH)


def _after(request: HttpRequest) -> int:
    if request.method != "GET":
        raise Problem(405, "method_not_allowed", "only GET is known here", {"Allow": "GET"})
    unknown = set(request.GET) - {"after"}
    if unknown:
        raise Problem(400, "unknown_parameter", f"{min(unknown)[:100]!r} is no parameter here; known: after")
    text = request.headers.get("Last-Event-ID") or request.GET.get("after") or "0"
    if not (text.isascii() and text.isdigit() and len(text) < 19):
        raise Problem(400, "malformed_header", "Last-Event-ID must be the id of an event of this stream")
    return int(text)


def _authorise(request: HttpRequest, pk: UUID) -> None:
    header = request.META.get("HTTP_AUTHORIZATION")
    if header is None:
        raise NotAuthenticated
    actor = actor_for(header, request.META.get("REMOTE_ADDR") or "")
    if not actor.has_scope("jobs:read"):
        raise PermissionDenied("the token lacks the scope jobs:read")
    found(selectors.visible_jobs(actor), pk=pk)
