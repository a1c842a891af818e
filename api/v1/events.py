"""What happens to a job, while it happens: text/event-stream (HTML standard, 9.2), from rows, resumed by their ids."""

import asyncio
import json
import logging
from collections.abc import Sequence
from dataclasses import dataclass
from uuid import UUID

from asgiref.sync import sync_to_async
from django.http import HttpRequest, HttpResponse

from api.auth import scoped_actor
from api.errors import Problem, as_problem, respond
from api.held import Exchange, Unread, exchange_of
from api.hub import Listener
from api.viewsets import found
from jobs import selectors
from jobs.actor import Actor
from jobs.models import JobEvent

HEARTBEAT = 15.0
"""Seconds of silence at most, and until a stream ends whose token is good no more."""
LONGEST = 60.0
RETRY_MS = 1000
BATCH = 500
HEADERS = {
    "Content-Type": "text/event-stream",
    "Cache-Control": "no-cache",
    "X-Accel-Buffering": "no",  # nginx would keep it back
}
log = logging.getLogger(__name__)


async def events(request: HttpRequest, pk: UUID) -> HttpResponse:
    """GET: the job's events after `Last-Event-ID` (or `?after=`). 204 when all of an ended job is known."""
    try:
        after = _after(request)
        caller = _Caller(request.META.get("HTTP_AUTHORIZATION"), request.META.get("REMOTE_ADDR") or "", pk)
        actor, is_complete = await sync_to_async(caller.begin)(after)
        if is_complete:
            return HttpResponse(status=204)
        exchange = exchange_of(request)
        if exchange is None:
            raise Problem(503, "unavailable", "this server cannot stream")
        if not exchange.take_place("streams", str(actor.account.pk)):
            raise Problem(429, "rate_limited", "too many streams are open", {"Retry-After": "5"})
    except Exception as error:
        problem = as_problem(error)
        if problem.status == 500:
            raise
        return respond(request, problem)
    exchange.go_on(_Stream(caller, after), pk)
    return HttpResponse()


@dataclass(frozen=True)
class _Caller:
    """Who asks for the events of a job, with which Authorization header, from which address."""

    header: str | None
    source: str
    job: UUID

    def begin(self, after: int) -> tuple[Actor, bool]:
        """Who he is, and whether the job has ended and there is nothing to send him after that event."""
        actor = self.authorise()
        state, newest = selectors.news_of([self.job])[self.job]
        return actor, bool(after) and state in selectors.FINAL and newest <= after

    def read(self, after: int) -> tuple[str, int, Sequence[JobEvent]]:
        """The job's state, its newest event, and the next ones after that which he knows. Raises what ends the stream.

        The state first: what ended the job was written with its last event, so what is read after it is complete. Who
        asks is looked at last: who was refused before an event came is not told of it.
        """
        state, newest = selectors.news_of([self.job]).get(self.job, ("", 0))
        batch = selectors.events_after(self.job, after, BATCH) if newest > after else ()
        self.authorise()
        return state, newest, batch

    def authorise(self) -> Actor:
        """Raises what refuses him."""
        actor = scoped_actor(self.header, self.source, "jobs:read")
        found(selectors.visible_jobs(actor), pk=self.job)
        return actor


@dataclass
class _Stream:
    """What is left to do: send events until the job has ended and all are sent, or LONGEST has passed.

    It ends also when nobody is there any more or he may not see it any more; the client comes back and is told why.
    """

    caller: _Caller
    after: int

    async def __call__(self, exchange: Exchange, listener: Listener) -> None:
        await exchange.start(200, HEADERS, instead_of=HEADERS)
        await exchange.write(f"retry: {RETRY_MS}\n\n".encode())
        try:
            await self._send_events(exchange, listener)
        except Unread:
            raise
        except Exception as error:
            if as_problem(error).status >= 500:
                log.warning("a stream was not told to its end: %s: %s", type(error).__name__, error)
        await exchange.write(b"", is_last=True)

    async def _send_events(self, exchange: Exchange, listener: Listener) -> None:
        now = asyncio.get_running_loop().time
        began = sent_at = now()
        while not listener.is_over:
            state, newest, batch = await exchange.hub.query(self.caller.read, self.after)
            for event in batch:
                self.after = event.pk
                await exchange.write(_text(event).encode())
            if batch:
                sent_at = now()
            if self.after < newest:
                continue
            listener.seen = newest
            if state in selectors.FINAL or now() - began > LONGEST:
                return
            if now() - sent_at > HEARTBEAT:
                sent_at = now()
                await exchange.write(b": still here\n\n")
            await listener.news(min(sent_at + HEARTBEAT, began + LONGEST) - now())


def _text(event: JobEvent) -> str:
    return f"id: {event.pk}\nevent: {event.kind}\ndata: {json.dumps(event.data)}\n\n"


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
