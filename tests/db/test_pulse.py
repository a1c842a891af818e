"""A worker's beat: which queue, and only while the worker can work."""

import threading

import pytest

from deploy import pulse
from jobs.models import WorkerBeat


def beat_once(is_well: bool) -> None:
    over = threading.Event()
    over.set()
    pulse._beat("ssh-1@here", "ssh.1", lambda: is_well, None, over)


@pytest.mark.django_db
def test_a_worker_that_lives_and_cannot_work_does_not_say_that_it_lives() -> None:
    beat_once(is_well=False)
    assert not WorkerBeat.objects.exists()
    beat_once(is_well=True)
    assert WorkerBeat.objects.get().queue == "ssh.1"


@pytest.mark.django_db
def test_the_sweep_says_that_the_scheduler_lives(monkeypatch: pytest.MonkeyPatch) -> None:
    from jobs import tasks

    monkeypatch.setattr("jobs.services.sweep.sweep", lambda: None)
    tasks.sweep()
    assert WorkerBeat.objects.get().queue == "scheduler"
