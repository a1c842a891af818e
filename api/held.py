"""ASGI: an answer that goes on when Django is done with its request.

Django gives each request a thread, and the thread has a connection to the database, until the answer is sent. Who waits
must have neither: the view says what is left to do (`Exchange.go_on`), its own answer is kept back, Django's request
ends, and a coroutine finishes the answer. What waits so has a place, of which each caller has so many.
"""

import asyncio
import logging
import threading
from collections import Counter
from collections.abc import Awaitable, Callable, Iterable, Mapping
from uuid import UUID

from django.conf import settings
from django.http import HttpRequest

from api.access import App, Message, Receive, Send
from api.hub import Ear, Hub

KEY = "mxfleet.exchange"
PATIENCE = 20.0
"""Seconds that a client may leave a part of its answer unread, before it is cut off."""
log = logging.getLogger(__name__)


class Unread(Exception):
    """The client does not read its answer. Whoever finishes one lets this pass."""


class Places:
    """So many places for each caller and so many in all."""

    def __init__(self, each: int, total: int) -> None:
        self._each, self._total = each, total
        self._taken: Counter[str] = Counter()
        self._lock = threading.Lock()

    def take(self, caller: str) -> bool:
        """Whether there was one for him."""
        with self._lock:
            if self._taken[caller] >= self._each or self._taken.total() >= self._total:
                return False
            self._taken[caller] += 1
            return True

    def free(self, caller: str) -> None:
        """Give one back."""
        with self._lock:
            self._taken[caller] -= 1
            if not self._taken[caller]:
                del self._taken[caller]


class Exchange:
    """One request and its answer. Views take a place and say what is left to do; `held` does it."""

    def __init__(self, hub: Hub, places: Mapping[str, Places], send: Send) -> None:
        self.hub = hub
        self._places = places
        self._send = send
        self._mine: list[tuple[Places, str]] = []
        self._rest: tuple[UUID, Rest] | None = None
        self._start: Message | None = None

    def take_place(self, kind: str, caller: str) -> bool:
        """Whether there is a place for him among the waiting of that kind; it is freed when the exchange ends."""
        is_mine = self._places[kind].take(caller)
        if is_mine:
            self._mine.append((self._places[kind], caller))
        return is_mine

    def go_on(self, job: UUID, rest: "Rest") -> None:
        """Keep the view's answer back and have `rest` finish it, awake whenever there is news of the job."""
        self._rest = job, rest

    async def start(self, status: int, headers: Mapping[str, str], instead_of: Iterable[str] = ()) -> None:
        """Begin the answer: with the headers of the view's but those `instead_of` which others are given."""
        if self._start is not None:
            gone = {name.lower().encode() for name in ("Content-Length", *instead_of)}
            kept = [pair for pair in self._start["headers"] if pair[0].lower() not in gone]
            added = [(name.encode(), value.encode()) for name, value in headers.items()]
            await self._put({**self._start, "status": status, "headers": [*kept, *added]})

    async def write(self, body: bytes, *, is_last: bool = False) -> None:
        """A part of the answer's body."""
        if self._start is not None:
            await self._put({"type": "http.response.body", "body": body, "more_body": not is_last})

    async def _put(self, message: Message) -> None:
        """Send, which waits as long as the connection is full. Raises Unread."""
        try:
            async with asyncio.timeout(PATIENCE):
                await self._send(message)
        except TimeoutError:
            raise Unread from None

    async def keep(self, message: Message) -> None:
        """`send` for the view: what it answers goes out, unless something is left to do."""
        if self._rest is None:
            await self._send(message)
        elif message["type"] == "http.response.start":
            self._start = message

    async def finish(self, receive: Receive) -> None:
        """Do what is left to do, if anything. The client's end ends the waiting."""
        if self._rest is None:
            return
        job, rest = self._rest
        with self.hub.listening(job) as ear:
            watch = asyncio.create_task(_until_gone(receive, ear))
            try:
                await rest(self, ear)
            except Unread:
                log.info("an answer was not read; the server closes its connection")
            finally:
                watch.cancel()

    def end(self) -> None:
        """Free what it took."""
        for places, caller in self._mine:
            places.free(caller)


Rest = Callable[[Exchange, Ear], Awaitable[None]]


def held(app: App, hub: Hub) -> App:
    """`app` whose views may have answers go on."""
    limits = settings.ENV.waiting_each, settings.ENV.waiting
    places = {"waits": Places(*limits), "streams": Places(*limits)}

    async def holding(scope: Message, receive: Receive, send: Send) -> None:
        exchange = scope[KEY] = Exchange(hub, places, send)
        try:
            await app(scope, receive, exchange.keep)
            await exchange.finish(receive)
        finally:
            exchange.end()

    return holding


def exchange_of(request: HttpRequest) -> Exchange | None:
    """The request's; None where the server knows no ASGI, and nothing can be held."""
    found: Exchange | None = getattr(request, "scope", {}).get(KEY)
    return found


async def _until_gone(receive: Receive, ear: Ear) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass
    ear.end()
