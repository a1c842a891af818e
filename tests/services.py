"""Private servers for tests: a real Redis and a real PostgreSQL, on unix sockets below a temporary directory."""

import os
import pwd
import shutil
import subprocess
import tempfile
import time
from pathlib import Path

import redis


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
        self.process = subprocess.Popen(
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
    """

    def __init__(self, *, outlives_crashes: bool = False) -> None:
        self.synchronous_commit = "on" if outlives_crashes else "off"
        self.directory = Path(tempfile.mkdtemp(prefix="mxfleet-pg-", dir="/tmp"))
        self.account = _unprivileged() if os.geteuid() == 0 else None
        if self.account:
            os.chown(self.directory, self.account.pw_uid, self.account.pw_gid)
        self.url = f"postgresql://mxfleet@/mxfleet?host={self.directory}"

    def start(self) -> None:
        """Make the cluster and start it; returns once it answers."""
        self._run("initdb", "--auth=trust", "--username=mxfleet", "--encoding=UTF8", "--no-sync", "-D", self._data)
        self.resume()
        self._run("createdb", "-h", str(self.directory), "-U", "mxfleet", "mxfleet")

    def resume(self) -> None:
        """Start the cluster, after `halt` with the recovery that follows a crash."""
        options = (
            f"-c listen_addresses='' -k {self.directory} -c fsync=off -c max_connections=200 "
            f"-c synchronous_commit={self.synchronous_commit}"
        )
        self._run("pg_ctl", "-D", self._data, "-l", str(self.directory / "log"), "-w", "-o", options, "start")

    def halt(self) -> None:
        """Stop it as a crash would: every connection is lost, what was under way is rolled back."""
        self._run("pg_ctl", "-D", self._data, "-m", "immediate", "-w", "stop")

    def stop(self) -> None:
        self.halt()
        shutil.rmtree(self.directory, ignore_errors=True)

    @property
    def _data(self) -> str:
        return str(self.directory / "data")

    def _run(self, program: str, *arguments: str) -> None:
        found = sorted(Path("/usr/lib/postgresql").glob(f"*/bin/{program}"))
        path = str(found[-1]) if found else shutil.which(program)
        assert path, f"tests need PostgreSQL's {program}: apt-get install postgresql"
        account = self.account
        done = subprocess.run(
            [path, *arguments],
            stdin=subprocess.DEVNULL, stdout=subprocess.PIPE if program != "pg_ctl" else subprocess.DEVNULL,
            stderr=subprocess.STDOUT, cwd=self.directory, check=False,
            user=account.pw_uid if account else None, group=account.pw_gid if account else None,
            extra_groups=[] if account else None,
        )  # fmt: skip
        assert done.returncode == 0, f"{program} failed: {(done.stdout or b'').decode(errors='replace')}"


def _unprivileged() -> pwd.struct_passwd:
    try:
        return pwd.getpwnam("postgres")
    except KeyError:
        return pwd.getpwnam("nobody")
