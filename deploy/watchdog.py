"""End a worker that is alive but no longer consumes, so that whoever runs it starts a new one.

Celery with Redis was reported to do this again and again (celery #8030, #8091, #9054, #10205). The sign: messages wait,
threads are free, and no task began for a minute. A Redis that does not answer is no sign, for it is not our failure.
"""

import logging
import os
import signal
import threading
import time
from typing import Any

import redis
from celery import signals

EX_SOFTWARE = 70
SECONDS = 15.0
MISSES = 4
"""Polls in a row at which messages waited and none was taken, after which the worker is stuck."""
GRACE = 120.0
"""Seconds that running tasks have to end once the worker is known to be stuck."""

log = logging.getLogger(__name__)


class Watch:
    """Counts the tasks of this process and judges each poll of its queue."""

    def __init__(self, threads: int) -> None:
        self.threads = threads
        self.running = 0
        self._begun = 0
        self._begun_before = 0
        self._misses = 0
        self._lock = threading.Lock()

    def began(self, **_: Any) -> None:
        with self._lock:
            self.running += 1
            self._begun += 1

    def ended(self, **_: Any) -> None:
        with self._lock:
            self.running -= 1

    def is_stuck(self, waiting: int) -> bool:
        """Take in one more poll of the queue, which has `waiting` messages (0 when that cannot be known)."""
        with self._lock:
            is_miss = waiting > 0 and self.running < self.threads and self._begun == self._begun_before
            self._begun_before = self._begun
            self._misses = self._misses + 1 if is_miss else 0
            return self._misses >= MISSES

    def takes(self) -> bool:
        """Whether nothing has been left lying at the last polls, half of those after which it is stuck."""
        with self._lock:
            return self._misses < MISSES // 2


def start(queue: str, threads: int, redis_url: str) -> Watch:
    """Watch this process from a thread of its own."""
    watch = Watch(threads)
    signals.task_prerun.connect(watch.began, weak=False)
    signals.task_postrun.connect(watch.ended, weak=False)
    client = redis.Redis.from_url(redis_url, socket_timeout=3, socket_connect_timeout=3)
    threading.Thread(target=_poll, args=(watch, client, queue), name="watchdog", daemon=True).start()
    return watch


def _poll(watch: Watch, client: redis.Redis, queue: str) -> None:
    while not watch.is_stuck(_waiting(client, queue)):
        time.sleep(SECONDS)
    log.critical("messages wait in %s and none was taken for %d s: ending this worker", queue, SECONDS * MISSES)
    os.kill(os.getpid(), signal.SIGTERM)
    until = time.monotonic() + GRACE
    while watch.running and time.monotonic() < until:
        time.sleep(1)
    time.sleep(5)
    os._exit(EX_SOFTWARE)  # a stuck consumer may also ignore SIGTERM


def _waiting(client: redis.Redis, queue: str) -> int:
    try:
        return int(client.llen(queue))
    except redis.RedisError:
        return 0
