"""The real API on a port of loopback, and a worker whose one host is Postfix with its queue in memory.

What is planned, changed and told is the product's own work; only the connection to the host is missing.
"""

import asyncio
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from queue import SimpleQueue
from typing import Any

import pytest
from django.core.handlers.asgi import ASGIHandler
from django.db import connections
from django.utils import timezone

from api.held import held
from api.hub import Hub
from fleet.models import Instance
from fleet.mta.errors import FleetError
from fleet.ssh.drive import Trace, drive
from fleet.ssh.engine import Outcome, Request
from jobs import wakeup
from jobs.worker import runner
from tests.contract import postfix
from tests.contract.play import Host, Wire
from tests.http.cast import World
from tests.http.wire import serving

OTHERS = 5


@dataclass
class PlayedEngine:
    """Drives an operation's steps as the SSH engine does, against a host that is played."""

    host: Host

    def reset(self, name: str) -> None:
        """There is no connection to drop."""

    def outcomes(
        self, requests: Sequence[Request[Any]], cancelled: Callable[[], bool] = bool
    ) -> Iterator[list[Outcome]]:
        for request in requests:
            yield [self._outcome(request)]

    def _outcome(self, request: Request[Any]) -> Outcome:
        trace, value, error, begun = Trace(), None, None, timezone.now()
        steps = drive(request.steps(), Wire(self.host), trace, until_plan=request.until_plan)
        try:
            value = asyncio.run(steps)
        except FleetError as caught:
            error = caught
        return Outcome(request.key, value, error, trace, started_at=begun, finished_at=timezone.now())


@dataclass
class Worker:
    """Does what wakeups ask for, one after the other, in a thread of its own."""

    asked: SimpleQueue[tuple[str, str] | None] = field(default_factory=SimpleQueue)

    def wake(self, queue: str, lane: str) -> None:
        self.asked.put((queue, lane))

    def run(self) -> None:
        while (asked := self.asked.get()) is not None:
            queue, lane = asked
            runner.work(lane, queue)
        connections.close_all()


@contextmanager
def fleet(world: World, directory: Path, bulk: int, patch: pytest.MonkeyPatch) -> Iterator[str]:
    """Where the API is. In the queue of mx1/postfix are so many messages from news@bulk.example, and OTHERS."""
    host = postfix.host(directory, [b"news@bulk.example"] * bulk + [b"a@b.test"] * OTHERS)
    facts = host.instance
    Instance.objects.filter(pk=world.postfix.pk).update(
        config_dir=facts.config_dir, queue_dirs=list(facts.queue_dirs), options=facts.options, version=facts.version
    )
    worker, engine = Worker(), PlayedEngine(host)
    patch.setattr(wakeup, "wake", worker.wake)
    patch.setattr(runner, "engine", lambda: engine)
    patch.setattr("jobs.worker.endpoints._private_key", lambda credential: b"")
    thread = threading.Thread(target=worker.run, name="worker")
    thread.start()
    try:
        with serving(held(ASGIHandler(), Hub())) as port:
            yield f"http://127.0.0.1:{port}"
    finally:
        worker.asked.put(None)
        thread.join()
