"""The API as an ASGI server calls it, so that answers can be held and streamed."""

import asyncio
import gc
import json
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any
from urllib.parse import urlsplit

from asgiref.sync import sync_to_async
from django.core.handlers.asgi import ASGIHandler
from django.db import connection, connections
from django.db.backends.base.base import BaseDatabaseWrapper

from api.held import held
from api.hub import Hub
from tests.http.cast import API

PATIENCE = 10.0


class Asked:
    """A request on its way. Looks like the answer of Django's test client once that has come."""

    def __init__(self, app: Any, scope: dict[str, Any], body: bytes, room: int) -> None:
        self._from_client: asyncio.Queue[dict[str, Any]] = asyncio.Queue()
        self._to_client: asyncio.Queue[dict[str, Any]] = asyncio.Queue(room)
        self._from_client.put_nowait({"type": "http.request", "body": body, "more_body": False})
        self.task = asyncio.create_task(app(scope, self._from_client.get, self._to_client.put))
        self.status_code = 0
        self.headers: dict[str, str] = {}
        self.content = b""

    def leave(self) -> None:
        """The client goes away. A server says so for ever after."""
        for _ in range(3):
            self._from_client.put_nowait({"type": "http.disconnect"})

    async def begun(self) -> "Asked":
        """With status and headers."""
        message = await asyncio.wait_for(self._to_client.get(), PATIENCE)
        self.status_code = message["status"]
        self.headers = {name.decode().title(): value.decode() for name, value in message["headers"]}
        self.headers["X-Request-ID"] = self.headers["X-Request-Id"]
        return self

    async def part(self) -> bytes:
        """The next part of the body."""
        message = await asyncio.wait_for(self._to_client.get(), PATIENCE)
        self.content += message.get("body", b"")
        self.is_whole = not message.get("more_body", False)
        return message.get("body", b"")

    async def until(self, text: str) -> None:
        """With so much of the body."""
        while text.encode() not in self.content:
            await self.part()

    async def whole(self) -> "Asked":
        """With all of the body, the exchange ended."""
        if not self.status_code:
            await self.begun()
        self.is_whole = False
        while not self.is_whole:
            await self.part()
        await self.task
        return self

    def json(self) -> Any:
        return json.loads(self.content)


class Site:
    """The API in this event loop, and what waits in it."""

    def __init__(self) -> None:
        self.hub = Hub()
        self.app = held(ASGIHandler(), self.hub)

    def ask(self, token: str, method: str, path: str, body: Any = None, room: int = 0, **headers: str) -> Asked:
        """Send a request; paths and headers as in tests.http.cast.Caller. `room`: messages until the client is full."""
        parts = urlsplit(API + path)
        given = {"Host": "testserver", "Authorization": f"Bearer {token}", "Content-Type": "application/json"}
        given |= {name.replace("_", "-"): value for name, value in headers.items()}
        content = b"" if body is None else json.dumps(body).encode()
        given["Content-Length"] = str(len(content))
        scope = {
            "type": "http",
            "http_version": "1.1",
            "method": method,
            "scheme": "http",
            "path": parts.path,
            "query_string": parts.query.encode(),
            "headers": [(name.lower().encode(), value.encode()) for name, value in given.items()],
            "client": ("127.0.0.1", 40_000),
            "server": ("127.0.0.1", 8000),
        }
        return Asked(self.app, scope, content, room)

    @property
    def waiting(self) -> int:
        """How many wait for news."""
        return sum(map(len, self.hub._listeners.values()))

    async def await_waiting(self, count: int) -> None:
        """Return when so many wait, all of whom have looked at their job."""
        await until(
            lambda: (
                self.waiting == count
                and all(listener.seen for listeners in self.hub._listeners.values() for listener in listeners)
            )
        )


@asynccontextmanager
async def site() -> AsyncIterator[Site]:
    """A site that is stopped at the end."""
    made = Site()
    try:
        yield made
    finally:
        made.hub.close()
        await made.hub.stop()
        await sync_to_async(connections.close_all)()  # of the thread that the test itself used


async def until(is_true: Callable[[], object]) -> None:
    """Return when it is true."""
    async with asyncio.timeout(PATIENCE):
        while not is_true():
            await asyncio.sleep(0.01)


def _connections() -> int:
    if connection.vendor == "sqlite":
        # Not the files: of closed connections SQLite keeps them open as long as one other holds a lock.
        gc.collect()
        wrappers = (each for each in gc.get_objects() if issubclass(type(each), BaseDatabaseWrapper))
        return sum(each.connection is not None for each in wrappers)
    with connection.cursor() as cursor:
        cursor.execute("SELECT count(*) FROM pg_stat_activity WHERE datname = current_database()")
        return int(cursor.fetchone()[0]) - 1


async def database_connections() -> int:
    """How many connections to the database this process has open, the test's own thread left out."""

    def count() -> int:
        connection.close()
        found = _connections()
        connection.close()
        return found

    return await sync_to_async(count)()
