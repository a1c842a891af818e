"""Fan-out over instances: one thread with one event loop and one pool, and plain iterators of outcomes for callers."""

import asyncio
import logging
import queue
import random
import threading
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any, Generic

from fleet.mta.errors import ConnectionLost, FleetError, OutcomeUnknown, RemoteError, Unreachable
from fleet.mta.steps import Steps, T
from fleet.ssh.drive import Trace, drive
from fleet.ssh.endpoint import AddressPolicy, Endpoint
from fleet.ssh.gate import Lane
from fleet.ssh.hostkeys import HostKey
from fleet.ssh.pool import Pool
from fleet.ssh.transport import AsyncsshTransport, Stopped, always

log = logging.getLogger(__name__)

BATCH = 250  # outcomes handed over at most at once
PERIOD = 0.25  # seconds between hand-overs, and between two looks at `cancelled`
IN_FLIGHT = 1000  # requests of one call that run at once
READ_PAUSES = (0.5, 3.0)  # seconds before the second and the third try of what only reads


@dataclass(frozen=True)
class Request(Generic[T]):
    """One operation on one instance. `deadline`: seconds from its beginning. `until_plan`: a dry run.

    `may_change`: whether the worker still holds the lease of this run. Asked in the engine's thread right before each
    changing command is sent, so it never blocks and never raises; where it cannot know it says False. `lane`: a request
    does not wait for logins of other lanes.
    """

    key: str
    endpoint: Endpoint
    steps: Callable[[], Steps[T]]
    until_plan: bool
    deadline: float
    may_change: Callable[[], bool] = always
    lane: Lane = Lane.READ


@dataclass
class Outcome:
    """What became of a request. Exactly one of `value`, `error` and `cancelled` says it; times are aware, in UTC.

    `cancelled`: the job was cancelled before anything was sent.
    """

    key: str
    value: Any = None
    error: FleetError | None = None
    trace: Trace = field(default_factory=Trace)
    started_at: datetime | None = None
    finished_at: datetime | None = None
    cancelled: bool = False


class Delivery:
    """Hands outcomes from the loop's thread to `ready`, in blocks. A block goes when it is full, old or the last."""

    def __init__(self, expected: int, loop: asyncio.AbstractEventLoop, ready: queue.SimpleQueue[list[Outcome]]) -> None:
        self._missing = expected
        self._loop = loop
        self._block: list[Outcome] = []
        self._timer: asyncio.TimerHandle | None = None
        self.ready = ready
        self.is_stopped = False
        self.unsent: set[asyncio.Task[Any]] = set()  # at work on a request for which nothing was sent yet

    def stop(self) -> None:
        """Called in the loop's thread: the job is cancelled. What waits for a connection need not wait any longer."""
        self.is_stopped = True
        for task in self.unsent:
            task.cancel()

    def add(self, outcome: Outcome) -> None:
        """Called in the loop's thread."""
        self._missing -= 1
        self._block.append(outcome)
        if self._missing == 0 or len(self._block) >= BATCH:
            self._flush()
        elif self._timer is None:
            self._timer = self._loop.call_later(PERIOD, self._flush)

    def _flush(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if self._block:
            self.ready.put(self._block)
            self._block = []


@dataclass(eq=False)
class Running:
    """The engine's thread and what lives in it."""

    thread: threading.Thread
    loop: asyncio.AbstractEventLoop
    pool: Pool
    tasks: set[asyncio.Task[None]] = field(default_factory=set)
    is_closing: bool = False

    def current_task(self) -> asyncio.Task[Any]:
        task = asyncio.current_task(self.loop)
        if task is None:
            raise RuntimeError("not called from a task of the engine")
        return task


def never() -> bool:
    return False


class Engine:
    """Runs requests for any number of threads at once. It starts by itself at the first use."""

    def __init__(self, policy: AddressPolicy) -> None:
        self._policy = policy
        self._lock = threading.Lock()
        self._now: Running | None = None

    def outcomes(
        self, requests: Sequence[Request[Any]], cancelled: Callable[[], bool] = never
    ) -> Iterator[list[Outcome]]:
        """The outcomes of all requests, in blocks, in the order they end. Never raises for what a request does.

        `cancelled` is asked about four times a second, in the caller's thread. Once it is true, requests for which
        nothing was sent yet come back with `cancelled`; the others run to their end.
        """
        if not requests:
            return
        running, delivery = self._begun(requests, queue.SimpleQueue())
        missing = len(requests)
        is_stopped = False
        try:
            while missing:
                if not is_stopped and cancelled():
                    is_stopped = True
                    running.loop.call_soon_threadsafe(delivery.stop)
                try:
                    block = delivery.ready.get(timeout=PERIOD)
                except queue.Empty:
                    if not running.thread.is_alive():
                        raise RuntimeError("the engine was closed before it took these requests") from None
                    continue
                missing -= len(block)
                yield block
        finally:
            if missing and running.thread.is_alive():
                running.loop.call_soon_threadsafe(delivery.stop)

    def begin(self, requests: Sequence[Request[Any]], ready: queue.SimpleQueue[list[Outcome]]) -> None:
        """Begin all requests and return. Their outcomes come into `ready` as `outcomes` would give them."""
        if requests:
            self._begun(requests, ready)

    @property
    def is_running(self) -> bool:
        """Whether what was begun may still come."""
        return self._now is not None and self._now.thread.is_alive()

    def scan_host_key(self, address: str, port: int, jump: Endpoint | None = None) -> HostKey:
        """The key a host shows; a person must compare it before it is pinned. Raises NothingSent errors."""
        running = self._running()
        return asyncio.run_coroutine_threadsafe(running.pool.scan(address, port, jump), running.loop).result()

    def scan_certified_key(
        self, address: str, port: int, jump: Endpoint | None, *, name: str, username: str, authority: str
    ) -> HostKey | None:
        """The key for which a host shows a certificate of `authority` for `name`, if any. Raises NothingSent errors."""
        running = self._running()
        scanned = running.pool.scan_certified(address, port, jump, name, username, authority)
        return asyncio.run_coroutine_threadsafe(scanned, running.loop).result()

    def reset(self, name: str) -> None:
        """End the pause of a host after a wrong key or a refused credential: somebody says it is mended."""
        running = self._now
        if running is not None and running.thread.is_alive():
            running.loop.call_soon_threadsafe(running.pool.breaker.reset, name)

    def answers(self, seconds: float) -> bool:
        """Whether the loop turns, so that requests go on; one that was not begun yet has nothing to hang on."""
        running = self._now
        if running is None or not running.thread.is_alive():
            return True
        turned = threading.Event()
        running.loop.call_soon_threadsafe(turned.set)
        return turned.wait(seconds)

    def close(self) -> None:
        """End what runs, close every connection and the thread. The engine may be used again after it."""
        with self._lock:
            running, self._now = self._now, None
        if running is not None and running.thread.is_alive():
            asyncio.run_coroutine_threadsafe(_shut_down(running), running.loop).result()
            running.loop.call_soon_threadsafe(running.loop.stop)
            running.thread.join()

    def _begun(
        self, requests: Sequence[Request[Any]], ready: queue.SimpleQueue[list[Outcome]]
    ) -> tuple[Running, Delivery]:
        running = self._running()
        delivery = Delivery(len(requests), running.loop, ready)
        running.loop.call_soon_threadsafe(_begin, running, list(requests), delivery)
        return running, delivery

    def _running(self) -> Running:
        """What runs, begun if need be. A thread does not survive fork(), so a forked worker begins its own."""
        with self._lock:
            if self._now is None or not self._now.thread.is_alive():
                started: queue.SimpleQueue[Running] = queue.SimpleQueue()
                threading.Thread(target=self._live, args=(started,), name="mxfleet-ssh", daemon=True).start()
                self._now = started.get()
            return self._now

    def _live(self, started: queue.SimpleQueue[Running]) -> None:
        async def new_pool() -> Pool:
            return Pool(self._policy)

        with asyncio.Runner() as runner:
            loop = runner.get_loop()
            running = Running(threading.current_thread(), loop, runner.run(new_pool()))
            loop.call_soon(started.put, running)
            loop.run_forever()


def _begin(running: Running, requests: list[Request[Any]], delivery: Delivery) -> None:
    """In the loop's thread: as many workers as may run at once, each taking the next request."""
    waiting = iter(requests)
    for _ in range(min(IN_FLIGHT, len(requests))):
        task = running.loop.create_task(_work(running, waiting, delivery))
        running.tasks.add(task)
        task.add_done_callback(running.tasks.discard)


async def _work(running: Running, waiting: Iterator[Request[Any]], delivery: Delivery) -> None:
    for request in waiting:
        if delivery.is_stopped or running.is_closing:
            delivery.add(Outcome(request.key, cancelled=True))
        else:
            delivery.add(await _carry(running, request, delivery))


async def _carry(running: Running, request: Request[Any], delivery: Delivery) -> Outcome:
    outcome = Outcome(request.key, started_at=datetime.now(UTC))
    until = running.loop.time() + request.deadline
    task = running.current_task()
    delivery.unsent.add(task)

    def is_stopped() -> bool:
        """Asked when the connection stands; from here on the request runs to its end."""
        delivery.unsent.discard(task)
        return delivery.is_stopped

    transport = AsyncsshTransport(running.pool, request.endpoint, until, is_stopped, request.may_change, request.lane)
    try:
        outcome.value = await _tried(request, transport, outcome.trace, lambda: delivery.is_stopped, until)
    except FleetError as error:
        outcome.error = error
    except Stopped:
        return Outcome(request.key, cancelled=True)
    except asyncio.CancelledError:
        if task in delivery.unsent and not running.is_closing:
            task.uncancel()
            return Outcome(request.key, cancelled=True)
        outcome.error = _cut_short(outcome.trace)
    except Exception as error:
        log.exception("internal error in the steps of %s", request.key)
        outcome.error = _internal(error, outcome.trace)
    finally:
        delivery.unsent.discard(task)
    outcome.finished_at = datetime.now(UTC)
    return outcome


async def _tried(
    request: Request[Any], transport: AsyncsshTransport, trace: Trace, is_stopped: Callable[[], bool], until: float
) -> Any:
    """What the steps return. Steps that only read and lose their connection begin anew, twice at most.

    Raises what `drive` raises. An Unreachable means that nothing at all was sent.
    """
    pauses = list(READ_PAUSES)
    while True:
        try:
            return await drive(request.steps(), transport, trace, until_plan=request.until_plan)
        except Unreachable as error:
            if trace.sent:
                raise ConnectionLost(
                    f"the connection ended and: {error.detail}", hint=error.hint, cause=error.code
                ) from error
            raise
        except ConnectionLost:
            if not pauses:
                raise
            pause = pauses.pop(0) * random.uniform(0.5, 1.0)  # noqa: S311 - jitter, no secret
            if is_stopped() or asyncio.get_running_loop().time() + pause >= until:
                raise
            await asyncio.sleep(pause)
            if is_stopped():
                raise


async def _shut_down(running: Running) -> None:
    running.is_closing = True
    tasks = list(running.tasks)
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
    await running.pool.close()


def _cut_short(trace: Trace) -> FleetError:
    kind = OutcomeUnknown if trace.mutated else ConnectionLost
    return kind("the worker was stopped while this ran")


def _internal(error: Exception, trace: Trace) -> FleetError:
    """A bug of ours. It says nothing about the host, so a change that had begun stays unknown."""
    kind = OutcomeUnknown if trace.mutated else RemoteError
    return kind(f"internal error: {type(error).__name__}", hint="See the worker's log.", internal=True)
