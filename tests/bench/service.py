"""The real service beside the farm: Redis, a database, API, workers, scheduler, as `deploy/run` starts them."""

import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from http.client import HTTPConnection
from pathlib import Path
from typing import Any

import psutil

from tests.bench.farm import Farm
from tests.bench.measure import Timed, cpu_of
from tests.bench.seed import SIZES
from tests.services import Postgres
from tests.ssh.sshd import free_port

LARGE_HOSTS = 50
WAIT = 30
IDLE = 3.0
"""Seconds after which our connection is made anew: uvicorn closes one that was idle for 5."""


class DurablePostgres(Postgres):
    """A cluster with PostgreSQL's own defaults: what is committed is on the disk."""

    def start(self) -> None:
        self._run("initdb", "--auth=trust", "--username=mxfleet", "--encoding=UTF8", "-D", self._data)
        self._serve()
        self._run("createdb", "-h", str(self.directory), "-U", "mxfleet", "mxfleet")

    @property
    def pid(self) -> int:
        return int((Path(self._data) / "postmaster.pid").read_text().split()[0])


@dataclass
class Service:
    """`pids`: the supervisor, and PostgreSQL when there is one; everything else descends from them."""

    port: int
    token: str
    pids: list[int]

    def __post_init__(self) -> None:
        self._connection = HTTPConnection("127.0.0.1", self.port, timeout=WAIT + 30)
        self._used = 0.0

    def hang_up(self) -> None:
        """Begin the next request on a new connection."""
        self._connection.close()

    def call(self, method: str, path: str, body: Any = None, *, wait: int = WAIT) -> dict[str, Any]:
        """One request on the kept-alive connection; a text is CSV. Raises RuntimeError for anything but a 2xx."""
        kind = "text/csv" if isinstance(body, str) else "application/json"
        headers = {"Authorization": f"Bearer {self.token}", "Content-Type": kind}
        if method == "POST":
            headers["Prefer"] = f"wait={wait}"
        if time.monotonic() - self._used > IDLE:
            self.hang_up()
        content = body.encode() if isinstance(body, str) else json.dumps(body) if body is not None else None
        self._connection.request(method, path, content, headers)
        answer = self._connection.getresponse()
        text = answer.read()
        self._used = time.monotonic()
        if answer.status // 100 != 2:
            raise RuntimeError(f"{method} {path}: {answer.status} {text[:1000]!r}")
        found: dict[str, Any] = json.loads(text)
        return found

    def job(self, operation: str, target: dict[str, Any], params: dict[str, Any], runs: int) -> dict[str, Any]:
        """POST a job and return it when it has ended. All its runs must have succeeded."""
        job = self.call("POST", "/api/v1/jobs/", {"operation": operation, "target": target, "params": params})
        while job["finished_at"] is None:
            time.sleep(0.02)
            job = self.call("GET", f"/api/v1/jobs/{job['id']}/")
        if job["state"] != "succeeded" or job["counts"]["runs"] != {"succeeded": runs}:
            raise RuntimeError(f"the job did not succeed: {job}")
        return job

    def listing(self, count: int, match: str = "ALL") -> Timed:
        """`queue.list` on the first `count` small hosts, from POST to its end."""
        customers = [f"of{size}" for size in SIZES if size <= count]
        return self._timed({"customers": customers}, match, count)

    def large_listing(self, match: str) -> Timed:
        """`queue.list` on the hosts with 5 MB of queue each."""
        return self._timed({"customers": ["large"]}, match, LARGE_HOSTS)

    def _timed(self, target: dict[str, Any], match: str, runs: int) -> Timed:
        before, begun = cpu_of(self.pids), time.monotonic()
        self.job("queue.list", target, {"match": match}, runs)
        wall = time.monotonic() - begun
        return wall, cpu_of(self.pids) - before

    @property
    def api(self) -> psutil.Process:
        return next(each for each in psutil.Process(self.pids[0]).children() if "deploy.serve" in each.cmdline())

    def memory(self) -> float:
        """MB of the largest SSH worker (proportional set size)."""
        workers = [each for each in psutil.Process(self.pids[0]).children() if "deploy.worker" in each.cmdline()]
        return max(each.memory_full_info().pss for each in workers) / 1e6


@contextmanager
def service(
    farm: Farm, database: str, *, shards: int = 2, settings: Mapping[str, str] | None = None
) -> Iterator[Service]:
    """The service with `database` ("postgresql" or "sqlite") for as long as the block, the farm's hosts in it."""
    data = Path(tempfile.mkdtemp(prefix="mxf-bench-", dir="/tmp"))
    data.chmod(0o700)
    postgres = DurablePostgres() if database == "postgresql" else None
    environment = _environment(data, shards) | dict(settings or {})
    supervisor = None
    try:
        if postgres:
            postgres.start()
            environment["MXFLEET_DATABASE_URL"] = postgres.url
        seed = [sys.executable, "-m", "tests.bench.seed", str(farm.directory), str(farm.port)]
        subprocess.run([*seed, str(max(SIZES)), str(LARGE_HOSTS)], env=environment, check=True)
        with (data / "log").open("wb") as log:
            argv = [sys.executable, "-m", "deploy.supervise"]
            supervisor = subprocess.Popen(argv, env=environment, stdout=log, stderr=log)
        token = (data / "admin-token").read_text().strip()
        port = int(environment["MXFLEET_LISTEN"].rpartition(":")[2])
        pids = [supervisor.pid, *([postgres.pid] if postgres else [])]
        yield _ready(Service(port, token, pids), data / "log")
    finally:
        if supervisor:
            supervisor.terminate()
            supervisor.wait()
        if postgres:
            postgres.stop()
        shutil.rmtree(data, ignore_errors=True)


def _environment(data: Path, shards: int) -> dict[str, str]:
    key_file = data / "bench-keys"
    key_file.touch(mode=0o600)
    key_file.write_text(f"bench {'A' * 43}=\n")
    kept = {name: value for name, value in os.environ.items() if not name.startswith("MXFLEET_")}
    return kept | {
        "MXFLEET_DATA": str(data),
        "MXFLEET_LISTEN": f"127.0.0.1:{free_port()}",
        "MXFLEET_ALLOWED_NETWORKS": "127.77.0.0/16",
        "MXFLEET_SHARDS": str(shards),
        "MXFLEET_SECRET_KEY": "9tUq0nVdWk3RyeZb5HcXgMoA7LpJf2sT8vEiKxQwNzYuBhCj4G6",
        "MXFLEET_KEY_FILE": str(key_file),
    }


def _ready(service: Service, log: Path) -> Service:
    """Once the API answers and a first job has gone all the way."""
    until = time.monotonic() + 60
    while True:
        try:
            service.listing(1)
            return service
        except OSError:
            service.hang_up()
            if time.monotonic() > until:
                raise SystemExit(f"the service does not answer: {log.read_text()[-3000:]}") from None
            time.sleep(0.2)
