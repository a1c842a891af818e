"""The API under 300 held answers, 300 streams, doubled keys, heads that never end and heads of 400 MB, all at once."""

import asyncio
import shutil
import statistics
import threading
from collections import Counter
from collections.abc import Callable, Coroutine, Iterator
from contextlib import contextmanager, suppress
from http.client import HTTPConnection
from pathlib import Path
from typing import Any

from tests.bench.farm import Farm
from tests.bench.measure import table
from tests.bench.service import Service, service
from tests.bench.settings import alone
from tests.bench.waiting import ASKED, CLIENTS, JOB, Crowd, asked, percentile

HALF_SENT = 1100
DOUBLED = 100
HUGE = 3
HUGE_BYTES = 400_000_000
LISTING = 20
"""Seconds that a host takes to list its queue, so that who waits for it waits."""


class Attack:
    """Clients without a token, and one with one, in a thread of their own. `met`: how each of them ended."""

    def __init__(self, service: Service) -> None:
        self._service = service
        self.met: Counter[str] = Counter()
        self._loop = asyncio.new_event_loop()
        self._begun = threading.Event()
        self._thread = threading.Thread(target=self._loop.run_until_complete, args=(self._gather(),))

    def __enter__(self) -> "Attack":
        self._thread.start()
        self._begun.wait()
        return self

    def __exit__(self, *_: object) -> None:
        self._thread.join()
        self._loop.close()

    async def _gather(self) -> None:
        clients = [
            *(self._client("half a head", self._half_sent) for _ in range(HALF_SENT)),
            *(self._client("400 MB of head", self._huge) for _ in range(HUGE)),
            *(self._client("doubled keys", self._doubled) for _ in range(DOUBLED)),
        ]
        self._loop.call_later(1, self._begun.set)
        await asyncio.gather(*clients)

    async def _client(self, name: str, send: Callable[[asyncio.StreamWriter], Coroutine[Any, Any, None]]) -> None:
        reader, writer = await asyncio.open_connection("127.0.0.1", self._service.port)
        with suppress(ConnectionError):
            await send(writer)
        try:
            line = await reader.readline()
            self.met[f"{name}: {line.split()[1].decode() if line else 'closed'}"] += 1
        except ConnectionError:
            self.met[f"{name}: closed"] += 1
        finally:
            writer.close()

    async def _half_sent(self, writer: asyncio.StreamWriter) -> None:
        writer.write(b"GET /api/v1/whoami/ HTTP/1.1\r\nHost: localhost\r\nX-Half: ")

    async def _huge(self, writer: asyncio.StreamWriter) -> None:
        writer.write(b"GET /api/v1/whoami/ HTTP/1.1\r\nHost: localhost\r\nX-Huge: ")
        for _ in range(HUGE_BYTES // 65_536):
            writer.write(b"x" * 65_536)
            await writer.drain()

    async def _doubled(self, writer: asyncio.StreamWriter) -> None:
        body = b"{" + b",".join(b'"k%d":1,"k%d":2' % (each, each) for each in range(11_000)) + b"}"
        writer.write(
            b"POST /api/v1/jobs/ HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\nConnection: close\r\n"
            b"Authorization: Bearer %b\r\nContent-Length: %d\r\n\r\n%b"
            % (self._service.token.encode(), len(body), body)
        )
        await writer.drain()


def run(farm: Farm) -> str:
    """Measure, and tell in Markdown. What the second attack leaves is compared with what the first one left."""
    settings = {"MXFLEET_WAITING_EACH": str(CLIENTS + ASKED)}
    walls: dict[str, list[float]] = {}
    with _slow_listing(farm), service(farm, "postgresql", settings=settings) as one:
        job = one.call("POST", "/api/v1/jobs/", JOB, wait=0)["id"]
        held, statuses, met = [_held(one)], Counter[int](), Counter[str]()
        walls["before"] = asked(one)
        for number in ("first", "second"):
            with Crowd(one, job) as crowd, Attack(one) as attack:
                statuses[_readiness(one)] += 1
                walls[f"in the {number} attack"] = asked(one)
                statuses[_readiness(one)] += 1
            met += attack.met + crowd.statuses
            held.append(_held(one))
        walls["afterwards"] = asked(one)
    times = [
        [name, f"{statistics.median(each) * 1000:.1f}", f"{percentile(each, 9) * 1000:.1f}", f"{max(each):.2f}"]
        for name, each in walls.items()
    ]
    left = [[name, *(str(each[row]) for each in held)] for row, name in enumerate(("files", "threads", "memory MB"))]
    headings = ("`whoami`", "median ms", "90th percentile", "worst s")
    return "\n\n".join(
        (
            table(headings, times),
            table(("of the API", "before", "after one attack", "after two"), left),
            table(("client: met", "times"), [[name, str(count)] for name, count in sorted(met.items())]),
            f"`readyz` answered {dict(statuses)}",
        )
    )


def _held(service: Service) -> tuple[int, int, int]:
    """Files, threads and memory (MB) of the API."""
    return service.api.num_fds(), service.api.num_threads(), round(service.api.memory_full_info().uss / 1e6)


def _readiness(service: Service) -> int:
    """The status that a probe on a connection of its own gets."""
    probe = HTTPConnection("127.0.0.1", service.port, timeout=30)
    probe.request("GET", "/readyz")
    status = probe.getresponse().status
    probe.close()
    return status


@contextmanager
def _slow_listing(farm: Farm) -> Iterator[None]:
    """The farm's small hosts take their time."""
    program = Path(farm.program("small")) / "postqueue"
    kept = program.with_name("postqueue.kept")
    shutil.copy2(program, kept)
    try:
        program.write_text(f'#!/bin/sh\nsleep {LISTING}\nexec {kept} "$@"\n')
        yield
    finally:
        kept.replace(program)


if __name__ == "__main__":
    alone(run)
