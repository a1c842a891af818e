"""Messages to others by the way: never raises and never waits, whatever they do. What finds no room is dropped.

A daemon thread delivers, so a request is as fast with a hung Redis as without one. The database is the truth, and who
depends on such a message looks there too, now and then.
"""

import logging
import threading

ROOM = 1000
SECONDS = 0.5
"""How long the thread waits for Redis, to connect and for each answer."""

log = logging.getLogger(__name__)


class Outbox:
    """A bounded set of messages to deliver and the thread that does, started with the first. The same waits only once.

    `name`: of the thread. `lost`: what the log says of one that could not be delivered.
    """

    name = "outbox"
    lost = "cannot deliver"

    def __init__(self, room: int = ROOM) -> None:
        self._waiting: dict[tuple[str, ...], None] = {}
        self._room = room
        self._put = threading.Condition()
        self._thread: threading.Thread | None = None
        self._is_down = False

    def put(self, *message: str) -> None:
        """Have it delivered soon; returns at once."""
        with self._put:
            if len(self._waiting) < self._room:
                self._waiting[message] = None
            if self._thread is None or not self._thread.is_alive():  # the first, or a forked child
                self._thread = threading.Thread(target=self._deliver_all, name=self.name, daemon=True)
                self._thread.start()
            self._put.notify()

    def deliver(self, *message: str) -> None:
        """Deliver what was put. May raise and take a moment."""
        raise NotImplementedError

    def hang_up(self) -> None:
        """Forget a connection that failed."""
        raise NotImplementedError

    def _deliver_all(self) -> None:
        while True:
            with self._put:
                self._put.wait_for(lambda: bool(self._waiting))
                message = next(iter(self._waiting))
                del self._waiting[message]
            try:
                self.deliver(*message)
                self._is_down = False
            except Exception as error:
                self.hang_up()
                if not self._is_down:
                    log.warning("%s: %s", self.lost, error)
                self._is_down = True
