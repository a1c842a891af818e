"""News of jobs for all who wait in this process: one subscription to Redis, and one query of the database as a net.

Who waits is a coroutine: it has neither a thread nor a connection to the database while it does.
"""

import asyncio
import logging
import time
from collections.abc import Callable, Coroutine, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any, ParamSpec, TypeVar
from uuid import UUID

from asgiref.sync import sync_to_async
from django.conf import settings
from django.db import connections
from redis.asyncio import Redis
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff

from jobs.news import CHANNEL

NET = 2.0
"""Seconds between two queries for all jobs that somebody waits for: so late comes news that got lost."""
AGAIN = 1.0
"""Seconds until the next try, when the subscription was lost."""
QUIET = 5.0
"""Seconds of silence after which Redis is pinged."""
QUERY_THREADS = 2
"""Threads that query the database for those who wait: few, so that others have the processor too."""

P = ParamSpec("P")
T = TypeVar("T")
log = logging.getLogger(__name__)


class Listener:
    """One who waits for news of a job.

    `seen`: the newest event that he knows. `is_over`: his client is gone, or the process ends.
    """

    def __init__(self) -> None:
        self.seen = 0
        self.is_over = False
        self._woken = asyncio.Event()

    def wake(self) -> None:
        """There may be news."""
        self._woken.set()

    def end(self) -> None:
        """There is nothing to wait for any more."""
        self.is_over = True
        self.wake()

    async def news(self, seconds: float) -> None:
        """Return when there may be news since the last call, when it is over, or after so many seconds."""
        try:
            async with asyncio.timeout(seconds):
                await self._woken.wait()
        except TimeoutError:
            return
        self._woken.clear()


class Hub:
    """All listeners of this process. Of one event loop."""

    def __init__(self) -> None:
        self._listeners: dict[UUID | None, set[Listener]] = {}
        self._threads = ThreadPoolExecutor(QUERY_THREADS, "looker")
        self._tasks: list[asyncio.Task[None]] = []
        self._is_closed = False

    @contextmanager
    def listening(self, job: UUID | None) -> Iterator[Listener]:
        """A listener for news of that job for as long as the block: look at the job in it, not before.

        None: for the end of the client and of the process only.
        """
        if not self._tasks:
            self._tasks = [asyncio.create_task(self._for_ever(work)) for work in (self._subscribe, self._cast_net)]
        listener = Listener()
        self._listeners.setdefault(job, set()).add(listener)
        if self._is_closed:
            listener.end()
        try:
            yield listener
        finally:
            self._listeners[job].discard(listener)
            if not self._listeners[job]:
                del self._listeners[job]

    async def query(self, read: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        """What `read` finds in the database, by one of few threads, whose connection is given back at once."""
        run = sync_to_async(_given_back, thread_sensitive=False, executor=self._threads)
        return await run(read, *args, **kwargs)

    def close(self) -> None:
        """End what waits: the process is about to."""
        self._is_closed = True
        for listener in self._all():
            listener.end()

    async def stop(self) -> None:
        """End the hub's own work."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        self._threads.shutdown()

    def _all(self) -> Iterable[Listener]:
        return [listener for listeners in self._listeners.values() for listener in listeners]

    async def _for_ever(self, work: Callable[[], Coroutine[Any, Any, None]]) -> None:
        """Begin `work` anew whenever it fails. The log says so once, and again when it had worked meanwhile."""
        is_new = True
        while not _is_cancelled():
            began = time.monotonic()
            try:
                await work()
            except Exception as error:
                if is_new or time.monotonic() - began > QUIET:
                    log.warning("those who wait learn of news later: %s: %s", type(error).__name__, error)
                is_new = False
            await asyncio.sleep(AGAIN)

    async def _subscribe(self) -> None:
        """Wake those whom a message concerns, until the connection fails. What came before it began, all look for."""
        retry = Retry(NoBackoff(), 0)  # redis-py's own would subscribe again without telling us what we missed
        client = Redis.from_url(settings.ENV.redis_url, socket_timeout=QUIET, socket_connect_timeout=QUIET, retry=retry)
        async with client, client.pubsub() as channel:
            await channel.subscribe(CHANNEL)
            is_pinged = False
            while not _is_cancelled():
                message = await channel.get_message(timeout=QUIET)
                if message is None and is_pinged:
                    raise TimeoutError("Redis says nothing any more")
                is_pinged = message is None
                if message is None:
                    await channel.ping()
                elif message["type"] == "subscribe":
                    for listener in self._all():
                        listener.wake()
                elif message["type"] == "message":
                    self._wake(message["data"])

    async def _cast_net(self) -> None:
        """Wake those whose job has another newest event than they have seen, or is gone."""
        from jobs import selectors  # models, which the server has only after it has made the hub

        while True:
            await asyncio.sleep(NET)
            jobs = [job for job in self._listeners if job is not None]
            found = await self.query(selectors.news_of, jobs) if jobs else {}
            for job in jobs:
                newest = found[job][1] if job in found else None
                for listener in self._listeners.get(job, ()):
                    if listener.seen != newest:
                        listener.wake()

    def _wake(self, text: bytes) -> None:
        try:
            job = UUID(text.decode())
        except ValueError:  # whoever can write to Redis may say anything
            return
        for listener in self._listeners.get(job, ()):
            listener.wake()


def _is_cancelled() -> bool:
    """redis-py may swallow a cancellation (8.1: one that comes while it connects), and would then go on for ever."""
    task = asyncio.current_task()
    return task is not None and task.cancelling() > 0


def _given_back(read: Callable[..., T], *args: Any, **kwargs: Any) -> T:
    try:
        return read(*args, **kwargs)
    finally:
        connections.close_all()
