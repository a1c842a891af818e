"""The fixed cast on a fleet that answers from memory."""

import pytest

from jobs import doorbell, runner
from tests.db.fleet import Cast, FakeEngine, cast


@pytest.fixture
def rings(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, str]]:
    """What was rung: (Celery queue, job id)."""
    rung: list[tuple[str, str]] = []
    monkeypatch.setattr(doorbell, "ring", lambda queue, job_id: rung.append((queue, job_id)))
    return rung


@pytest.fixture
def people(db: None, monkeypatch: pytest.MonkeyPatch, rings: list[tuple[str, str]]) -> Cast:
    engine = FakeEngine()
    monkeypatch.setattr(runner, "engine", lambda: engine)
    monkeypatch.setattr("jobs.endpoints._private_key", lambda credential: b"")
    monkeypatch.setattr("jobs.endpoints._seen", {})
    return cast(engine)
