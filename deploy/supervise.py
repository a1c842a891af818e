"""Run the whole service in the foreground: Redis if none is named, API, workers, scheduler.

A child that dies is started again after a pause. SIGTERM, SIGINT and SIGHUP stop all of them, in reverse order, within
15 s; a second one at once. When the supervisor is killed the kernel tells the children (deploy/child.py).
"""

import fcntl
import logging
import os
import shlex
import shutil
import signal
import socket
import stat
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from deploy import logs
from deploy.child import Child, described, python
from deploy.env import EX_CONFIG, Env, load, runtime_directory
from deploy.usage import Parser

EX_UNAVAILABLE = 69
EX_SOFTWARE = 70
EX_TEMPFAIL = 75
GRACE = 9.0
"""Seconds that everything but Redis has to stop, before it is killed. A job that this cuts off is reconciled."""
REDIS_GRACE = 3.0
ENDING = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)
WATCHED = (*ENDING, signal.SIGCHLD)

log = logging.getLogger("mxfleet")


class Stop(Exception):
    """The service ends, with this exit status."""

    def __init__(self, status: int = 0) -> None:
        super().__init__(status)
        self.status = status


class Supervisor:
    """The children in the order of their start."""

    def __init__(self, env: Env) -> None:
        self.env = env
        self.children: list[Child] = []

    def run(self, when_ready: Callable[["Supervisor"], None]) -> int:
        """Start everything, call `when_ready`, tend it until told to stop, stop it. Returns the exit status."""
        try:
            self._start_all()
            when_ready(self)
            while True:
                self._pause(1.0)
        except Stop as stop:
            return stop.status
        finally:
            self._stop_all()

    def _start_all(self) -> None:
        must_be_free(self.env.listen)
        if self.env.is_redis_embedded:
            self.start("redis", redis_command(self.env))
            self._await("redis", lambda: answers_ping(self.env.redis_socket), 20)
        self._prepare()
        for name, argv in service_commands(self.env):
            self.start(name, argv)
        self._await("api", lambda: answers_http(self.env.listen), 60)

    def start(self, name: str, argv: Sequence[str], *, is_once: bool = False) -> Child:
        """Start one more child, the first to be stopped."""
        child = Child(name, argv, is_once)
        self.children.append(child)
        child.start()
        return child

    def _prepare(self) -> None:
        """Migrate and make the first administrator; its failure is ours."""
        child = self.start("prepare", python("-m", "deploy.prepare"), is_once=True)
        while child.process is not None and child.process.poll() is None:
            self._wait_for_signal(0.2)
        self.children.remove(child)
        status = child.process.returncode if child.process else EX_SOFTWARE
        if status:
            log.error("preparing the database failed: %s", described(status))
            raise Stop(status if status > 0 else EX_SOFTWARE)

    def _await(self, name: str, is_ready: Callable[[], bool], seconds: float) -> None:
        until = time.monotonic() + seconds
        while not is_ready():
            if time.monotonic() > until:
                log.error("%s does not answer after %d s", name, seconds)
                raise Stop(EX_UNAVAILABLE)
            self._pause(0.05)

    def _pause(self, seconds: float) -> None:
        """Wait for a signal, then look after the children. Raises Stop."""
        self._wait_for_signal(seconds)
        for child in self.children:
            status = child.tend(time.monotonic())
            if status == EX_CONFIG:
                raise Stop(EX_CONFIG)
            if status is not None:
                log.warning("%s ended (%s), starting it again", child.name, described(status))

    def _wait_for_signal(self, seconds: float) -> None:
        info = signal.sigtimedwait(WATCHED, seconds)
        if info is not None and info.si_signo in ENDING:
            log.info("stopping (%s)", signal.Signals(info.si_signo).name)
            raise Stop

    def _stop_all(self) -> None:
        redis = [child for child in self.children if child.name == "redis"]
        others = [child for child in reversed(self.children) if child.name != "redis"]
        _end(others, GRACE)
        _end(redis, REDIS_GRACE)


def _end(children: Sequence[Child], grace: float) -> None:
    """Ask them to stop, wait, kill what is left. A second signal to us shortens the wait to nothing."""
    for child in children:
        child.signal(signal.SIGTERM)
    until = time.monotonic() + grace
    while any(child.is_alive for child in children) and time.monotonic() < until:
        info = signal.sigtimedwait(WATCHED, 0.1)
        if info is not None and info.si_signo in ENDING:
            break
    for child in children:
        if child.is_alive:
            log.warning("%s did not stop, killing it", child.name)
            child.signal(signal.SIGKILL)
    for child in children:
        if child.process is not None:
            child.process.wait()


def redis_command(env: Env) -> list[str]:
    """A Redis of our own on a private socket, durable, that never evicts. Raises Stop where none is installed."""
    program = shutil.which("redis-server") or shutil.which("valkey-server")
    if program is None:
        log.error("no redis-server: apt-get install redis-server, or set MXFLEET_REDIS_URL")
        raise Stop(EX_UNAVAILABLE)
    directory = env.data / "redis"
    directory.mkdir(mode=0o700, exist_ok=True)
    make_private(env.redis_socket.parent)
    options = {
        "port": "0",
        "unixsocket": str(env.redis_socket),
        "unixsocketperm": "700",
        "dir": str(directory),
        "save": "",
        "appendonly": "yes",
        "appendfsync": "everysec",
        "maxmemory-policy": "noeviction",
        "loglevel": "warning",
        "logfile": str(directory / "redis.log"),
    }
    return [program, *(word for name, value in options.items() for word in (f"--{name}", value))]


def make_private(directory: Path) -> None:
    """Make it (0700), or make sure that an existing one is ours alone: /tmp is everybody's. Raises Stop."""
    directory.mkdir(mode=0o700, exist_ok=True)
    found = directory.lstat()
    if not stat.S_ISDIR(found.st_mode) or found.st_uid != os.geteuid() or found.st_mode & 0o077:
        log.error("%s is not a directory of this user alone (mode 0700); remove it", directory)
        raise Stop(EX_CONFIG)


def service_commands(env: Env) -> Iterator[tuple[str, list[str]]]:
    """The long-running programs of one machine, in the order of their start."""
    yield "api", python("-m", "deploy.serve")
    for shard, queue in enumerate(env.ssh_queues):
        yield f"worker {shard}", python("-m", "deploy.worker", queue)
    yield "control worker", python("-m", "deploy.worker", "control")
    yield "scheduler", python("-m", "celery", "--quiet", "-A", "deploy.celery", "beat", "--pidfile=")


def answers_ping(path: Path) -> bool:
    with socket.socket(socket.AF_UNIX) as client:
        client.settimeout(1)
        try:
            client.connect(str(path))
            client.sendall(b"PING\r\n")
            return client.recv(16).startswith(b"+PONG")
        except OSError:
            return False


def base_url(listen: tuple[str, int]) -> str:
    """Where a client on this machine reaches the API."""
    host = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(listen[0], listen[0])  # noqa: S104 - compared, not bound
    return f"http://[{host}]:{listen[1]}" if ":" in host else f"http://{host}:{listen[1]}"


def must_be_free(listen: tuple[str, int]) -> None:
    """Raises Stop when the address is not ours to take: another one's answer there would pass for our API's."""
    with socket.socket(socket.AF_INET6 if ":" in listen[0] else socket.AF_INET) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(listen)
        except OSError as error:
            log.error("MXFLEET_LISTEN: %s port %d: %s; right would be a free one", *listen, error.strerror)
            raise Stop(EX_CONFIG) from None


def answers_http(listen: tuple[str, int]) -> bool:
    """Whether the API answers at all; which status, its health checks say."""
    try:
        with urllib.request.urlopen(f"{base_url(listen)}/healthz", timeout=2):  # noqa: S310 - our own URL
            return True
    except urllib.error.HTTPError:
        return True
    except OSError:
        return False


@contextmanager
def only_one(data: Path, place: str = "") -> Iterator[None]:
    """Hold the lock of this directory, which stands for `place`. Raises Stop when another supervisor has it."""
    with (data / ".supervisor-lock").open("a+") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            file.seek(0)
            log.error("another one runs on %s (pid %s)", place or data, file.read().strip())
            raise Stop(EX_TEMPFAIL) from None
        file.truncate(0)
        file.write(str(os.getpid()))
        file.flush()
        yield


def announce(supervisor: Supervisor) -> None:
    env = supervisor.env
    url = base_url(env.listen)
    log.info("ready at %s, API %s/api/v1/, documentation %s/api/v1/docs/", url, url, url)
    token_file = env.data / "admin-token"
    if token_file.exists():
        log.info("the administrator's token is in %s", token_file)
        log.info('try: curl --oauth2-bearer "$(cat %s)" %s/api/v1/', shlex.quote(str(token_file)), url)


def main(when_ready: Callable[[Supervisor], None] = announce) -> int:
    """Run until stopped. `when_ready` is called once the API answers."""
    env = load()
    logs.apply(env.log)
    os.environ["MXFLEET_DATA"] = str(env.data)
    signal.pthread_sigmask(signal.SIG_BLOCK, WATCHED)
    try:
        with only_one(env.data):
            status = Supervisor(env).run(when_ready)
            if env.is_redis_embedded:
                shutil.rmtree(runtime_directory(env.data), ignore_errors=True)
            return status
    except Stop as stop:
        return stop.status


if __name__ == "__main__":
    Parser("deploy.supervise", __doc__).parse_args()
    sys.exit(main())
