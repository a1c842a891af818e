"""One line in the log for each request, at its end: who requested what, how it was answered, how long that took.

Of a query nothing is logged, and of a token only its id: a log is read by more people than may use what is in them.
"""

import logging
import time
from collections.abc import Awaitable, Callable, MutableMapping
from contextvars import ContextVar
from dataclasses import dataclass, field
from typing import Any

from api import latency

logger = logging.getLogger("mxfleet.access")

Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
App = Callable[[Message, Receive, Send], Awaitable[None]]

WENT_AWAY = 499
"""No status of HTTP: the client closed the connection before it was answered. The number is nginx's."""
LONGEST_PATH = 300


@dataclass(slots=True)
class Access:
    """A request. `client`: its address; `caller`: the account, and `bearer` the id of the token that it used.

    `route`: as in the metrics. `answered`: when its answer was made, or began to wait; 0.0: not yet.
    """

    client: str = ""
    method: str = ""
    path: str = ""
    status: int = WENT_AWAY
    size: int = 0
    request_id: str = ""
    caller: str = ""
    bearer: str = ""
    route: str = latency.NO_ROUTE
    answered: float = 0.0
    began: float = field(default_factory=time.monotonic)

    @classmethod
    def of(cls, scope: Message) -> "Access":
        """That of an ASGI scope's request, the same each time."""
        client = scope.get("client")
        made = cls(client=client[0] if client else "", method=scope["method"], path=scope["path"][:LONGEST_PATH])
        found: Access = scope.setdefault("access", made)
        return found

    def note(self, message: Message) -> None:
        """Take down a message of the answer."""
        if message["type"] == "http.response.start":
            self.status = message["status"]
            self.mark_answered()
            request_ids = (value for name, value in message.get("headers", ()) if name.lower() == b"x-request-id")
            self.request_id = next(request_ids, b"").decode("latin-1")
        elif message["type"] == "http.response.body":
            self.size += len(message.get("body", b""))

    def mark_answered(self) -> None:
        """Its answer is made, or begins to wait; the first time counts."""
        self.answered = self.answered or time.monotonic()

    def log(self) -> None:
        """Write the line, and count the request. `bytes`: those of the answer's body."""
        self.mark_answered()
        latency.observe(self.route, self.status, self.answered - self.began)
        fields = {name: getattr(self, name) for name in ("client", "method", "path", "status", "request_id")}
        spent = round((time.monotonic() - self.began) * 1000, 1)
        who = {"caller": self.caller, "bearer": self.bearer}
        logger.info("request", extra={**fields, **who, "duration_ms": spent, "bytes": self.size})


_current: ContextVar[Access | None] = ContextVar("access", default=None)
"""Set once for each request; the threads that work for it see the same object."""


def record_caller(name: str, bearer: str) -> None:
    """Name the caller, once that is known, in the line of the request that this code works for."""
    access = _current.get()
    if access is not None:
        access.caller, access.bearer = name, bearer


def record_route(route: str | None) -> None:
    """Name the route, as Django writes it, of the request that this code works for; None: there is none."""
    access = _current.get()
    if access is not None:
        access.route = latency.template(route)


def logged(app: App) -> App:
    """`app` with a line for each request, also for one that it refuses, or breaks off; of a stream when it ends."""

    async def watched(scope: Message, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await app(scope, receive, send)
            return
        access = Access.of(scope)
        _current.set(access)

        async def noted(message: Message) -> None:
            access.note(message)
            await send(message)

        try:
            await app(scope, receive, noted)
        except Exception:
            if access.status == WENT_AWAY:
                access.status = 500  # what uvicorn answers then
            raise
        finally:
            access.log()

    return watched
