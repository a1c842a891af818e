"""News reach every process that listens, and never fail nor delay what they are about."""

import os
import signal
import time
from uuid import uuid4

import pytest

from jobs.news import CHANNEL, News
from tests.services import Redis


@pytest.fixture
def listener(redis_server: Redis, redis_url: str) -> object:
    channel = redis_server.client().pubsub()
    channel.subscribe(CHANNEL)
    assert channel.get_message(timeout=5)["type"] == "subscribe"
    return channel


def test_news_of_a_job_reach_who_listens(listener: object) -> None:
    job = uuid4()
    News().publish(job)
    assert listener.get_message(timeout=5)["data"] == str(job).encode()


def test_the_same_news_are_told_at_once_while_redis_hangs_and_later_ones_arrive(
    redis_server: Redis, listener: object
) -> None:
    news, job = News(), uuid4()
    os.kill(redis_server.process.pid, signal.SIGSTOP)
    try:
        begun = time.monotonic()
        for _ in range(2000):
            news.publish(uuid4())
        assert time.monotonic() - begun < 5
        time.sleep(0.7)  # longer than an answer is waited for
    finally:
        os.kill(redis_server.process.pid, signal.SIGCONT)
    until = time.monotonic() + 30
    while True:
        news.publish(job)
        message = listener.get_message(timeout=1)
        if message and message["data"] == str(job).encode():
            return
        assert time.monotonic() < until
