"""The fixed cast on a fleet that answers from memory."""

import pytest

from jobs import wakeup
from jobs.worker import leases, runner
from tests.db.fleet import Cast, FakeEngine, cast


@pytest.fixture
def wakeups(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, str]]:
    """The wakeups: (Celery queue, lane)."""
    wakeups: list[tuple[str, str]] = []
    monkeypatch.setattr(wakeup, "wake", lambda queue, lane: wakeups.append((queue, lane)))
    return wakeups


@pytest.fixture
def people(db: None, monkeypatch: pytest.MonkeyPatch, wakeups: list[tuple[str, str]]) -> Cast:
    engine = FakeEngine()
    monkeypatch.setattr(runner, "engine", lambda: engine)
    monkeypatch.setattr(leases.KEEPER, "_watch", lambda: None)  # a test's transaction is seen by its own thread only
    monkeypatch.setattr("jobs.worker.endpoints._private_key", lambda credential: b"")
    monkeypatch.setattr("jobs.worker.endpoints._seen", {})
    return cast(engine)
