"""Private servers for tests: a real Redis, PostgreSQL and Prometheus, all that they write below a temporary directory.

None of them outlives the process that started it, however that dies.
"""

import functools
import json
import os
import pwd
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any
from urllib.error import HTTPError
from urllib.parse import urlencode
from urllib.request import urlopen

import redis

from deploy.child import tie_to

PREFIX = "mxfleet-test-"


def scratch_directory(parent: Path = Path("/tmp")) -> Path:
    """A new directory of this process; those of processes that were killed are removed first."""
    for left in parent.glob(f"{PREFIX}*"):
        owner = left.name.removeprefix(PREFIX).partition("-")[0]
        if owner.isdecimal() and not Path(f"/proc/{owner}").exists():
            shutil.rmtree(left, ignore_errors=True)
    return Path(tempfile.mkdtemp(prefix=f"{PREFIX}{os.getpid()}-", dir=parent))


def start_tied(argv: Sequence[str], end: signal.Signals = signal.SIGTERM, **options: Any) -> subprocess.Popen[bytes]:
    """Start a server that the kernel ends with `end` when this process dies, even by SIGKILL.

    The kernel means the thread that starts it, so that has to be one that lives as long as the process.
    """
    parent = os.getpid()
    started = _starter(parent).submit(lambda: subprocess.Popen(argv, preexec_fn=lambda: tie_to(parent, end), **options))
    return started.result()


@functools.cache
def _starter(pid: int) -> ThreadPoolExecutor:
    """The one of this process: a process that was forked has no threads."""
    return ThreadPoolExecutor(1, "starter")


class Redis:
    """A redis-server (or valkey-server) without persistence at `socket`."""

    def __init__(self, socket: Path, directory: Path) -> None:
        self.socket = socket
        self.directory = directory
        self.url = f"unix://{socket}"
        self.process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Start it and return once it answers."""
        program = shutil.which("redis-server") or shutil.which("valkey-server")
        assert program, "tests need redis-server or valkey-server: apt-get install redis-server"
        self.process = start_tied(
            [program, "--port", "0", "--unixsocket", str(self.socket), "--unixsocketperm", "700",
             "--save", "", "--appendonly", "no", "--dir", str(self.directory),
             "--logfile", str(self.directory / "redis.log")],
        )  # fmt: skip
        until = time.monotonic() + 10
        while not self._answers():
            assert self.process.poll() is None, (self.directory / "redis.log").read_text()
            assert time.monotonic() < until, "Redis does not answer after 10 s"
            time.sleep(0.02)

    def _answers(self) -> bool:
        try:
            return bool(self.client().ping())
        except redis.RedisError:
            return False

    def client(self) -> redis.Redis:
        return redis.Redis(unix_socket_path=str(self.socket), socket_timeout=5)

    def flush(self) -> None:
        self.client().flushall()

    def stop(self) -> None:
        if self.process:
            self.process.terminate()
            self.process.wait(10)
            self.process = None


class Postgres:
    """A PostgreSQL cluster without fsync, as the user postgres (or nobody) when the tests run as root.

    `outlives_crashes`: what was committed is there again after `halt`, as in production (fsync is for power cuts only).
    `superuser`: who may do everything; one of another name than mxfleet gets no database either.
    """

    def __init__(self, *, outlives_crashes: bool = False, superuser: str = "mxfleet") -> None:
        self.superuser = superuser
        self.synchronous_commit = "on" if outlives_crashes else "off"
        self.directory = scratch_directory()
        self.process: subprocess.Popen[bytes] | None = None
        self.account = _unprivileged() if os.geteuid() == 0 else None
        if self.account:
            os.chown(self.directory, self.account.pw_uid, self.account.pw_gid)
        self.url = f"postgresql://mxfleet@/mxfleet?host={self.directory}"

    def start(self) -> None:
        """Make the cluster and start it; returns once it answers."""
        user = f"--username={self.superuser}"
        self._run("initdb", "--auth=trust", user, "--encoding=UTF8", "--no-sync", "-D", self._data)
        self.resume()
        if self.superuser == "mxfleet":
            self._run("createdb", "-h", str(self.directory), user, "mxfleet")

    def resume(self) -> None:
        """Start the cluster, after `halt` with the recovery that follows a crash."""
        self._serve(
            "fsync=off", "full_page_writes=off", "max_connections=200", f"synchronous_commit={self.synchronous_commit}"
        )

    def _serve(self, *settings: str) -> None:
        options = [word for setting in ("listen_addresses=", *settings) for word in ("-c", setting)]
        argv = [postgres_program("postgres"), "-D", self._data, "-k", str(self.directory), *options]
        with (self.directory / "log").open("ab") as log:
            # SIGQUIT is its immediate shutdown, children included.
            self.process = start_tied(argv, signal.SIGQUIT, stdout=log, stderr=log, **self._as_account())
        until = time.monotonic() + 30
        while not self._is_ready(self.process.pid):
            assert self.process.poll() is None, (self.directory / "log").read_text()
            assert time.monotonic() < until, "PostgreSQL does not answer after 30 s"
            time.sleep(0.05)

    def _is_ready(self, pid: int) -> bool:
        """Its file begins with its number, and ends so when it takes connections."""
        file = Path(self._data) / "postmaster.pid"
        words = file.read_text().split() if file.exists() else []
        return words[:1] == [str(pid)] and words[-1] == "ready"

    def halt(self) -> None:
        """Stop it as a crash would: every connection is lost, what was under way is rolled back."""
        if self.process:
            self.process.send_signal(signal.SIGQUIT)
            self.process.wait(30)
            self.process = None

    def stop(self) -> None:
        self.halt()
        shutil.rmtree(self.directory, ignore_errors=True)

    @property
    def _data(self) -> str:
        return str(self.directory / "data")

    def _run(self, name: str, *arguments: str) -> None:
        done = subprocess.run(
            [postgres_program(name), *arguments],
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            **self._as_account(),
        )
        assert done.returncode == 0, f"{name} failed: {done.stdout.decode(errors='replace')}"

    def _as_account(self) -> dict[str, Any]:
        options: dict[str, Any] = {"stdin": subprocess.DEVNULL, "cwd": self.directory}
        if self.account:
            options |= {"user": self.account.pw_uid, "group": self.account.pw_gid, "extra_groups": []}
        return options


def postgres_program(name: str) -> str:
    found = sorted(Path("/usr/lib/postgresql").glob(f"*/bin/{name}"))
    path = str(found[-1]) if found else shutil.which(name)
    assert path, f"tests need PostgreSQL's {name}: apt-get install postgresql"
    return path


def _unprivileged() -> pwd.struct_passwd:
    try:
        return pwd.getpwnam("postgres")
    except KeyError:
        return pwd.getpwnam("nobody")


class Prometheus:
    """A real one with the configuration that we ship, which scrapes `target` (HOST:PORT) each second."""

    def __init__(self, target: str) -> None:
        self.directory = scratch_directory()
        shipped = Path(__file__).parents[1] / "deploy" / "prometheus"
        for file in shipped.iterdir():
            text = file.read_text().replace("127.0.0.1:8000", target).replace("interval: 15s", "interval: 1s")
            (self.directory / file.name).write_text(text)
        self.port = _free_port()
        self.process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Start it and return once it answers."""
        program = shutil.which("prometheus")
        assert program, "tests need Prometheus: apt-get install prometheus"
        argv = [program, f"--config.file={self.directory}/prometheus.yml", f"--storage.tsdb.path={self.directory}/data"]
        with (self.directory / "log").open("wb") as log:
            self.process = start_tied([*argv, f"--web.listen-address=127.0.0.1:{self.port}"], stdout=log, stderr=log)
        until = time.monotonic() + 30
        while not self._is_ready():
            assert self.process.poll() is None, (self.directory / "log").read_text()
            assert time.monotonic() < until, "Prometheus does not answer after 30 s"
            time.sleep(0.05)

    def _is_ready(self) -> bool:
        try:
            return self._get("-/ready") is not None
        except OSError:
            return False

    def api(self, path: str, **query: str) -> Any:
        """`data` of an answer of its API. Raises HTTPError, with what it says is wrong as a note."""
        try:
            return json.loads(self._get(f"api/v1/{path}?{urlencode(query)}"))["data"]
        except HTTPError as error:
            error.add_note(error.read().decode())
            raise

    def _get(self, path: str) -> bytes:
        with urlopen(f"http://127.0.0.1:{self.port}/{path}", timeout=10) as answer:
            return bytes(answer.read())

    def stop(self) -> None:
        if self.process:
            self.process.kill()
            self.process.wait(10)
            self.process = None
        shutil.rmtree(self.directory, ignore_errors=True)


def _free_port() -> int:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        return int(taken.getsockname()[1])
