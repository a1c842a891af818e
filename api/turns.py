"""ASGI: so many requests are at work at once, and callers take turns, so nobody waits long behind another one's burst.

Who has no turn yet has no thread and no connection to the database. Without this a burst took one each, until those
that found no connection within ten seconds were refused, whoever's they were, and the readiness probe with them.
"""

import asyncio
import re
from collections import Counter, deque
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from api.access import App, Message, Receive, Send
from api.callers import caller_of

MAKES_JOB = re.compile(r"/api/v1/(jobs/([^/]+/(retry|undo)/)?|hosts/[^/]+/discover/)")
IS_LONG = re.compile(r"/api/v1/(hosts/[^/]+/scan-host-key|audit/verify)/")
PROBES = ("/healthz", "/readyz")


class Turns:
    """At most `total` at work, of one caller `each`; the next is that of the caller who had his last turn before."""

    def __init__(self, total: int, each: int) -> None:
        self._free = total
        self._each = each
        self._at_work: Counter[str] = Counter()
        self._waiting: dict[str, deque[asyncio.Future[None]]] = {}

    @asynccontextmanager
    async def turn(self, caller: str) -> AsyncIterator[None]:
        """The block is a turn of his."""
        mine: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiting.setdefault(caller, deque()).append(mine)
        self._hand_on()
        try:
            await mine
            yield
        finally:
            if not mine.cancelled():
                self._end(caller)

    def _hand_on(self) -> None:
        """Begin as many turns as may be."""
        while self._free:
            caller = next((each for each in self._waiting if self._at_work[each] < self._each), None)
            if caller is None:
                return
            line = self._waiting.pop(caller)
            mine = line.popleft()
            if line:
                self._waiting[caller] = line  # behind the others
            if not mine.cancelled():
                self._free -= 1
                self._at_work[caller] += 1
                mine.set_result(None)

    def _end(self, caller: str) -> None:
        self._free += 1
        self._at_work[caller] -= 1
        if not self._at_work[caller]:
            del self._at_work[caller]
        self._hand_on()


def in_turns(app: App, turns: Turns, waiters: Turns, long: Turns) -> App:
    """`app`, whose callers (api/callers.py) take turns.

    Those that will wait anyway, for a held answer or on a stream, take `waiters`; what keeps its thread for seconds,
    because it asks a host or follows the audit trail, takes `long`. So they hold up nobody else, not even what the same
    caller asks besides. Probes of the process take none: they tell of it when all turns are taken.
    """

    async def waiting(scope: Message, receive: Receive, send: Send) -> None:
        if scope["path"] in PROBES:
            await app(scope, receive, send)
            return
        headers = dict(scope["headers"])
        address, _ = scope.get("client") or ("", 0)
        lane = turns
        if IS_LONG.fullmatch(scope["path"]):
            lane = long
        elif _will_wait(scope, headers.get(b"prefer", b"")):
            lane = waiters
        async with lane.turn(caller_of(headers.get(b"authorization", b""), address)):
            await app(scope, receive, send)

    return waiting


def _will_wait(scope: Message, preference: bytes) -> bool:
    """Whether the request is for a stream, or makes a job and wants to wait for it: both take but a moment first."""
    makes_job = scope["method"] == "POST" and MAKES_JOB.fullmatch(scope["path"])
    return scope["path"].endswith("/events/") or bool(makes_job and b"wait" in preference.lower())
