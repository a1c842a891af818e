"""Warm connections: one per endpoint, shared, never a second one. A pool lives exactly as long as its event loop."""

import asyncio
import random
from collections.abc import Awaitable, Callable, Collection
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractAsyncContextManager, nullcontext
from dataclasses import dataclass, field
from functools import partial
from typing import Any, TypeVar

import asyncssh

from fleet.mta.errors import AuthFailed, FleetError, HostKeyMismatch, Unreachable
from fleet.ssh.breaker import Breaker
from fleet.ssh.endpoint import AddressPolicy, Endpoint
from fleet.ssh.errors import login_error
from fleet.ssh.gate import Gate, Lane
from fleet.ssh.hostkeys import HostKey
from fleet.ssh.login import Login, log_in, look, look_certified, resolve

T = TypeVar("T")

CONNECTS_PER_HOST = 4  # sshd drops from 10 unauthenticated ones on (MaxStartups 10:30:100)
SESSIONS = 8  # per connection; sshd's MaxSessions is 10
READERS = 6  # of them: readings may take minutes, and changes and read-backs do not wait for them
LOOKUPS = 32  # names of hosts at once; a nameserver that says nothing keeps each for some 10 s
SCAN_TIMEOUT = 10.0  # seconds for a look at a host key, the way through a jump host included
IDLE = 60.0  # seconds without use, then it is closed
SWEEP = 5.0
PAUSES = (2.0, 8.0)  # seconds between three tries
# A run ends within 60 s on a host that does not answer, and a dead warm connection shows itself after 20 s only.
PATIENCE = 38.0
# Who meets the login that looks whether a host still hangs waits that long for it: a host that is well is in by then.
PROBE_WAIT = 5.0

Opened = tuple[asyncssh.SSHClientConnection, Login]


@dataclass(eq=False)
class Warm:
    """An open connection. `users` counts commands, dialogues and connections through it."""

    endpoint: Endpoint
    connection: asyncssh.SSHClientConnection
    watch: Login
    via: "Warm | None" = None
    users: int = 0
    last_used: float = 0.0
    is_retired: bool = False
    width: int = SESSIONS
    slots: asyncio.Semaphore = field(default_factory=lambda: asyncio.Semaphore(SESSIONS))
    readers: asyncio.Semaphore = field(default_factory=lambda: asyncio.Semaphore(READERS))

    @property
    def is_usable(self) -> bool:
        return not (self.watch.is_lost or self.is_retired)

    def room(self, lane: Lane) -> AbstractAsyncContextManager[Any]:
        """What a command of this lane needs besides a slot."""
        return self.readers if lane is Lane.READ else nullcontext()

    def leave_slot(self, was_refused: bool) -> None:
        """After a session. One that sshd refused keeps its slot for good: this host allows fewer (MaxSessions)."""
        if was_refused and self.width > 1:
            self.width -= 1
        else:
            self.slots.release()


@dataclass(eq=False)
class Attempt:
    """A connection in the making; everybody who wants it waits for the same one.

    `lanes`: of those who wait. `suspicion`: how the host hung last time; then this is a single try, to see if it still
    does, and only the first who came waits for its end.
    """

    lanes: set[Lane]
    suspicion: FleetError | None
    task: "asyncio.Task[Warm]" = field(init=False)
    last_error: FleetError | None = None


class Pool:
    """Use it from its own loop only. `acquire` before each use, `release` after it."""

    def __init__(self, policy: AddressPolicy) -> None:
        self._policy = policy
        self._warm: dict[Endpoint, Warm] = {}
        self._attempts: dict[Endpoint, Attempt] = {}
        self._places: dict[tuple[str, int], asyncio.Semaphore] = {}
        self._gate = Gate()
        self._names = ThreadPoolExecutor(LOOKUPS, "mxfleet-names")
        self._loop = asyncio.get_running_loop()
        self._sweeper = self._loop.create_task(self._sweep())
        self.breaker = Breaker()

    async def acquire(self, endpoint: Endpoint, until: float, lanes: Collection[Lane] = (Lane.READ,)) -> Warm:
        """A connection, counted as in use. `until`: loop time. `lanes`: of who asks. Raises NothingSent errors."""
        warm = self._warm.get(endpoint)
        if warm is None or not warm.is_usable:
            warm = await self._connected(endpoint, until, lanes)
        warm.users += 1
        return warm

    def release(self, warm: Warm) -> None:
        warm.users -= 1
        warm.last_used = self._loop.time()
        if warm.users == 0 and warm.is_retired:
            self._close(warm)

    def retire(self, warm: Warm) -> None:
        """Give it to nobody else: it is broken, or one of its channels was left half open."""
        warm.is_retired = True
        if self._warm.get(warm.endpoint) is warm:
            del self._warm[warm.endpoint]

    async def scan(self, address: str, port: int, jump: Endpoint | None) -> HostKey:
        """The key a host shows, within SCAN_TIMEOUT; nothing is trusted by that. Raises NothingSent errors."""
        return await self._looked(look, address, port, jump)

    async def scan_certified(
        self, address: str, port: int, jump: Endpoint | None, name: str, username: str, authority: str
    ) -> HostKey | None:
        """As `scan`, the key for which the host shows a certificate: see look_certified."""
        seen = partial(look_certified, name=name, username=username, authority=authority)
        return await self._looked(seen, address, port, jump)

    async def _looked(self, seen: Callable[..., Awaitable[T]], address: str, port: int, jump: Endpoint | None) -> T:
        until = self._loop.time() + SCAN_TIMEOUT
        try:
            async with asyncio.timeout_at(until):
                return await self._look(seen, address, port, jump, until)
        except FleetError:
            raise
        except Exception as error:
            raise login_error(error, address) from error

    async def _look(
        self, seen: Callable[..., Awaitable[T]], address: str, port: int, jump: Endpoint | None, until: float
    ) -> T:
        checked = (await resolve(address, address, port, self._policy, self._names))[0]
        via = await self.acquire(jump, until, [Lane.LOOK]) if jump else None
        try:
            return await seen(checked, port, via.connection if via else None)
        finally:
            if via is not None:
                self.release(via)

    async def close(self) -> None:
        """Close every connection and end every attempt."""
        self._sweeper.cancel()
        self._names.shutdown(wait=False, cancel_futures=True)
        tasks = [attempt.task for attempt in self._attempts.values()]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, self._sweeper, return_exceptions=True)
        for warm in list(self._warm.values()):
            self.retire(warm)
            warm.connection.abort()

    async def _connected(self, endpoint: Endpoint, until: float, lanes: Collection[Lane]) -> Warm:
        attempt = self._attempts.get(endpoint)
        if attempt is None:
            attempt = self._attempt(endpoint, lanes)
        else:
            self._hurry(endpoint, lanes)
            if attempt.suspicion is not None:
                until = min(until, self._loop.time() + PROBE_WAIT)
        try:
            async with asyncio.timeout_at(until):
                return await asyncio.shield(attempt.task)
        except TimeoutError:
            error = attempt.last_error or attempt.suspicion
            raise error or Unreachable(f"{endpoint.name}: no connection before the deadline") from None

    def _attempt(self, endpoint: Endpoint, lanes: Collection[Lane]) -> Attempt:
        """Begin one. Raises the error that the host's pause repeats."""
        now = self._loop.time()
        objection = self.breaker.objection(endpoint, now)
        if objection is not None:
            raise objection
        attempt = self._attempts[endpoint] = Attempt(set(lanes), self.breaker.suspicion(endpoint, now))
        attempt.task = self._loop.create_task(self._connect(endpoint, attempt))
        attempt.task.add_done_callback(lambda task: self._attempt_ended(endpoint, task))
        return attempt

    def _hurry(self, endpoint: Endpoint | None, lanes: Collection[Lane]) -> None:
        """What is in the making, and the way to it, is wanted by these lanes too."""
        while endpoint is not None:
            if endpoint in self._attempts:
                self._attempts[endpoint].lanes.update(lanes)
            endpoint = endpoint.jump

    def _attempt_ended(self, endpoint: Endpoint, task: "asyncio.Task[Warm]") -> None:
        del self._attempts[endpoint]
        if not task.cancelled():
            task.exception()  # seen, also when everybody who waited has gone

    async def _connect(self, endpoint: Endpoint, attempt: Attempt) -> Warm:
        patience = self._loop.time() + PATIENCE
        via = await self.acquire(endpoint.jump, patience, attempt.lanes) if endpoint.jump else None
        try:
            connection, watch = await self._patient(endpoint, attempt, via, patience)
        except BaseException as error:
            if via is not None:
                self.release(via)
            self._learn(endpoint, error)
            raise
        self.breaker.worked(endpoint)
        warm = Warm(endpoint, connection, watch, via, last_used=self._loop.time())
        self._discard(self._warm.get(endpoint))
        self._warm[endpoint] = warm
        return warm

    async def _patient(self, endpoint: Endpoint, attempt: Attempt, via: Warm | None, patience: float) -> Opened:
        try:
            async with asyncio.timeout_at(patience):
                return await self._tries(endpoint, attempt, via, patience)
        except TimeoutError:
            error = attempt.last_error
            raise error or Unreachable(f"{endpoint.name}: no answer within {PATIENCE:.0f} s") from None

    def _learn(self, endpoint: Endpoint, error: BaseException) -> None:
        """What a failed attempt says about the host. A refused key or credential, and silence, have their pauses."""
        if isinstance(error, Unreachable) and error.data.get("silent"):
            self.breaker.silent(endpoint, error, self._loop.time())
        elif isinstance(error, FleetError):
            self.breaker.answered(endpoint)
        if isinstance(error, HostKeyMismatch | AuthFailed):
            self.breaker.refused(endpoint, error, self._loop.time())

    async def _tries(self, endpoint: Endpoint, attempt: Attempt, via: Warm | None, patience: float) -> Opened:
        """Up to three tries, the checked addresses in turn. A refused key or credential is never tried twice."""
        pauses = PAUSES if attempt.suspicion is None else ()
        for turn, pause in enumerate((*pauses, None)):
            try:
                return await self._try(endpoint, attempt, via, turn)
            except Unreachable as error:
                attempt.last_error = error
                if pause is None or error.data.get("forbidden_range") or self._loop.time() + pause >= patience:
                    raise
                await asyncio.sleep(pause * random.uniform(0.8, 1.0))  # noqa: S311 - jitter, no secret
        raise AssertionError("the last try returns or raises")

    async def _try(self, endpoint: Endpoint, attempt: Attempt, via: Warm | None, turn: int) -> Opened:
        addresses = await resolve(endpoint.name, endpoint.address, endpoint.port, self._policy, self._names)
        place = self._places.setdefault((endpoint.address, endpoint.port), asyncio.Semaphore(CONNECTS_PER_HOST))
        async with place:
            tunnel = via.connection if via else None
            gate = self._gate.place(attempt.lanes, attempt.suspicion is not None)
            return await log_in(endpoint, addresses[turn % len(addresses)], tunnel, gate)

    def _discard(self, warm: Warm | None) -> None:
        if warm is not None:
            self.retire(warm)
            if warm.users == 0:
                self._close(warm)

    def _close(self, warm: Warm) -> None:
        warm.connection.close()
        via, warm.via = warm.via, None
        if via is not None:
            self.release(via)

    async def _sweep(self) -> None:
        """Close what nobody used for a minute or what broke while idle; forget hosts that nobody connects to."""
        while True:
            await asyncio.sleep(SWEEP)
            now = self._loop.time()
            for warm in list(self._warm.values()):
                is_idle = warm.users == 0 and now - warm.last_used >= IDLE
                if is_idle or not warm.is_usable:
                    self._discard(warm)
            if not self._attempts:
                self._places.clear()
