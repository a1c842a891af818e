"""ASGI: an answer that is sent, or goes on, when Django is done with its request.

Django gives each request a thread, and the thread has a connection to the database, until the answer is sent. Neither
must depend on how a client reads: the view's answer is kept back as a whole until Django's request has ended. Where it
takes longer, to wait for something or because it is too large, the view says what is left to do (`Exchange.go_on`), and
a coroutine finishes the answer. What goes on so has a place, of which each caller has so many.
"""

import asyncio
import logging
import threading
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Mapping
from contextlib import asynccontextmanager
from uuid import UUID

from django.conf import settings
from django.http import HttpRequest

from api.access import Access, App, Message, Receive, Send
from api.hub import Hub, Listener

KEY = "mxfleet.exchange"
PATIENCE = 20.0
"""Seconds that a client may leave a part of its answer unread, before it is cut off."""
UNSENT = 64 << 20
"""Bytes of kept answers that are on their way at the same moment."""
EXPORTS = (1, 20)
"""Exports at once, of each caller and in all: one whose client does not read costs one part's memory."""
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


class Unsent:
    """Kept answers on their way. Beyond `most` bytes of them the one that is on its way for longest is cut off."""

    def __init__(self, most: int) -> None:
        self._most = most
        self._sizes: dict[asyncio.Timeout, int] = {}

    @asynccontextmanager
    async def sending(self, size: int) -> AsyncIterator[None]:
        """The block sends one of so many bytes. Raises Unread."""
        try:
            async with asyncio.timeout(None) as end:
                self._sizes[end] = size
                try:
                    self._make_room()
                    yield
                finally:
                    self._sizes.pop(end, None)
        except TimeoutError:
            raise Unread from None

    def _make_room(self) -> None:
        while sum(self._sizes.values()) > self._most and len(self._sizes) > 1:
            oldest = next(iter(self._sizes))
            del self._sizes[oldest]
            oldest.reschedule(0)


class Exchange:
    """One request and its answer. Views take a place and say what is left to do; `held` does it."""

    def __init__(self, hub: Hub, places: Mapping[str, Places], unsent: Unsent, send: Send) -> None:
        self.hub = hub
        self._places = places
        self._unsent = unsent
        self._send = send
        self._mine: list[tuple[Places, str]] = []
        self._rest: tuple[Rest, UUID | None] | None = None
        self._kept: list[Message] = []

    def take_place(self, kind: str, caller: str) -> bool:
        """Whether there is a place for him among the waiting of that kind; it is freed when the exchange ends."""
        is_mine = self._places[kind].take(caller)
        if is_mine:
            self._mine.append((self._places[kind], caller))
        return is_mine

    def go_on(self, rest: "Rest", job: UUID | None = None) -> None:
        """Have `rest` finish the view's answer, awake whenever there is news of the job, if one is named."""
        self._rest = rest, job

    async def start(self, status: int, headers: Mapping[str, str], instead_of: Iterable[str] = ()) -> None:
        """Begin the answer: with the headers of the view's but those `instead_of` which others are given."""
        if self._kept:
            gone = {name.lower().encode() for name in ("Content-Length", *instead_of)}
            kept = [pair for pair in self._kept[0]["headers"] if pair[0].lower() not in gone]
            added = [(name.encode(), value.encode()) for name, value in headers.items()]
            await self._put({**self._kept[0], "status": status, "headers": [*kept, *added]})

    async def write(self, body: bytes, *, is_last: bool = False) -> None:
        """A part of the answer's body."""
        if self._kept:
            await self._put({"type": "http.response.body", "body": body, "more_body": not is_last})

    async def _put(self, message: Message) -> None:
        """Send, which waits as long as the connection is full. Raises Unread."""
        try:
            async with asyncio.timeout(PATIENCE):
                await self._send(message)
        except TimeoutError:
            raise Unread from None

    async def keep(self, message: Message) -> None:
        """`send` for the view: nothing goes out before Django's request has ended."""
        self._kept.append(message)

    async def finish(self, receive: Receive) -> None:
        """Send the view's answer, or do what is left to do instead."""
        try:
            if self._rest is None:
                await self._send_kept()
            else:
                await self._go_on(receive, *self._rest)
        except Unread:
            log.info("an answer was not read; the server closes its connection")

    async def _send_kept(self) -> None:
        async with self._unsent.sending(sum(len(message.get("body", b"")) for message in self._kept)):
            for message in self._kept:
                await self._put(message)

    async def _go_on(self, receive: Receive, rest: "Rest", job: UUID | None) -> None:
        """The client's end ends the waiting."""
        with self.hub.listening(job) as listener:
            watch = asyncio.create_task(_until_gone(receive, listener))
            try:
                await rest(self, listener)
            finally:
                watch.cancel()

    def end(self) -> None:
        """Free what it took."""
        for places, caller in self._mine:
            places.free(caller)


Rest = Callable[[Exchange, Listener], Awaitable[None]]


def held(app: App, hub: Hub) -> App:
    """`app` whose answers are sent when it is done with them, and may go on."""
    limits = settings.ENV.waiting_each, settings.ENV.waiting
    places = {"waits": Places(*limits), "streams": Places(*limits), "exports": Places(*EXPORTS)}
    unsent = Unsent(UNSENT)

    async def holding(scope: Message, receive: Receive, send: Send) -> None:
        exchange = scope[KEY] = Exchange(hub, places, unsent, send)
        try:
            await app(scope, receive, exchange.keep)
            Access.of(scope).mark_answered()
            await exchange.finish(receive)
        finally:
            exchange.end()

    return holding


def exchange_of(request: HttpRequest) -> Exchange | None:
    """The request's; None where the server knows no ASGI, and nothing can be held."""
    found: Exchange | None = getattr(request, "scope", {}).get(KEY)
    return found


async def _until_gone(receive: Receive, listener: Listener) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass
    listener.end()
