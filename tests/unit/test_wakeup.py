"""Wakeups never raise and never wait, and are sent again as soon as Redis is back."""

import json
import os
import signal
import time
from collections.abc import Callable

import pytest

from deploy.celery import app
from jobs.wakeup import Wakeups
from tests.services import Redis


def messages(server: Redis, queue: str) -> list[dict]:
    return [json.loads(raw) for raw in server.client().lrange(queue, 0, -1)]


def wait_until(is_true: Callable[[], object], seconds: float = 10) -> None:
    until = time.monotonic() + seconds
    while not is_true():
        assert time.monotonic() < until, "did not happen in time"
        time.sleep(0.02)


@pytest.fixture
def server(redis_server: Redis, redis_url: str) -> Redis:
    assert app.conf.broker_url.startswith("redis+socket://")
    return redis_server


def test_a_ring_asks_for_the_job_at_the_queue(server: Redis) -> None:
    Wakeups().wake("ssh.eu.1", "job-1")
    wait_until(lambda: messages(server, "ssh.eu.1"))
    (message,) = messages(server, "ssh.eu.1")
    assert message["headers"]["task"] == "jobs.tasks.work"
    assert message["headers"]["argsrepr"] == "['job-1', 'ssh.eu.1']"


def test_a_ring_returns_at_once_while_redis_hangs_and_later_ones_arrive(server: Redis) -> None:
    wakeups = Wakeups()
    wakeups.wake("ssh.0", "before")
    wait_until(lambda: messages(server, "ssh.0"))
    assert server.process is not None
    os.kill(server.process.pid, signal.SIGSTOP)
    try:
        begun = time.monotonic()
        for number in range(2000):
            wakeups.wake("ssh.0", f"during-{number}")
        assert time.monotonic() - begun < 5
        time.sleep(1)
    finally:
        os.kill(server.process.pid, signal.SIGCONT)
    wait_until(lambda: len(messages(server, "ssh.0")) > 1, 30)


def test_a_ring_after_a_flush_arrives(server: Redis) -> None:
    wakeups = Wakeups()
    wakeups.wake("ssh.0", "before")
    wait_until(lambda: messages(server, "ssh.0"))
    server.flush()
    wakeups.wake("ssh.0", "after")
    wait_until(lambda: messages(server, "ssh.0"))


def test_a_ring_after_a_restart_of_redis_arrives(server: Redis) -> None:
    wakeups = Wakeups()
    wakeups.wake("ssh.0", "before")
    wait_until(lambda: messages(server, "ssh.0"))
    server.stop()
    begun = time.monotonic()
    wakeups.wake("ssh.0", "while down")
    assert time.monotonic() - begun < 0.5
    server.start()
    wakeups.wake("ssh.0", "after")
    wait_until(lambda: messages(server, "ssh.0"))


def test_rings_beyond_the_room_are_dropped_and_not_waited_for(server: Redis) -> None:
    assert server.process is not None
    os.kill(server.process.pid, signal.SIGSTOP)
    wakeups = Wakeups(room=3)
    try:
        begun = time.monotonic()
        for number in range(50):
            wakeups.wake("ssh.1", str(number))
        assert time.monotonic() - begun < 5
    finally:
        os.kill(server.process.pid, signal.SIGCONT)
    wait_until(lambda: messages(server, "ssh.1"), 30)
    time.sleep(0.5)
    assert len(messages(server, "ssh.1")) <= 8
