"""The one command: started, told to stop, killed, started twice. Real processes throughout."""

import base64
import json
import os
import re
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import psutil
import pytest
import redis
from django.db import ProgrammingError
from django.db.migrations.exceptions import MigrationSchemaMissing
from psycopg.errors import InsufficientPrivilege

from deploy.env import runtime_directory
from deploy.prepare import explained
from deploy.supervise import only_one
from tests.lab import demo

ROOT = Path(__file__).parents[2]
READY = 150.0
"""Seconds that a start may take on a machine that runs everything else at once; alone it is two."""
pytestmark = pytest.mark.timeout(300)


def wait_until(is_true: Callable[[], object], seconds: float) -> None:
    until = time.monotonic() + seconds
    while not is_true():
        assert time.monotonic() < until, f"did not happen within {seconds} s"
        time.sleep(0.05)


class Service:
    """A supervisor in a data directory of its own."""

    def __init__(self, data: Path) -> None:
        with socket.socket() as chosen:
            chosen.bind(("127.0.0.1", 0))
            self.port = chosen.getsockname()[1]
        self.data = data
        self.log = data.with_suffix(".log")
        self.process = self.start()

    def start(self) -> subprocess.Popen[bytes]:
        environment = {
            "PATH": os.environ["PATH"],
            "MXFLEET_DATA": str(self.data),
            "MXFLEET_LISTEN": f"127.0.0.1:{self.port}",
            "MXFLEET_SHARDS": "1",
        }
        with self.log.open("ab") as log:
            return subprocess.Popen(
                [sys.executable, "-m", "deploy.supervise"], cwd=ROOT, env=environment, stdout=log, stderr=log
            )

    def children(self) -> dict[str, psutil.Process]:
        """By their command lines; not theirs, since a starting worker runs helpers such as ldconfig for a moment."""
        found = {}
        for child in psutil.Process(self.process.pid).children():
            with suppress(psutil.NoSuchProcess):  # some live for a moment only
                if child.status() != "zombie":
                    found[" ".join(child.cmdline())] = child
        return found

    def child(self, part: str) -> psutil.Process:
        return next(child for name, child in self.children().items() if part in name)

    def is_ready(self) -> bool:
        assert self.process.poll() is None, self.log.read_text()
        return "ready at" in self.log.read_text()

    def healthz(self) -> int:
        return self.status("healthz")

    def status(self, path: str, **headers: str) -> int:
        asked = urllib.request.Request(f"http://127.0.0.1:{self.port}/{path}", headers=headers)
        try:
            with urllib.request.urlopen(asked, timeout=5) as answer:
                return int(answer.status)
        except urllib.error.HTTPError as error:
            return error.code


def none_alive(children: list[psutil.Process]) -> bool:
    """Whether all have ended; whoever adopted them may need a moment to reap them."""
    return not psutil.wait_procs(children, timeout=3)[1]


@contextmanager
def started(data: Path) -> Iterator[Service]:
    running = Service(data)
    try:
        wait_until(running.is_ready, READY)
        yield running
    finally:
        if running.process.poll() is None:
            running.process.terminate()
            running.process.wait(20)


@pytest.fixture
def service(tmp_path: Path) -> Iterator[Service]:
    with started(tmp_path / ("a-rather-long-name-of-a-data-directory-" * 4)) as running:
        yield running


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    """For tests that leave it running, with all its children."""
    with started(tmp_path_factory.mktemp("shared") / "data") as running:
        yield running


def test_it_answers_keeps_the_token_to_its_owner_and_prints_a_line_that_works(shared: Service) -> None:
    assert shared.healthz() == 200
    wait_until(lambda: "try: " in shared.log.read_text(), 5)
    (line,) = re.findall(r"try: (curl .+/api/v1/)\s", shared.log.read_text())
    said = subprocess.run(["sh", "-c", f"{line} -sS"], capture_output=True, timeout=20, check=True)
    assert json.loads(said.stdout)["jobs"] == f"http://127.0.0.1:{shared.port}/api/v1/jobs/"
    token = shared.data / "admin-token"
    assert token.read_text().startswith("mxf_")
    assert token.stat().st_mode & 0o777 == 0o600
    assert token.read_text().strip() not in shared.log.read_text()
    assert shared.data.stat().st_mode & 0o777 == 0o700
    assert len(shared.children()) == 5  # redis, API, worker, control worker, scheduler
    forwarded = {"X-Forwarded-For": "127.0.0.1"}
    assert (shared.status("metrics"), shared.status("metrics", **forwarded)) == (200, 401)


def end(service: Service, number: signal.Signals) -> None:
    """Tell it to stop, and see that nothing is left."""
    children = list(service.children().values())
    service.process.send_signal(number)
    assert service.process.wait(20) == 0
    assert none_alive(children)
    assert not runtime_directory(service.data).exists()


def begin_again(service: Service) -> None:
    service.log.write_text("")
    service.process = service.start()
    wait_until(service.is_ready, READY)


def test_told_to_stop_it_leaves_nothing_behind_and_a_second_start_keeps_keys_token_and_database(
    service: Service,
) -> None:
    names = ("secret-key", "credential-keys", "admin-token")
    before = [(service.data / name).read_text() for name in names]
    end(service, signal.SIGTERM)
    begin_again(service)
    assert [(service.data / name).read_text() for name in names] == before
    end(service, signal.SIGINT)


def test_a_deleted_token_is_not_made_anew_and_children_that_hang_do_not_keep_it_from_stopping_in_time(
    service: Service,
) -> None:
    (service.data / "admin-token").unlink()
    end(service, signal.SIGTERM)
    begin_again(service)
    assert not (service.data / "admin-token").exists()
    assert "token" not in service.log.read_text()
    for child in service.children().values():
        child.suspend()
    begun = time.monotonic()
    end(service, signal.SIGTERM)
    assert time.monotonic() - begun < 15


def test_killed_it_leaves_no_orphan_for_long(service: Service) -> None:
    children = list(service.children().values())
    service.process.kill()
    service.process.wait(5)
    _, alive = psutil.wait_procs(children, timeout=20)
    assert alive == []


def forged(task: str, arguments: list[str], content_type: str = "application/json") -> str:
    """A message as Celery writes them."""
    properties = {"delivery_info": {"exchange": "", "routing_key": "ssh.0"}, "delivery_tag": str(uuid.uuid4())}
    return json.dumps(
        {
            "body": base64.b64encode(json.dumps([arguments, {}, {}]).encode()).decode(),
            "content-type": content_type,
            "content-encoding": "utf-8",
            "headers": {"lang": "py", "task": task, "id": str(uuid.uuid4())},
            "properties": {**properties, "body_encoding": "base64", "delivery_mode": 2, "priority": 0},
        }
    )


def test_forged_messages_and_garbage_are_dropped_and_the_worker_lives(shared: Service) -> None:
    worker = shared.child("deploy.worker ssh.0").pid
    broker = redis.Redis(unix_socket_path=str(runtime_directory(shared.data) / "redis.sock"), socket_timeout=5)
    messages = [
        "not json",
        b"\xff\xfe",
        "[]",
        "{}",
        "[" * 100_000,
        '{"properties": []}',
        forged("os.system", ["id"]),
        forged("jobs.tasks.work", []),
        forged("jobs.tasks.work", ["no job", "ssh.0"]),
        forged("jobs.tasks.work", [str(uuid.uuid4()), "no queue"]),
        forged("jobs.tasks.work", [str(uuid.uuid4()), "ssh.0"]),
        forged("jobs.tasks.work", ["change", "ssh.x"]),
        forged("jobs.tasks.work", ["look", "control"]),
        forged("jobs.tasks.work", ["read", "9" * 100_000]),
        forged("jobs.tasks.work", [["change"], {"ssh.0": 1}]),
        forged("jobs.tasks.work", ["x", "y"], "application/x-python-serialize"),
    ]
    for _ in range(20):
        broker.lpush("ssh.0", *messages)
    wait_until(lambda: broker.llen("ssh.0") == 0, 30)
    time.sleep(1)
    assert shared.child("deploy.worker ssh.0").pid == worker


def test_a_second_one_on_the_same_data_is_refused_and_harms_nothing(shared: Service) -> None:
    second = shared.start()
    assert second.wait(20) == 75
    assert f"pid {shared.process.pid}" in shared.log.read_text()
    assert shared.healthz() == 200
    assert runtime_directory(shared.data).exists()


@pytest.mark.parametrize("part", ["deploy.serve", "deploy.worker ssh.0", "redis-server"])
def test_a_child_that_dies_is_started_again(shared: Service, part: str) -> None:
    before = shared.child(part)
    so_far = len(shared.log.read_text())
    before.kill()
    wait_until(lambda: any(part in name and child.pid != before.pid for name, child in shared.children().items()), 10)
    assert "starting it again" in shared.log.read_text()[so_far:]


def test_an_address_that_another_one_answers_on_is_refused_and_not_called_ready(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as other:
        listen = f"127.0.0.1:{other.getsockname()[1]}"
        environment = {"PATH": os.environ["PATH"], "MXFLEET_DATA": str(tmp_path), "MXFLEET_LISTEN": listen}
        done = subprocess.run(
            [sys.executable, "-m", "deploy.supervise"], cwd=ROOT, env=environment, capture_output=True, timeout=60
        )
    assert done.returncode == 78
    assert b"MXFLEET_LISTEN" in done.stderr
    assert b"ready at" not in done.stderr
    assert not (tmp_path / "admin-token").exists()


@pytest.mark.parametrize(("arguments", "status"), [(["--help"], 0), (["nonsense"], 64), (["demo", "more"], 64)])
@pytest.mark.parametrize("script", ["deploy/run"])
def test_the_script_explains_itself(script: str, arguments: list[str], status: int) -> None:
    done = subprocess.run([ROOT / script, *arguments], capture_output=True, text=True, cwd="/")
    assert done.returncode == status
    assert "usage: deploy/run" in done.stdout + done.stderr


def test_a_command_without_a_database_says_where_it_looked(tmp_path: Path) -> None:
    command = [sys.executable, ROOT / "manage.py", "audit_verify"]
    environment = os.environ | {"MXFLEET_DATA": str(tmp_path)}
    done = subprocess.run(command, capture_output=True, text=True, cwd=ROOT, env=environment)
    assert done.returncode == 1
    assert done.stderr.startswith(f"there are no tables of mxfleet in {tmp_path}/mxfleet.sqlite3; name the service's")


def test_the_test_script_refuses_a_directory_that_is_not_there() -> None:
    done = subprocess.run([ROOT / "tests/run", "nonsense"], capture_output=True, text=True, cwd="/")
    assert done.returncode == 64
    assert "no directory tests/nonsense" in done.stderr


def test_a_database_that_does_not_answer_is_one_line_and_status_69(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path}/is/not/there.sqlite3"
    environment = {"PATH": os.environ["PATH"], "MXFLEET_DATA": str(tmp_path), "MXFLEET_DATABASE_URL": url}
    done = subprocess.run(
        [sys.executable, "-m", "deploy.prepare"], cwd=ROOT, env=environment, capture_output=True, text=True, timeout=60
    )
    assert done.returncode == 69
    assert done.stderr == "mxfleet: MXFLEET_DATABASE_URL: unable to open database file\n"


def test_a_role_that_may_not_migrate_is_told_who_may_and_our_own_faults_stay_tracebacks() -> None:
    denied = ProgrammingError("must be owner of table jobs_job")
    denied.__cause__ = InsufficientPrivilege()
    assert "as the owner" in explained(denied)
    assert "as the owner" in explained(MigrationSchemaMissing("Unable to create the django_migrations table"))
    assert explained(ProgrammingError("syntax error")) == ""


@pytest.fixture
def demo_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """What `tests.lab.demo` must leave alone when it may not start: the data of one that runs. No lab is reached."""
    monkeypatch.setattr(demo, "RUN", tmp_path / "run")
    monkeypatch.setattr(demo, "objection", str)
    monkeypatch.setattr("deploy.logs.apply", lambda style: None)  # it would take caplog's handler away
    monkeypatch.setattr(demo, "_with_hosts", lambda data: pytest.fail("it went on"))
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    monkeypatch.setenv("MXFLEET_DATA", str(tmp_path))
    return tmp_path / "run"


def test_a_second_demo_leaves_the_first_one_alone(demo_alone: Path, caplog: pytest.LogCaptureFixture) -> None:
    demo_alone.mkdir()
    with only_one(demo_alone):
        assert demo.main() == 75
    assert f"another one runs on this machine (pid {os.getpid()})" in caplog.text


def test_a_demo_whose_port_is_taken_says_so_before_it_builds_anything(
    demo_alone: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        listen = f"127.0.0.1:{taken.getsockname()[1]}"
        monkeypatch.setenv("MXFLEET_LISTEN", listen)
        assert demo.main() == 78
    assert "Address already in use; right would be a free one" in caplog.text


def test_a_stop_of_the_demo_ends_all_that_builds_its_images() -> None:
    """Not only the process that it started: mmdebstrap would go on for minutes, and keep its mounts."""
    child = subprocess.Popen(["sh", "-c", "sleep 90 & echo $!; wait"], stdout=subprocess.PIPE, start_new_session=True)
    assert child.stdout is not None
    builder = psutil.Process(int(child.stdout.readline()))
    demo.end(child)
    assert child.poll() is not None
    assert not builder.is_running() or builder.status() == psutil.STATUS_ZOMBIE
