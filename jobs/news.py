"""Publish to all processes that something happened to a job, by Redis' publish/subscribe. Never raises and never waits.

What was lost is found by those who wait for it: they look at the database every few seconds (api/hub.py).
"""

from uuid import UUID

import redis
from django.conf import settings
from redis.backoff import NoBackoff
from redis.retry import Retry

from jobs.outbox import SECONDS, Outbox

CHANNEL = "mxfleet.jobs"
"""Each message is the id of a job. Redis has one name space for all its databases; strangers' ids say nothing here."""


class News(Outbox):
    """The news of this process."""

    name = "news"
    lost = "cannot tell of jobs, those who wait look themselves"
    _redis: redis.Redis | None = None

    def publish(self, job: UUID) -> None:
        """Say that there is an event of this job; returns at once. To be called after the commit."""
        self.put(str(job))

    def deliver(self, *message: str) -> None:
        if self._redis is None:
            self._redis = redis.Redis.from_url(
                settings.ENV.redis_url,
                socket_timeout=SECONDS,
                socket_connect_timeout=SECONDS,
                retry=Retry(NoBackoff(), 0),  # later is too late
            )
        self._redis.publish(CHANNEL, *message)

    def hang_up(self) -> None:
        self._redis = None


_news = News()
publish = _news.publish
