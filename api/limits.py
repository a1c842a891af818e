"""ASGI: a body's size and time are bounded while it streams in. Django itself would first store it whole."""

import asyncio
import json
import uuid
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any

from django.conf import settings

from api.errors import JSON_TYPE, Problem, document

Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
App = Callable[[Message, Receive, Send], Awaitable[None]]


class TooMuch(Exception):
    """The body is over its limit of size or time."""

    def __init__(self, problem: Problem) -> None:
        super().__init__(problem.detail)
        self.problem = problem


def bounded(app: App) -> App:
    """`app` behind the limits: 413 for a body that is too long, 408 for one that does not end."""

    async def guarded(scope: Message, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await app(scope, receive, send)
            return
        try:
            body = await _read(receive)
        except TooMuch as error:
            await _refuse(error.problem, send)
            return
        if body is not None:
            await app(scope, _replay(body, receive), send)

    return guarded


async def _read(receive: Receive) -> bytes | None:
    """The whole body; None when the client went away."""
    parts: list[bytes] = []
    size = 0
    deadline = asyncio.get_running_loop().time() + settings.BODY_DEADLINE
    while True:
        try:
            async with asyncio.timeout_at(deadline):
                message = await receive()
        except TimeoutError:
            detail = f"the body did not end within {settings.BODY_DEADLINE} seconds"
            raise TooMuch(Problem(408, "request_timeout", detail)) from None
        if message["type"] == "http.disconnect":
            return None
        parts.append(message.get("body", b""))
        size += len(parts[-1])
        if size > settings.BODY_LIMIT:
            raise TooMuch(Problem(413, "too_large", f"a body has at most {settings.BODY_LIMIT} bytes"))
        if not message.get("more_body", False):
            return b"".join(parts)


def _replay(body: bytes, receive: Receive) -> Receive:
    pending = [{"type": "http.request", "body": body, "more_body": False}]

    async def replayed() -> Message:
        return pending.pop() if pending else await receive()

    return replayed


async def _refuse(problem: Problem, send: Send) -> None:
    request_id = uuid.uuid4().hex
    content = json.dumps(document(request_id, problem)).encode()
    headers = {"content-type": JSON_TYPE, "content-length": str(len(content)), "x-request-id": request_id}
    headers["connection"] = "close"
    pairs = [(name.encode(), value.encode()) for name, value in headers.items()]
    await send({"type": "http.response.start", "status": problem.status, "headers": pairs})
    await send({"type": "http.response.body", "body": content})
