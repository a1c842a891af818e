"""Wake a worker's queue: "there is something in this lane". Never raises and never waits, whatever Redis does.

Wakeups that find no room or no Redis are dropped: the database is the truth, and the sweep wakes again for what nobody
claimed. Redis never holds more than a few of a queue, however many jobs wait and however long its worker is away.
"""

from typing import Any

from django.conf import settings
from django.utils.module_loading import import_string

from jobs.lanes import THREADS
from jobs.outbox import SECONDS, Outbox

WORK = "jobs.tasks.work"
CONTROL = "control"
"""The Celery queue of what must happen though nobody requests it."""
UNREAD = 2 * THREADS
"""Messages of a queue that nobody has read yet: more would tell its worker nothing new."""
EXPIRY = 60
"""Seconds after which a wakeup says nothing any more: the sweep has sent another one since."""


class Wakeups(Outbox):
    """The wakeups that this process sends."""

    name = "wakeup"
    lost = "cannot wake workers, the sweep will"
    _connection: Any = None

    def wake(self, queue: str, lane: str) -> None:
        """Ask for `jobs.tasks.work(lane, queue)` at `queue`; returns at once."""
        self.put(queue, lane)

    def deliver(self, *message: str) -> None:
        queue, lane = message
        app = import_string(settings.CELERY_APP)
        if self._connection is None:
            options = {
                **app.conf.broker_transport_options,
                "socket_timeout": SECONDS,
                "socket_connect_timeout": SECONDS,
            }
            self._connection = app.connection_for_write(transport_options=options)
        if self._connection.default_channel.client.llen(queue) >= UNREAD:
            return
        with app.amqp.Producer(self._connection) as producer:
            app.send_task(WORK, args=[lane, queue], queue=queue, producer=producer, retry=False, expires=EXPIRY)

    def hang_up(self) -> None:
        self._connection = None


_wakeups = Wakeups()
wake = _wakeups.wake
