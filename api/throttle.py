"""A token bucket per caller and process: against noise only. What may change the fleet is bounded elsewhere."""

import threading
import time
from collections import OrderedDict
from typing import Any

from django.conf import settings
from rest_framework.request import Request
from rest_framework.throttling import BaseThrottle

CALLERS = 10_000
_buckets: OrderedDict[str, tuple[float, float]] = OrderedDict()
_lock = threading.Lock()


class TokenBucket(BaseThrottle):
    """`settings.API_RATE`: requests per second, and burst. Callers: accounts, and addresses of the unknown."""

    _wait = 0.0

    def allow_request(self, request: Request, view: Any) -> bool:
        self._wait = take(self.key(request), time.monotonic(), *self.rate())
        return self._wait == 0.0

    def wait(self) -> float:
        return self._wait

    def key(self, request: Request) -> str:
        return str(request.user.pk) if request.user else request.META.get("REMOTE_ADDR", "")

    def rate(self) -> tuple[float, float]:
        rate: tuple[float, float] = settings.API_RATE
        return rate


class ScanBucket(TokenBucket):
    """`settings.SCAN_RATE`: looks at host keys, which connect to an address of the caller's choice."""

    def key(self, request: Request) -> str:
        return f"scan {super().key(request)}"

    def rate(self) -> tuple[float, float]:
        rate: tuple[float, float] = settings.SCAN_RATE
        return rate


class ScanManyBucket(ScanBucket):
    """`settings.SCAN_MANY_RATE`: the same for many hosts of the inventory at once."""

    def key(self, request: Request) -> str:
        return f"many {super().key(request)}"

    def rate(self) -> tuple[float, float]:
        rate: tuple[float, float] = settings.SCAN_MANY_RATE
        return rate


def take(caller: str, now: float, rate: float, burst: float) -> float:
    """Take one request out of the caller's bucket; seconds to wait when it is empty, else 0."""
    with _lock:
        left, since = _buckets.pop(caller, (float(burst), now))
        left = min(float(burst), left + (now - since) * rate)
        wait = 0.0 if left >= 1 else (1 - left) / rate
        _buckets[caller] = (left - 1 if left >= 1 else left, now)
        while len(_buckets) > CALLERS:
            _buckets.popitem(last=False)
    return wait
