"""ASGI: heads and bodies are bounded before Django sees them. It would first store a body whole, and read some headers
in quadratic time."""

import asyncio
import re
from collections.abc import Iterator
from contextlib import contextmanager, suppress

from django.conf import settings

from api.access import App, Message, Receive, Send
from api.errors import Problem, bare

LINGER = (1.0, 1 << 20)
"""Seconds, and bytes, that a refused client may send into the void: closed at once, it would lose the answer."""
HEADERS = 200
"""Headers of a request; Django joins those of one name in quadratic time."""
MEDIA_TYPE = re.compile(rb"[^*]{0,200}")
"""A Content-Type that Django reads quickly and without an error: no parameters of RFC 2231."""


class TooMuch(Exception):
    """The head or the body is over its limit of size or time."""

    def __init__(self, problem: Problem) -> None:
        super().__init__(problem.detail)
        self.problem = problem


def bounded(app: App) -> App:
    """`app` behind the limits: 431 and 415 for a head, 413 for a body that is too long, 408 for one without end."""

    async def guarded(scope: Message, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await app(scope, receive, send)
            return
        try:
            check_head(scope)
            with _place(scope["path"]):
                body = await _read(receive, scope["path"])
                if body is not None:
                    await app(_with_length(scope, len(body)), _replay(body, receive), send)
        except TooMuch as error:
            await _refuse(error.problem, receive, send)

    return guarded


def body_limit(path: str) -> int:
    """Bytes that a body sent to this address may have."""
    return int(settings.IMPORT_LIMIT if path == settings.IMPORT else settings.BODY_LIMIT)


_imports = 0
"""Files of hosts that are in memory now."""
_arriving: list[asyncio.Timeout] = []
"""The time that is left to each of those whose end has not come, the first one first."""


@contextmanager
def _place(path: str) -> Iterator[None]:
    """A place in memory for a body sent there. Raises TooMuch: memory is for a few files only.

    Where there is none, the file that has been arriving longest makes room: nobody knows yet who sends it.
    """
    global _imports
    if path != settings.IMPORT:
        yield
        return
    if _imports >= settings.IMPORTS_AT_ONCE:
        if not _arriving:
            raise TooMuch(_too_many())
        longest = _arriving.pop(0)
        if not longest.expired():
            longest.reschedule(0)
    _imports += 1
    try:
        yield
    finally:
        _imports -= 1


def _too_many() -> Problem:
    detail = "as many files of hosts as can be are being read; try again"
    return Problem(429, "rate_limited", detail, {"Retry-After": "5"})


def check_head(scope: Message) -> None:
    """Raise TooMuch when Django should not see this head."""
    headers: list[tuple[bytes, bytes]] = scope["headers"]
    size = len(scope["raw_path"]) + len(scope["query_string"]) + sum(len(n) + len(v) + 4 for n, v in headers)
    if size > settings.HEAD_LIMIT:
        raise TooMuch(head_too_large())
    if len(headers) > HEADERS:
        raise TooMuch(Problem(431, "headers_too_large", f"a request has at most {HEADERS} headers"))
    if not MEDIA_TYPE.fullmatch(b",".join(value for name, value in headers if name == b"content-type")):
        raise TooMuch(Problem(415, "unsupported_media_type", "Content-Type must be application/json, in UTF-8"))


def head_too_large() -> Problem:
    """431."""
    return Problem(431, "headers_too_large", f"request line and headers have at most {settings.HEAD_LIMIT} bytes")


async def _read(receive: Receive, path: str) -> bytes | None:
    """The whole body of a request to that address; None when the client went away."""
    has_place = path == settings.IMPORT
    try:
        async with asyncio.timeout(settings.BODY_DEADLINE) as left:
            if has_place:
                _arriving.append(left)
            return await _parts(receive, body_limit(path))
    except TimeoutError:
        if has_place and left not in _arriving:
            raise TooMuch(_too_many()) from None
        detail = f"the body did not end within {settings.BODY_DEADLINE} seconds"
        raise TooMuch(Problem(408, "request_timeout", detail)) from None
    finally:
        if left in _arriving:
            _arriving.remove(left)


async def _parts(receive: Receive, limit: int) -> bytes | None:
    parts: list[bytes] = []
    size = 0
    while True:
        message = await receive()
        if message["type"] == "http.disconnect":
            return None
        parts.append(message.get("body", b""))
        size += len(parts[-1])
        if size > limit:
            raise TooMuch(Problem(413, "too_large", f"a body has at most {limit} bytes"))
        if not message.get("more_body", False):
            return b"".join(parts)


def _with_length(scope: Message, length: int) -> Message:
    """The scope with its body's length, which a chunked one does not tell: without it the framework reads no body."""
    if any(name == b"content-length" for name, _ in scope["headers"]):
        return scope
    return {**scope, "headers": [*scope["headers"], (b"content-length", str(length).encode())]}


def _replay(body: bytes, receive: Receive) -> Receive:
    pending = [{"type": "http.request", "body": body, "more_body": False}]

    async def replayed() -> Message:
        return pending.pop() if pending else await receive()

    return replayed


async def _refuse(problem: Problem, receive: Receive, send: Send) -> None:
    headers, content = bare(problem)
    await send({"type": "http.response.start", "status": problem.status, "headers": headers})
    await send({"type": "http.response.body", "body": content, "more_body": True})
    with suppress(TimeoutError):
        async with asyncio.timeout(LINGER[0]):
            await _ignore(receive)
    await send({"type": "http.response.body", "body": b""})


async def _ignore(receive: Receive) -> None:
    """Let the client send the rest of its body, or LINGER bytes of it."""
    left = LINGER[1]
    while left > 0:
        message = await receive()
        if not message.get("more_body", False):
            return
        left -= len(message.get("body", b""))
