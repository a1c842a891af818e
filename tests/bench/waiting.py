"""What others notice of hundreds who wait: `whoami` alone, and beside held answers and event streams, in one run."""

import asyncio
import json
import signal
import statistics
import threading
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager

import psutil

from tests.bench.farm import Farm
from tests.bench.measure import table, verdict
from tests.bench.service import WAIT, Service, service
from tests.bench.settings import ROUNDS, alone

CLIENTS = 300
"""Of each kind."""
ASKED = 100
"""Requests a turn."""
SETTLING = 20.0
"""Seconds until what the clients sent, or left behind, at once is worked off."""
GOAL = 4
JOB = {"operation": "queue.list", "target": {"customers": ["of1"]}}


class Crowd:
    """Clients that wait, each on a connection of its own, in a thread. `waits`, `streams`: as many as wait now."""

    def __init__(self, service: Service, job: str) -> None:
        self._service = service
        self._job = job
        self.waits = self.streams = 0
        self.statuses: Counter[str] = Counter()
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_until_complete, args=(self._gather(),))

    def __enter__(self) -> "Crowd":
        self._thread.start()
        until = time.monotonic() + 120
        while self.waits < CLIENTS or self.streams < CLIENTS:
            if time.monotonic() > until:
                raise SystemExit(f"only {self.waits} wait and {self.streams} follow a stream: {self.statuses}")
            time.sleep(0.1)
        time.sleep(SETTLING)
        return self

    def __exit__(self, *_: object) -> None:
        self._loop.call_soon_threadsafe(self._all.cancel)
        self._thread.join()
        self._loop.close()
        time.sleep(SETTLING)

    async def _gather(self) -> None:
        wait = "waits", "POST /api/v1/jobs/", json.dumps(JOB)
        stream = "streams", f"GET /api/v1/jobs/{self._job}/events/", ""
        self._all = asyncio.gather(*(self._client(*each) for each in [wait, stream] * CLIENTS))
        try:
            await self._all
        except asyncio.CancelledError:
            return

    async def _client(self, kind: str, line: str, body: str) -> None:
        """Wait again and again."""
        while True:
            reader, writer = await asyncio.open_connection("127.0.0.1", self._service.port)
            try:
                writer.write(self._request(line, body).encode())
                await writer.drain()
                setattr(self, kind, getattr(self, kind) + 1)
                status = (await reader.readline()).split()[1]
                self.statuses[status.decode()] += 1
                await reader.read()
            finally:
                writer.close()
                setattr(self, kind, getattr(self, kind) - 1)

    def _request(self, line: str, body: str) -> str:
        headers = {
            "Host": "localhost",
            "Authorization": f"Bearer {self._service.token}",
            "Content-Type": "application/json",
            "Content-Length": str(len(body)),
            "Prefer": f"wait={WAIT}",
            "Connection": "close",
        }
        return (
            f"{line} HTTP/1.1\r\n" + "".join(f"{name}: {value}\r\n" for name, value in headers.items()) + "\r\n" + body
        )


def run(farm: Farm) -> str:
    """Measure, and tell in Markdown."""
    # Who comes back at once may find his old place not free yet.
    settings = {"MXFLEET_WAITING_EACH": str(CLIENTS + ASKED)}
    with service(farm, "postgresql", settings=settings) as one, _stopped_workers(one):
        job = one.call("POST", "/api/v1/jobs/", JOB, wait=0)["id"]
        asked(one)
        taken: dict[str, list[float]] = {"alone": [], "beside": []}
        threads: dict[str, int] = {}
        answers: Counter[str] = Counter()
        for _ in range(max(1, ROUNDS // 2)):
            taken["alone"] += asked(one)
            threads["alone"] = one.api.num_threads()
            with Crowd(one, job) as crowd:
                taken["beside"] += asked(one)
                threads["beside"] = one.api.num_threads()
                answers += crowd.statuses
    rows = []
    for name, text in (("alone", "alone"), ("beside", f"beside {CLIENTS} held answers and {CLIENTS} streams")):
        median, high = statistics.median(taken[name]) * 1000, percentile(taken[name], 9) * 1000
        rows.append([text, f"{median:.1f}", f"{high:.1f}", str(threads[name])])
    ratio = statistics.median(taken["beside"]) / statistics.median(taken["alone"])
    headings = ("`whoami`", "median ms", "90th percentile", "threads of the API")
    told = ", ".join(f"{count} of {status}" for status, count in sorted(answers.items()))
    goal = [[f"{ratio:.1f} times as slow; who waited was answered {told}", verdict(ratio, GOAL, at_least=False)]]
    return table(headings, rows) + "\n\n" + table(("found", "goal"), goal)


def asked(service: Service) -> list[float]:
    """Seconds that each of some requests took."""
    walls = []
    for _ in range(ASKED):
        begun = time.monotonic()
        service.call("GET", "/api/v1/whoami/")
        walls.append(time.monotonic() - begun)
    return walls


def percentile(walls: list[float], tenths: int) -> float:
    """So many tenths of them took no longer."""
    return sorted(walls)[len(walls) * tenths // 10]


@contextmanager
def _stopped_workers(service: Service) -> Iterator[None]:
    """No job goes on, so that who waits waits."""
    workers = [each for each in psutil.Process(service.pids[0]).children() if "deploy.worker" in each.cmdline()]
    for each in workers:
        each.send_signal(signal.SIGSTOP)
    try:
        yield
    finally:
        for each in workers:
            each.send_signal(signal.SIGCONT)


if __name__ == "__main__":
    alone(run)
