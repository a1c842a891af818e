"""A worker's pulse: a row in the database that is moved on while the process lives."""

import atexit
import logging
import threading

from django.db import DatabaseError, connection

from jobs.services import beat

log = logging.getLogger(__name__)


def start(name: str) -> None:
    """Beat from a thread of its own until the process ends."""
    stopped = threading.Event()
    thread = threading.Thread(target=_beat, args=(name, stopped), name="pulse", daemon=True)
    thread.start()
    atexit.register(stopped.set)


def _beat(name: str, stopped: threading.Event) -> None:
    while True:
        try:
            beat.beat(name)
        except DatabaseError as error:
            log.warning("cannot say that this worker lives: %s", error)
            connection.close()
        if stopped.wait(beat.SECONDS):
            return
