"""A worker's pulse: a row in the database, and a file if one is named, moved on while it lives and can work."""

import atexit
import logging
import threading
from collections.abc import Callable
from pathlib import Path

from django.db import DatabaseError, connection

from jobs.services import beat

log = logging.getLogger(__name__)


def start(name: str, queue: str, is_well: Callable[[], bool], file: Path | None) -> None:
    """Beat from a thread of its own until the process ends, but not while `is_well` says no."""
    stopped = threading.Event()
    thread = threading.Thread(target=_beat, args=(name, queue, is_well, file, stopped), name="pulse", daemon=True)
    thread.start()
    atexit.register(stopped.set)


def _beat(name: str, queue: str, is_well: Callable[[], bool], file: Path | None, stopped: threading.Event) -> None:
    while True:
        try:
            if is_well():
                beat.beat(name, queue)
                if file is not None:
                    file.touch()
            else:
                log.warning("this worker lives, but does nothing")
        except DatabaseError as error:
            log.warning("cannot say that this worker lives: %s", error)
            connection.close()
        except (
            Exception
        ):  # whatever it is, the next beat may do; without this thread a worker that works counts as dead
            log.exception("cannot say that this worker lives")
            connection.close()
        if stopped.wait(beat.SECONDS):
            return
