"""What Prometheus is told, computed at most once in a while."""

import math
import threading
import time
from collections.abc import Callable

from prometheus_client import CollectorRegistry, generate_latest

from api.latency import PROCESS
from api.measures import Fleet

SECONDS = 5.0
"""How long what was computed is served again."""


class Cached:
    """Bytes that are computed once in `seconds`, by one thread at a time; others get the last ones meanwhile.

    `serves_stale` False: they wait for the new ones, so that nobody gets what was while computing hangs.
    """

    def __init__(
        self,
        compute: Callable[[], bytes],
        seconds: float,
        clock: Callable[[], float] = time.monotonic,
        *,
        serves_stale: bool = True,
    ) -> None:
        self._compute = compute
        self._seconds = seconds
        self._clock = clock
        self._serves_stale = serves_stale
        self._lock = threading.Lock()
        self._content = b""
        self._until = -math.inf

    def get(self) -> bytes:
        """The bytes. Raises what computing them raises."""
        if self._lock.acquire(blocking=not (self._content and self._serves_stale)):
            try:
                if self._clock() >= self._until:
                    self._content = self._compute()
                    self._until = self._clock() + self._seconds
            finally:
                self._lock.release()
        return self._content


def scrape() -> bytes:
    """All of it, in Prometheus' text format: the fleet's figures, then this process's own."""
    registry = CollectorRegistry()
    registry.register(Fleet())
    return bytes(generate_latest(registry) + generate_latest(PROCESS))


SCRAPED = Cached(scrape, SECONDS)
"""This process's."""
