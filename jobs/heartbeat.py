"""While a worker has runs it moves their leases on, from a thread that dies with the worker."""

import logging
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from django.db import DatabaseError, connection

from jobs.models import Run
from jobs.services.claim import keep

SECONDS = 10.0

log = logging.getLogger(__name__)


@contextmanager
def kept(runs: Sequence[Run]) -> Iterator[None]:
    """Keep the leases of `runs` alive for the length of the block."""
    done = threading.Event()
    thread = threading.Thread(target=_beat, args=(runs, done), name="lease-heartbeat", daemon=True)
    thread.start()
    try:
        yield
    finally:
        done.set()


def _beat(runs: Sequence[Run], done: threading.Event) -> None:
    try:
        while not done.wait(SECONDS):
            try:
                keep(runs)
            except DatabaseError as error:
                log.warning("cannot move leases on: %s", error)
    finally:
        connection.close()
