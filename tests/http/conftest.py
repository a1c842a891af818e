"""The cast, who ask over HTTP."""

import pytest

from api import health, throttle
from api.metrics import Cached
from tests.http.cast import World, build_world, harmless_wakeups


@pytest.fixture
def world(db: None) -> World:
    """Customers, hosts, people and their tokens, none of whom has asked for anything yet."""
    throttle._buckets.clear()
    return build_world()


@pytest.fixture(autouse=True)
def _looks_each_time(monkeypatch: pytest.MonkeyPatch) -> None:
    """readyz tells what is, not what was a moment ago."""
    monkeypatch.setattr(health, "CACHED_REPORT", Cached(health.report, 0, serves_stale=False))


@pytest.fixture(autouse=True)
def wakeups(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, str]]:
    """No broker: wakeups are written down."""
    wakeups: list[tuple[str, str]] = []
    harmless_wakeups(monkeypatch, wakeups)
    return wakeups
