"""Bodies are bounded while they stream in, before Django stores them."""

import asyncio
import json
from typing import Any

import pytest

from api.limits import LINGER, bounded

SCOPE = {"type": "http", "method": "POST", "path": "/", "raw_path": b"/", "query_string": b"", "headers": []}


class Server:
    """An ASGI server's side: what the client sends, and what it is sent."""

    def __init__(self, *messages: dict[str, Any], endless: dict[str, Any] | None = None) -> None:
        self.messages = list(messages)
        self.endless = endless
        self.read = 0
        self.sent: list[dict[str, Any]] = []
        self.seen = b""
        self.headers: list[tuple[bytes, bytes]] = []

    async def receive(self) -> dict[str, Any]:
        self.read += 1
        if self.messages:
            return self.messages.pop(0)
        if self.endless is None:
            await asyncio.sleep(60)
        return dict(self.endless or {})

    async def send(self, message: Any) -> None:
        self.sent.append(message)

    async def app(self, scope: Any, receive: Any, send: Any) -> None:
        self.seen, self.headers = (await receive())["body"], scope["headers"]

    async def hang(self, scope: Any, receive: Any, send: Any) -> None:
        self.seen = (await receive())["body"]
        await asyncio.sleep(60)

    async def run(self, **scope: Any) -> None:
        await bounded(self.app)({**SCOPE, **scope}, self.receive, self.send)


def part(body: bytes, more: bool = True) -> dict[str, Any]:
    return {"type": "http.request", "body": body, "more_body": more}


async def test_a_body_in_parts_arrives_whole_and_with_its_length() -> None:
    server = Server(part(b"ab"), part(b"cd", more=False))
    await server.run()
    assert (server.seen, server.sent) == (b"abcd", [])
    assert server.headers == [(b"content-length", b"4")]  # else the framework takes a chunked body for none


async def test_an_endless_body_is_413_after_the_limit() -> None:
    server = Server(endless=part(b"x" * 65_536))
    await server.run()
    assert server.sent[0]["status"] == 413
    assert json.loads(server.sent[1]["body"])["code"] == "too_large"
    assert server.read <= 5 + LINGER[1] // 65_536
    assert server.seen == b""


async def test_a_body_that_does_not_end_is_408(settings: Any) -> None:
    settings.BODY_DEADLINE = 0.05
    server = Server(part(b"x"))
    await server.run()
    assert server.sent[0]["status"] == 408


async def test_a_client_that_went_away_is_not_answered() -> None:
    server = Server(part(b"x"), {"type": "http.disconnect"})
    await server.run()
    assert (server.sent, server.seen) == ([], b"")


@pytest.mark.parametrize("kind", ["lifespan", "websocket"])
async def test_other_protocols_pass(kind: str) -> None:
    passed: list[str] = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        passed.append(scope["type"])

    server = Server()
    await bounded(app)({"type": kind}, server.receive, server.send)
    assert passed == [kind]


async def test_a_file_of_hosts_may_be_larger_and_only_so_many_are_in_memory(settings: Any) -> None:
    large = part(b"x" * (settings.BODY_LIMIT + 1), more=False)
    server = Server(large)
    await server.run(path=settings.IMPORT)
    assert (len(server.seen), server.sent) == (settings.BODY_LIMIT + 1, [])
    settings.IMPORTS_AT_ONCE = 1
    reading, refused = Server(large), Server(large)
    reading.app = reading.hang  # type: ignore[method-assign]
    first = asyncio.create_task(reading.run(path=settings.IMPORT))
    while not reading.seen:
        await asyncio.sleep(0)
    await refused.run(path=settings.IMPORT)
    assert (refused.sent[0]["status"], refused.seen) == (429, b"")
    other = Server(part(b"{}", more=False))
    await other.run()
    assert other.seen == b"{}"
    first.cancel()
    await asyncio.gather(first, return_exceptions=True)
    again = Server(large)
    await again.run(path=settings.IMPORT)
    assert len(again.seen) == settings.BODY_LIMIT + 1


async def test_who_sends_a_file_slowly_keeps_no_place_from_others(settings: Any) -> None:
    settings.IMPORTS_AT_ONCE = 2
    slow = [Server(), Server(part(b"x"))]
    tasks = [asyncio.create_task(each.run(path=settings.IMPORT)) for each in slow]
    while not all(each.read for each in slow):
        await asyncio.sleep(0)
    served = Server(part(b"row", more=False))
    await served.run(path=settings.IMPORT)
    assert (served.seen, served.sent) == (b"row", [])
    await tasks[0]
    assert (slow[0].sent[0]["status"], slow[1].sent) == (429, [])
    settings.BODY_DEADLINE = 0.05
    late = Server()
    await late.run(path=settings.IMPORT)
    assert late.sent[0]["status"] == 408
    tasks[1].cancel()
    await asyncio.gather(tasks[1], return_exceptions=True)
