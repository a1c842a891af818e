"""That a worker lives: a row in the database, and a file if one is named, moved on while it lives and can work."""

import atexit
import logging
import threading
import time
from collections.abc import Callable
from pathlib import Path

from django.db import DatabaseError, connection

from jobs.restore import watch
from jobs.worker import liveness

FRESH = 60.0
"""Seconds for which a check counts, so that a slow one after it lets nobody count as dead."""

log = logging.getLogger(__name__)


class Sight:
    """What checks of the database come to. They have a thread of their own: the first may follow a long audit trail.

    `began`: the first has ended.
    """

    def __init__(self) -> None:
        self.began = threading.Event()
        self._clear_until = float("-inf")

    def note(self, is_known: bool) -> None:
        """A check has ended."""
        self._clear_until = time.monotonic() + FRESH if is_known else float("-inf")
        self.began.set()

    def is_clear(self) -> bool:
        """Whether this machine knows the database, or that it forgot something; else nothing is begun here."""
        return time.monotonic() < self._clear_until


def start(name: str, queue: str, is_well: Callable[[], bool], file: Path | None) -> None:
    """Say that it lives from a thread of its own until the process ends, but not while `is_well` says no."""
    stopped, sight = threading.Event(), Sight()
    threading.Thread(target=_check_database, args=(sight, stopped), name="look", daemon=True).start()
    arguments = (name, queue, is_well, sight, file, stopped)
    threading.Thread(target=_renew, args=arguments, name="liveness", daemon=True).start()
    atexit.register(stopped.set)


def _check_database(sight: Sight, stopped: threading.Event) -> None:
    while True:
        sight.note(_tried(watch.check) is True)
        if stopped.wait(liveness.SECONDS):
            return


def _renew(
    name: str, queue: str, is_well: Callable[[], bool], sight: Sight, file: Path | None, stopped: threading.Event
) -> None:
    while True:
        sight.began.wait(liveness.SECONDS)
        _tried(lambda: _renew_once(name, queue, is_well, sight, file))
        if stopped.wait(liveness.SECONDS):
            return


def _renew_once(name: str, queue: str, is_well: Callable[[], bool], sight: Sight, file: Path | None) -> None:
    if not is_well():
        log.warning("this worker lives, but does nothing")
        return
    if sight.is_clear():
        liveness.renew(name, queue)
    elif sight.began.is_set():
        log.warning("this worker begins nothing: it cannot tell whether the database is the one that it knows")
        return
    if file is not None:
        file.touch()


def _tried(act: Callable[[], bool | None]) -> bool | None:
    """What `act` returns. Whatever it raises, the next may do: without these threads a worker counts as dead."""
    try:
        return act()
    except DatabaseError as error:
        log.warning("cannot say that this worker lives: %s", error)
    except Exception:
        log.exception("cannot say that this worker lives")
    connection.close()
    return None
