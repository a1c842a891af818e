"""News of jobs for all who wait in this process: one subscription to Redis, and one look at the database as a net.

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
"""Seconds between two looks at all jobs that somebody waits for: so late comes what was not told."""
AGAIN = 1.0
"""Seconds until the next try, when the subscription was lost."""
QUIET = 5.0
"""Seconds of silence after which Redis is asked whether it is still there."""
LOOKERS = 2
"""Threads that look at the database for those who wait: few, so that others have the processor too."""

P = ParamSpec("P")
T = TypeVar("T")
log = logging.getLogger(__name__)


class Ear:
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
    """All ears of this process. Of one event loop."""

    def __init__(self) -> None:
        self._ears: dict[UUID | None, set[Ear]] = {}
        self._threads = ThreadPoolExecutor(LOOKERS, "looker")
        self._tasks: list[asyncio.Task[None]] = []
        self._is_closed = False

    @contextmanager
    def listening(self, job: UUID | None) -> Iterator[Ear]:
        """An ear for news of that job for as long as the block: look at the job in it, not before.

        None: for the end of the client and of the process only.
        """
        if not self._tasks:
            self._tasks = [asyncio.create_task(self._for_ever(work)) for work in (self._subscribe, self._cast_net)]
        ear = Ear()
        self._ears.setdefault(job, set()).add(ear)
        if self._is_closed:
            ear.end()
        try:
            yield ear
        finally:
            self._ears[job].discard(ear)
            if not self._ears[job]:
                del self._ears[job]

    async def look(self, ask: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        """What `ask` finds in the database, by one of few threads, whose connection is given back at once."""
        look = sync_to_async(_given_back, thread_sensitive=False, executor=self._threads)
        return await look(ask, *args, **kwargs)

    def close(self) -> None:
        """End what waits: the process is about to."""
        self._is_closed = True
        for ear in self._all():
            ear.end()

    async def stop(self) -> None:
        """End the hub's own work."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        self._threads.shutdown()

    def _all(self) -> Iterable[Ear]:
        return [ear for ears in self._ears.values() for ear in ears]

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
            is_asked = False
            while not _is_cancelled():
                message = await channel.get_message(timeout=QUIET)
                if message is None and is_asked:
                    raise TimeoutError("Redis says nothing any more")
                is_asked = message is None
                if message is None:
                    await channel.ping()
                elif message["type"] == "subscribe":
                    for ear in self._all():
                        ear.wake()
                elif message["type"] == "message":
                    self._wake(message["data"])

    async def _cast_net(self) -> None:
        """Wake those whose job has another newest event than they have seen, or is gone."""
        from jobs import selectors  # models, which the server has only after it has made the hub

        while True:
            await asyncio.sleep(NET)
            jobs = [job for job in self._ears if job is not None]
            found = await self.look(selectors.news_of, jobs) if jobs else {}
            for job in jobs:
                newest = found[job][1] if job in found else None
                for ear in self._ears.get(job, ()):
                    if ear.seen != newest:
                        ear.wake()

    def _wake(self, text: bytes) -> None:
        try:
            job = UUID(text.decode())
        except ValueError:  # whoever can write to Redis may say anything
            return
        for ear in self._ears.get(job, ()):
            ear.wake()


def _is_cancelled() -> bool:
    """redis-py may swallow a cancellation (8.1: one that comes while it connects), and would then go on for ever."""
    task = asyncio.current_task()
    return task is not None and task.cancelling() > 0


def _given_back(ask: Callable[..., T], *args: Any, **kwargs: Any) -> T:
    try:
        return ask(*args, **kwargs)
    finally:
        connections.close_all()
