"""Ring at a worker's queue: "look at job X". Never raises and never waits, whatever has become of Redis.

A daemon thread publishes, so a request is as fast with a hung Redis as without one. Rings that find no room or no
Redis are dropped: the database is the truth, and the sweep rings again for what nobody claimed.
"""

import logging
import queue
import threading
from typing import Any

from django.conf import settings
from django.utils.module_loading import import_string

WORK = "jobs.tasks.work"
SECONDS = 0.5
"""How long the thread waits for Redis, to connect and for each answer."""
ROOM = 1000

log = logging.getLogger(__name__)


class Doorbell:
    """A bounded queue of rings and the thread that publishes them, started with the first ring."""

    def __init__(self, room: int = ROOM) -> None:
        self._waiting: queue.Queue[tuple[str, str]] = queue.Queue(room)
        self._lock = threading.Lock()
        self._thread: threading.Thread | None = None
        self._connection: Any = None
        self._is_down = False

    def ring(self, queue_name: str, job_id: str) -> None:
        """Ask for `jobs.tasks.work(job_id, queue_name)` at `queue_name`; returns at once."""
        try:
            self._waiting.put_nowait((queue_name, job_id))
        except queue.Full:
            return
        with self._lock:
            if self._thread is None or not self._thread.is_alive():  # the first ring, or a forked child
                self._thread = threading.Thread(target=self._publish_all, name="doorbell", daemon=True)
                self._thread.start()

    def _publish_all(self) -> None:
        while True:
            queue_name, job_id = self._waiting.get()
            try:
                self._publish(queue_name, job_id)
                self._is_down = False
            except Exception as error:
                self._connection = None
                if not self._is_down:
                    log.warning("cannot ring, the sweep will: %s", error)
                self._is_down = True

    def _publish(self, queue_name: str, job_id: str) -> None:
        app = import_string(settings.DOORBELL_APP)
        if self._connection is None:
            options = {
                **app.conf.broker_transport_options,
                "socket_timeout": SECONDS,
                "socket_connect_timeout": SECONDS,
            }
            self._connection = app.connection_for_write(transport_options=options)
        with app.amqp.Producer(self._connection) as producer:
            app.send_task(WORK, args=[job_id, queue_name], queue=queue_name, producer=producer, retry=False)


_doorbell = Doorbell()
ring = _doorbell.ring
