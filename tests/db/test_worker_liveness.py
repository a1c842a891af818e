"""A worker says that it lives: which queue, and only while the worker can work."""

import time
from pathlib import Path
from types import SimpleNamespace

import pytest
from django.db import InterfaceError

from deploy import worker_liveness
from jobs import tasks
from jobs.audit import marks
from jobs.models import WorkerLiveness
from jobs.restore import watch
from jobs.worker import liveness


def seeing(*looks: bool) -> worker_liveness.Sight:
    """After looks at the database that could tell, or not."""
    sight = worker_liveness.Sight()
    for is_known in looks:
        sight.note(is_known)
    return sight


def renew_once(is_well: bool, sight: worker_liveness.Sight | None = None, file: Path | None = None) -> None:
    worker_liveness._renew_once("ssh-1@here", "ssh.1", lambda: is_well, sight or seeing(True), file)


@pytest.mark.django_db
def test_a_worker_that_lives_and_cannot_work_does_not_say_that_it_lives() -> None:
    renew_once(is_well=False)
    assert not WorkerLiveness.objects.exists()
    renew_once(is_well=True)
    assert WorkerLiveness.objects.get().queue == "ssh.1"


@pytest.mark.django_db
def test_a_worker_that_begins_nothing_since_its_marks_cannot_be_read_does_not_say_that_it_lives(tmp_path: Path) -> None:
    marks.path().write_text("{")
    sight = seeing(True, watch.check())
    renew_once(is_well=True, sight=sight, file=tmp_path / "alive")
    tasks.sweep()
    assert not WorkerLiveness.objects.exists()
    assert not (tmp_path / "alive").exists()


@pytest.mark.django_db
def test_a_worker_that_follows_a_long_trail_at_first_lives_and_serves_no_queue_yet(tmp_path: Path) -> None:
    renew_once(is_well=True, sight=seeing(), file=tmp_path / "alive")
    assert not WorkerLiveness.objects.exists()
    assert (tmp_path / "alive").exists()


def test_a_look_counts_for_a_minute_so_a_slow_one_lets_nobody_count_as_dead_and_one_that_hangs_does(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    now = time.monotonic()
    sight = seeing(True)
    monkeypatch.setattr(worker_liveness, "time", SimpleNamespace(monotonic=lambda: now + 59))
    assert sight.is_clear()
    monkeypatch.setattr(worker_liveness, "time", SimpleNamespace(monotonic=lambda: now + 61))
    assert not sight.is_clear()


@pytest.mark.django_db
def test_the_sweep_says_that_the_scheduler_lives(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("jobs.lifecycle.sweep.sweep", lambda: None)
    tasks.sweep()
    assert WorkerLiveness.objects.get().queue == "scheduler"


class Stopped:
    """After so many turns."""

    def __init__(self, turns: int) -> None:
        self.left = turns

    def wait(self, seconds: float) -> bool:
        self.left -= 1
        return self.left == 0


@pytest.mark.django_db
@pytest.mark.parametrize("what", ["jobs.restore.watch.check", "jobs.worker.liveness.renew"])
def test_a_worker_that_works_never_counts_as_dead(monkeypatch: pytest.MonkeyPatch, what: str) -> None:
    errors = iter([InterfaceError("the connection is closed"), RuntimeError("a bug of ours")])
    at_last = {"jobs.restore.watch.check": watch.check, "jobs.worker.liveness.renew": liveness.renew}[what]

    def act(*arguments: str) -> bool | None:
        for error in errors:
            raise error
        return at_last(*arguments)

    monkeypatch.setattr(what, act)
    monkeypatch.setattr(worker_liveness, "connection", type("Connection", (), {"close": staticmethod(lambda: None)}))
    sight = worker_liveness.Sight()
    worker_liveness._check_database(sight, Stopped(3))  # type: ignore[arg-type]
    worker_liveness._renew("ssh-1@here", "ssh.1", lambda: True, sight, None, Stopped(3))  # type: ignore[arg-type]
    assert WorkerLiveness.objects.get().queue == "ssh.1"
