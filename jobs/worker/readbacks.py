"""Read-backs of unknown outcomes: what one host keeps from us keeps no thread from another's."""

import queue
import threading
from collections.abc import Iterator, Sequence
from typing import Any, Protocol

from fleet.ssh.engine import PERIOD, Outcome, Request
from jobs.models import Run

Blocks = queue.SimpleQueue[list[Outcome]]


class Engine(Protocol):
    """What carries requests out on hosts."""

    @property
    def is_running(self) -> bool: ...

    def begin(self, requests: Sequence[Request[Any]], ready: Blocks) -> object: ...


class ReadBacks:
    """Runs that are being read back. Any number of threads begin read-backs; one at a time takes what they show.

    So a host that takes a login and then hangs, for as long as its operation may last, costs no thread.
    """

    def __init__(self) -> None:
        self._ready: Blocks = queue.SimpleQueue()
        self._runs: dict[str, Run] = {}
        self._taking = threading.Lock()

    def new(self, runs: Sequence[Run]) -> list[Run]:
        """Those of which no read-back is under way."""
        return [run for run in runs if str(run.pk) not in self._runs]

    def begin(self, engine: Engine, runs: Sequence[Run], requests: Sequence[Request[Any]]) -> None:
        by_key = {str(run.pk): run for run in runs}
        self._runs.update({request.key: by_key[request.key] for request in requests})
        engine.begin(requests, self._ready)

    def outcomes(self, engine: Engine) -> Iterator[tuple[list[Run], list[Outcome]]]:
        """What any thread's read-backs showed, until none is under way. Nothing, when another thread is taking it."""
        while self._runs and self._taking.acquire(blocking=False):
            try:
                yield from self._taken(engine)
            finally:
                self._taking.release()

    def _taken(self, engine: Engine) -> Iterator[tuple[list[Run], list[Outcome]]]:
        while self._runs:
            try:
                outcomes = self._ready.get(timeout=PERIOD)
            except queue.Empty:
                if not engine.is_running:
                    self._runs.clear()  # the rows are due again by themselves
                continue
            yield [self._runs.pop(outcome.key) for outcome in outcomes], outcomes
