"""A worker's beat: which queue, and only while the worker can work."""

import threading

import pytest
from django.db import InterfaceError

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


@pytest.mark.django_db
def test_nothing_ends_the_pulse_of_a_worker_that_works(monkeypatch: pytest.MonkeyPatch) -> None:
    looks = iter([InterfaceError("the connection is closed"), RuntimeError("a bug of ours")])

    def look() -> None:
        for error in looks:
            raise error

    class Stopped:
        turns = 0

        def wait(self, seconds: float) -> bool:
            self.turns += 1
            return self.turns == 3

    monkeypatch.setattr("jobs.services.watch.look", look)
    monkeypatch.setattr(pulse, "connection", type("Connection", (), {"close": staticmethod(lambda: None)}))
    pulse._beat("ssh-1@here", "ssh.1", lambda: True, None, Stopped())
    assert WorkerBeat.objects.get().queue == "ssh.1"
