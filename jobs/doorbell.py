"""Ring at a worker's queue: "there is something in this lane". Never raises and never waits, whatever Redis does.

A daemon thread publishes, so a request is as fast with a hung Redis as without one. Rings that find no room or no
Redis are dropped: the database is the truth, and the sweep rings again for what nobody claimed. Redis never holds more
than a few rings of a queue, however many jobs wait and however long its worker is away.
"""

import logging
import threading
from typing import Any

from django.conf import settings
from django.utils.module_loading import import_string

from jobs.lanes import THREADS

WORK = "jobs.tasks.work"
CONTROL = "control"
"""The Celery queue of what must happen though nobody asked."""
SECONDS = 0.5
"""How long the thread waits for Redis, to connect and for each answer."""
ROOM = 1000
UNREAD = 2 * THREADS
"""Messages of a queue that nobody has read yet: more would tell its worker nothing new."""
EXPIRY = 60
"""Seconds after which a ring says nothing any more: the sweep has rung again since."""

log = logging.getLogger(__name__)


class Doorbell:
    """A bounded queue of rings and the thread that publishes them, started with the first ring."""

    def __init__(self, room: int = ROOM) -> None:
        self._waiting: dict[tuple[str, str], None] = {}
        self._room = room
        self._rung = threading.Condition()
        self._thread: threading.Thread | None = None
        self._connection: Any = None
        self._is_down = False

    def ring(self, queue: str, lane: str) -> None:
        """Ask for `jobs.tasks.work(lane, queue)` at `queue`; returns at once. The same ring waits only once."""
        with self._rung:
            if len(self._waiting) < self._room:
                self._waiting[queue, lane] = None
            if self._thread is None or not self._thread.is_alive():  # the first ring, or a forked child
                self._thread = threading.Thread(target=self._publish_all, name="doorbell", daemon=True)
                self._thread.start()
            self._rung.notify()

    def _publish_all(self) -> None:
        while True:
            with self._rung:
                self._rung.wait_for(lambda: bool(self._waiting))
                queue, lane = next(iter(self._waiting))
                del self._waiting[queue, lane]
            try:
                self._publish(queue, lane)
                self._is_down = False
            except Exception as error:
                self._connection = None
                if not self._is_down:
                    log.warning("cannot ring, the sweep will: %s", error)
                self._is_down = True

    def _publish(self, queue: str, lane: str) -> None:
        app = import_string(settings.DOORBELL_APP)
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


_doorbell = Doorbell()
ring = _doorbell.ring
