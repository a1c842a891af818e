"""A worker's pulse: a row in the database, and a file if one is named, moved on while the process lives."""

import atexit
import logging
import threading
from pathlib import Path

from django.db import DatabaseError, connection

from jobs.services import beat

log = logging.getLogger(__name__)


def start(name: str, file: Path | None) -> None:
    """Beat from a thread of its own until the process ends."""
    stopped = threading.Event()
    thread = threading.Thread(target=_beat, args=(name, file, stopped), name="pulse", daemon=True)
    thread.start()
    atexit.register(stopped.set)


def _beat(name: str, file: Path | None, stopped: threading.Event) -> None:
    while True:
        try:
            beat.beat(name)
            if file is not None:
                file.touch()
        except DatabaseError as error:
            log.warning("cannot say that this worker lives: %s", error)
            connection.close()
        except OSError as error:
            log.warning("MXFLEET_PULSE_FILE: %s", error)
        if stopped.wait(beat.SECONDS):
            return
