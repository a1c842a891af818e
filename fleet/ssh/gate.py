"""Places for logins: few at once, shared so that hosts that hang keep nobody else from logging in."""

import asyncio
from collections import deque
from collections.abc import AsyncIterator, Collection
from contextlib import asynccontextmanager
from dataclasses import dataclass
from enum import StrEnum

PLACES = 32
# A login takes some 20 ms of our time and a few round trips. One that has not ended by then waits for its host, not for
# us: it goes on, costs one idle socket, and its place goes to the next.
HOLD = 3.0


class Lane(StrEnum):
    """Why somebody asks a host. The lanes take turns at the gate: none waits behind another's crowd."""

    CHANGE = "change"
    READ = "read"
    LOOK = "look"


@dataclass(eq=False)
class Ticket:
    """One login's wish for a place. `lanes`: of all who wait for it, so far. `is_suspect`: its host hung last time."""

    lanes: Collection[Lane]
    is_suspect: bool
    called: asyncio.Future[None]
    has_place: bool = False


class Gate:
    """Use it from one loop. In each lane hosts that were not seen hanging come first, then first come, first served."""

    def __init__(self, places: int = PLACES) -> None:
        self._free = places
        self._turns = deque(Lane)
        self._waiting: dict[Ticket, None] = {}

    @asynccontextmanager
    async def place(self, lanes: Collection[Lane], is_suspect: bool) -> AsyncIterator[None]:
        """Wait for a place and hold it, for HOLD seconds at most. `lanes` may grow meanwhile."""
        loop = asyncio.get_running_loop()
        ticket = Ticket(lanes, is_suspect, loop.create_future())
        self._waiting[ticket] = None
        self._call()
        try:
            await ticket.called
            timer = loop.call_later(HOLD, self._give_back, ticket)
            try:
                yield
            finally:
                timer.cancel()
        finally:
            self._waiting.pop(ticket, None)
            self._give_back(ticket)

    def _give_back(self, ticket: Ticket) -> None:
        if ticket.has_place:
            ticket.has_place = False
            self._free += 1
            self._call()

    def _call(self) -> None:
        while self._free and self._waiting:
            ticket = self._next()
            del self._waiting[ticket]
            ticket.has_place = True
            self._free -= 1
            if not ticket.called.done():
                ticket.called.set_result(None)

    def _next(self) -> Ticket:
        """Of the first lane in turn that somebody waits in; that lane is the last one then."""
        for lane in tuple(self._turns):
            waiting = [ticket for ticket in self._waiting if lane in ticket.lanes]
            if waiting:
                self._turns.remove(lane)
                self._turns.append(lane)
                return min(waiting, key=lambda ticket: ticket.is_suspect)
        raise AssertionError("a ticket without a lane")
