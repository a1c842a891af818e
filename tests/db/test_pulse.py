"""A worker's beat: which queue, and only while the worker can work."""

import time
from pathlib import Path
from types import SimpleNamespace

import pytest
from django.db import InterfaceError

from deploy import pulse
from jobs import tasks
from jobs.audit import marks
from jobs.models import WorkerBeat
from jobs.restore import watch
from jobs.worker import liveness


def seeing(*looks: bool) -> pulse.Sight:
    """After looks at the database that could tell, or not."""
    sight = pulse.Sight()
    for could_tell in looks:
        sight.tell(could_tell)
    return sight


def beat_once(is_well: bool, sight: pulse.Sight | None = None, file: Path | None = None) -> None:
    pulse._beat_once("ssh-1@here", "ssh.1", lambda: is_well, sight or seeing(True), file)


@pytest.mark.django_db
def test_a_worker_that_lives_and_cannot_work_does_not_say_that_it_lives() -> None:
    beat_once(is_well=False)
    assert not WorkerBeat.objects.exists()
    beat_once(is_well=True)
    assert WorkerBeat.objects.get().queue == "ssh.1"


@pytest.mark.django_db
def test_a_worker_that_begins_nothing_since_its_marks_cannot_be_read_does_not_say_that_it_lives(tmp_path: Path) -> None:
    marks.path().write_text("{")
    sight = seeing(True, watch.look())
    beat_once(is_well=True, sight=sight, file=tmp_path / "pulse")
    tasks.sweep()
    assert not WorkerBeat.objects.exists()
    assert not (tmp_path / "pulse").exists()


@pytest.mark.django_db
def test_a_worker_that_follows_a_long_trail_at_first_lives_and_serves_no_queue_yet(tmp_path: Path) -> None:
    beat_once(is_well=True, sight=seeing(), file=tmp_path / "pulse")
    assert not WorkerBeat.objects.exists()
    assert (tmp_path / "pulse").exists()


def test_a_look_counts_for_a_minute_so_a_slow_one_ends_no_pulse_and_one_that_hangs_does(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    now = time.monotonic()
    sight = seeing(True)
    monkeypatch.setattr(pulse, "time", SimpleNamespace(monotonic=lambda: now + 59))
    assert sight.is_clear()
    monkeypatch.setattr(pulse, "time", SimpleNamespace(monotonic=lambda: now + 61))
    assert not sight.is_clear()


@pytest.mark.django_db
def test_the_sweep_says_that_the_scheduler_lives(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("jobs.lifecycle.sweep.sweep", lambda: None)
    tasks.sweep()
    assert WorkerBeat.objects.get().queue == "scheduler"


class Stopped:
    """After so many turns."""

    def __init__(self, turns: int) -> None:
        self.left = turns

    def wait(self, seconds: float) -> bool:
        self.left -= 1
        return self.left == 0


@pytest.mark.django_db
@pytest.mark.parametrize("what", ["jobs.restore.watch.look", "jobs.worker.liveness.beat"])
def test_nothing_ends_the_pulse_of_a_worker_that_works(monkeypatch: pytest.MonkeyPatch, what: str) -> None:
    errors = iter([InterfaceError("the connection is closed"), RuntimeError("a bug of ours")])
    at_last = {"jobs.restore.watch.look": watch.look, "jobs.worker.liveness.beat": liveness.beat}[what]

    def act(*arguments: str) -> bool | None:
        for error in errors:
            raise error
        return at_last(*arguments)

    monkeypatch.setattr(what, act)
    monkeypatch.setattr(pulse, "connection", type("Connection", (), {"close": staticmethod(lambda: None)}))
    sight = pulse.Sight()
    pulse._look(sight, Stopped(3))  # type: ignore[arg-type]
    pulse._beat("ssh-1@here", "ssh.1", lambda: True, sight, None, Stopped(3))  # type: ignore[arg-type]
    assert WorkerBeat.objects.get().queue == "ssh.1"
