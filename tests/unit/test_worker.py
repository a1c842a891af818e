"""Workers that are told no shard take one each; a worker that lives says so in a file too."""

import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
from django.conf import settings
from django.db import DatabaseError

from deploy import worker, worker_liveness
from deploy.env import Env
from jobs.queues import queue_name
from jobs.worker import liveness


@pytest.fixture
def env(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Env:
    monkeypatch.setattr(worker, "_taken", [])
    return replace(settings.ENV, data=tmp_path, shards=2, site="fra1")


def test_queues_are_named_as_those_who_ring_name_them(env: Env) -> None:
    assert env.ssh_queues == [queue_name("fra1", 0), queue_name("fra1", 1)]
    assert replace(env, site="").ssh_queues == [queue_name("", 0), queue_name("", 1)]


def test_each_takes_a_shard_that_no_other_one_has_and_its_end_frees_it(env: Env) -> None:
    code = "import fcntl, sys; f = open(sys.argv[1], 'a'); fcntl.flock(f, 2); print(flush=True); sys.stdin.read()"
    (env.data / "shards").mkdir()
    argv = [sys.executable, "-c", code, str(env.data / "shards/ssh.fra1.0")]
    with subprocess.Popen(argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as other:
        assert other.stdout is not None
        other.stdout.readline()
        assert worker.free_queue(env) == "ssh.fra1.1"
        assert worker.free_queue(env) == ""
        other.kill()
    assert worker.free_queue(env) == "ssh.fra1.0"


def test_a_worker_touches_its_file_while_it_reaches_the_database(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "alive"
    renewals: list[bool] = []

    def once(name: str, queue: str) -> None:
        renewals.append(file.exists())
        if len(renewals) == 1:
            raise DatabaseError("down")

    class Stopped:
        def wait(self, seconds: float) -> bool:
            return len(renewals) == 3

    monkeypatch.setattr(liveness, "renew", once)
    monkeypatch.setattr(worker_liveness, "connection", type("Connection", (), {"close": staticmethod(lambda: None)}))
    sight = worker_liveness.Sight()
    sight.note(True)
    worker_liveness._renew("ssh-0@here", "ssh.0", lambda: True, sight, file, Stopped())
    assert renewals == [False, False, True]
