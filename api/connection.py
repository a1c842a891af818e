"""A client's connection, bounded before any request of it is whole: uvicorn bounds neither a head's size nor its time.

A head (request line and headers) has `settings.HEAD_LIMIT` bytes, and `settings.HEAD_DEADLINE` seconds from connecting
or from the answer before it. A process has `settings.CONNECTIONS`: beyond them the one whose request is
unfinished for longest gives way, so that half-sent requests never keep out whole ones. Who does not take his answer for
`settings.STALL_LIMIT` seconds is cut off. Bodies are bounded in api/limits.py.
"""

import asyncio
import resource
import socket
import sys
from collections.abc import Callable
from http import HTTPStatus
from typing import Any, ClassVar, cast

import h11
from django.conf import settings
from uvicorn.protocols.http.h11_impl import H11Protocol

from api.access import Access, Message
from api.errors import Problem, bare
from api.limits import LINGER, head_too_large

OTHER_FILES = 256
"""Files that the process keeps free of connections of clients: database, broker, code, logs."""
BUSY = Problem(503, "unavailable", "too many connections; try again", {"Retry-After": "5"})


class Connection(H11Protocol):
    """uvicorn's connection of HTTP/1.1, with bounds."""

    unfinished: ClassVar[dict["Connection", None]] = {}
    """Those whose next request has not come whole, the one that is awaited longest first."""

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        self.timers: dict[str, asyncio.TimerHandle] = {}
        self.is_refused = False
        self.ignored = 0

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]  # as uvicorn's
        super().connection_made(transport)
        transport.set_write_buffer_limits(0)  # so `stall` is over only when the client has taken all
        _forget_silent_peers(transport)
        self._await_request()
        if len(self.connections) > most_connections():
            next(iter(self.unfinished))._give_way(to=self)

    def data_received(self, data: bytes) -> None:
        if self.is_refused:
            self.ignored += len(data)
            if self.ignored > LINGER[1]:
                self.transport.abort()
            return
        super().data_received(data)
        if self.conn.their_state is not h11.IDLE:
            self._disarm("head")
        if self.conn.their_state not in (h11.IDLE, h11.SEND_BODY):
            self.unfinished.pop(self, None)

    def on_response_complete(self) -> None:
        super().on_response_complete()  # which reads on in what came behind the request
        if self.transport.is_closing():
            return
        if self.conn.their_state is h11.IDLE:
            self._await_request()
        elif self.conn.their_state is h11.SEND_BODY:
            self.unfinished[self] = None

    def connection_lost(self, exc: Exception | None) -> None:
        self._stop_awaiting()
        for name in list(self.timers):
            self._disarm(name)
        super().connection_lost(exc)

    def pause_writing(self) -> None:
        super().pause_writing()
        self._arm("stall", settings.STALL_LIMIT, self.transport.abort)

    def resume_writing(self) -> None:
        super().resume_writing()
        self._disarm("stall")

    def send_400_response(self, msg: str) -> None:
        """uvicorn calls it where h11 cannot read on; h11 says which status fits."""
        if getattr(sys.exception(), "error_status_hint", 400) == 431:
            self._refuse(head_too_large())
        else:
            self._refuse(Problem(400, "bad_request", "this is no request of HTTP/1.1"))

    def _refuse(self, problem: Problem) -> None:
        """Answer with the problem, unless an answer has begun already, and close."""
        self.is_refused = True
        self._stop_awaiting()
        is_inside = self._is_inside()
        if is_inside and self.cycle.response_started:
            self.transport.abort()
            return
        headers, content = bare(problem)
        access = Access.of(cast(Message, self.scope)) if is_inside else Access(self.client[0] if self.client else "")
        access.note({"type": "http.response.start", "status": problem.status, "headers": headers})
        access.note({"type": "http.response.body", "body": content})
        if not is_inside:
            access.log()
        head = [b"HTTP/1.1 %d %s" % (problem.status, HTTPStatus(problem.status).phrase.encode())]
        head += [b"%s: %s" % pair for pair in [*self.server_state.default_headers, *headers]]
        self.transport.write(b"\r\n".join(head) + b"\r\n\r\n" + content)
        if problem is BUSY:
            self.transport.close()
        else:
            self.transport.write_eof()
            self._arm("linger", LINGER[0], self.transport.abort)

    def _is_inside(self) -> bool:
        """Whether a head has come, and its request is not answered."""
        return self.cycle is not None and not self.cycle.response_complete

    def _await_request(self) -> None:
        self.unfinished[self] = None
        self._arm("head", settings.HEAD_DEADLINE, self._head_is_late)

    def _stop_awaiting(self) -> None:
        self.unfinished.pop(self, None)
        self._disarm("head")

    def _head_is_late(self) -> None:
        self._end_waiting(
            Problem(408, "request_timeout", f"the headers did not end within {settings.HEAD_DEADLINE} seconds")
        )

    def _give_way(self, to: "Connection") -> None:
        if to is self:
            self._refuse(BUSY)
        else:
            self._end_waiting(BUSY)

    def _end_waiting(self, problem: Problem) -> None:
        """One on which nothing came is closed without a word: it may be a proxy's, which then sends a request."""
        if self.conn.trailing_data[0] or self._is_inside():
            self._refuse(problem)
        else:
            self._stop_awaiting()
            self.transport.close()

    def _arm(self, name: str, seconds: float, action: Callable[[], None]) -> None:
        self._disarm(name)
        self.timers[name] = self.loop.call_later(seconds, action)

    def _disarm(self, name: str) -> None:
        timer = self.timers.pop(name, None)
        if timer is not None:
            timer.cancel()


def most_connections() -> int:
    """How many this process takes: no more than leave it files for what answering needs."""
    return min(int(settings.CONNECTIONS), resource.getrlimit(resource.RLIMIT_NOFILE)[0] - OTHER_FILES)


def _forget_silent_peers(transport: asyncio.Transport) -> None:
    """Let the kernel end a connection whose peer acknowledges nothing, or opens no window, for that long (tcp(7))."""
    sock = transport.get_extra_info("socket")
    if sock.family in (socket.AF_INET, socket.AF_INET6):
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, int(settings.STALL_LIMIT * 1000))
