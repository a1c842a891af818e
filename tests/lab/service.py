"""The real service for lab tests, all of it as `deploy/run` starts it, and the people who use it."""

from __future__ import annotations

import json
import logging
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx2
import pytest

from tests.lab.config import OUTSIDER, USER
from tests.lab.lab import Host, Lab
from tests.lab.waiting import await_true, tries
from tests.services import start_tied

__all__ = ["people", "service"]

HOSTS = ("pf1", "pf2", "pf3")
CUSTOMER = "acme"
RECONCILE_SECONDS = 5
ENDED = frozenset({"planned", "succeeded", "partly_failed", "failed", "rejected", "expired", "cancelled"})
SETTLED = ENDED | {"awaiting_approval"}
Json = Any


class Service:
    """The supervisor and its children, on a data directory and a port of their own."""

    def __init__(self, directory: Path) -> None:
        self.data = directory / "data"
        self.log = directory / "log"
        self.url = f"http://127.0.0.1:{_free_port()}"
        self.process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Start it and return once it is ready: database, broker and a live worker."""
        self.launch()
        await_true(self._is_ready, 120, lambda: f"the service is not ready: {self.log.read_text()[-3000:]}")

    def launch(self) -> None:
        """Start it, and wait for nothing."""
        with self.log.open("ab") as log:
            argv = [sys.executable, "-m", "deploy.supervise"]
            self.process = start_tied(argv, env=self.environment(), stdout=log, stderr=log)

    def environment(self) -> dict[str, str]:
        kept = {name: value for name, value in os.environ.items() if not name.startswith("MXFLEET_")}
        return kept | {
            "MXFLEET_DATA": str(self.data),
            "MXFLEET_LISTEN": self.url.removeprefix("http://"),
            "MXFLEET_SHARDS": "2",
            "MXFLEET_RECONCILE_INTERVAL": f"{RECONCILE_SECONDS}s",
        }

    def manage(self, *arguments: str) -> str:
        """What a management command of this installation prints."""
        command = [sys.executable, "manage.py", *arguments]
        return subprocess.run(command, env=self.environment(), capture_output=True, text=True, check=True).stdout

    def first_token(self, username: str) -> str:
        """A token that counts as made by that person."""
        path = self.data / f"{username}-token"
        self.manage("first_token", username, "--token-file", str(path))
        return path.read_text().strip()

    def _is_ready(self) -> bool:
        assert self.process is not None
        assert self.process.poll() is None, f"the service ended: {self.log.read_text()[-3000:]}"
        try:
            return httpx2.get(f"{self.url}/readyz", timeout=5).status_code == 200
        except httpx2.HTTPError:
            return False

    def stop(self) -> None:
        if self.process:
            self.process.terminate()
            self.process.wait(30)

    def pids(self, *words: str) -> list[int]:
        """The supervisor's children whose command line holds all these words."""
        assert self.process is not None
        children = Path(f"/proc/{self.process.pid}/task/{self.process.pid}/children").read_text().split()
        return [int(pid) for pid in children if all(word in _command_line(pid) for word in words)]

    def kill(self, *words: str) -> list[int]:
        """kill -9 of these children; the supervisor starts them again after a second or more."""
        found = self.pids(*words)
        for pid in found:
            os.kill(pid, signal.SIGKILL)
        return found


def _command_line(pid: str) -> list[str]:
    """Its words, the first without its directory. Redis writes a title over them, with spaces and its full path."""
    try:
        first, *others = Path(f"/proc/{pid}/cmdline").read_text().replace(" ", "\0").split("\0")
    except OSError:
        return []
    return [first.rpartition("/")[2], *others]


def _free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as server:
        return int(server.getsockname()[1])


class Person:
    """Somebody with a token. What is refused fails the test, unless `ask` is used."""

    def __init__(self, url: str, token: str) -> None:
        logging.getLogger("httpx2").setLevel(logging.WARNING)
        self.token = token
        self.http = httpx2.Client(base_url=f"{url}/api/v1/", headers={"Authorization": f"Bearer {token}"}, timeout=60)

    def ask(self, method: str, path: str, body: Json = None, **options: Any) -> httpx2.Response:
        """The answer, whatever it is."""
        return self.http.request(method, path, json=body, **options)

    def _good(self, method: str, path: str, body: Json = None, **options: Any) -> Json:
        answer = self.ask(method, path, body, **options)
        assert answer.is_success, f"{method} {path} {str(body)[:500]}: {answer.status_code} {answer.text[:2000]}"
        return answer.json()

    def get(self, path: str) -> Json:
        return self._good("GET", path)

    def post(self, path: str, body: Json, **headers: str) -> Json:
        return self._good("POST", path, body, headers=headers)

    def patch(self, path: str, body: Json) -> Json:
        return self._good("PATCH", path, body)

    def all(self, path: str) -> list[Json]:
        """Every row of a list, however many pages it has."""
        rows: list[Json] = []
        following: str | None = f"{path}{'&' if '?' in path else '?'}limit=500"
        while following:
            page = self.get(following)
            rows += page["results"]
            following = page["next"]
        return rows

    def submit(self, operation: str, target: str | Json, **params: Json) -> Json:
        """A job that was just asked for. `target`: "pf1/postfix", "pf1" or the JSON of a target."""
        return self.post("jobs/", asked(operation, target, params))

    def job(self, operation: str, target: str | Json, seconds: float = 60, **params: Json) -> Json:
        """A job that has ended or awaits people."""
        return self.wait(self.post("jobs/", asked(operation, target, params), Prefer="wait=30"), seconds)

    def run(self, operation: str, target: str | Json, seconds: float = 60, **params: Json) -> Json:
        """The only run of a job that succeeded."""
        job = self.job(operation, target, seconds, **params)
        return self.only_run(self.ended(job))

    def wait(self, job: Json, seconds: float = 60, until: frozenset[str] = SETTLED, pause: float = 0.2) -> Json:
        for _ in tries(seconds, pause):
            if job["state"] in until:
                return job
            job = self.get(f"jobs/{job['id']}/")
        raise AssertionError(f"still {job['state']}: {job} {self.runs(job)}")

    def ended(self, job: Json, state: str = "succeeded") -> Json:
        """The job, which has to have ended in this state."""
        assert job["state"] == state, f"{job['operation']} is {job['state']}: {job['error']} {self.said(job)}"
        return job

    def said(self, job: Json) -> list[Any]:
        """What its runs said, for messages of failing tests."""
        return [(run["instance"] or run["host"], run["state"], run["error"]) for run in self.runs(job)]

    def runs(self, job: Json) -> list[Json]:
        return self.all(f"jobs/{job['id']}/runs/")

    def only_run(self, job: Json) -> Json:
        (run,) = self.runs(job)
        return run

    def outcomes(self, job: Json) -> dict[str, str]:
        """What became of each message of a job with one run."""
        rows = self.all(f"jobs/{job['id']}/runs/{self.only_run(job)['id']}/messages/")
        return {row["queue_id"]: row["outcome"] for row in rows}

    def approve(self, job: Json) -> Json:
        return self.post(f"jobs/{job['id']}/approve/", {"digest": job["plan"]["digest"], "comment": "seen the plan"})

    def undo(self, job: Json, seconds: float = 60) -> Json:
        return self.wait(self.post(f"jobs/{job['id']}/undo/", {"reason": "lab test"}, Prefer="wait=30"), seconds)

    def entries(self, instance: str, match: str = "ALL", **params: Json) -> list[Json]:
        """What queue.list shows."""
        return list(self.run("queue.list", instance, match=match, **params)["result"]["entries"])


def asked(operation: str, target: str | Json, params: Json) -> Json:
    """A job's body."""
    if isinstance(target, str):
        target = {"instances" if "/" in target else "hosts": [target]}
    return {"operation": operation, "target": target, "params": params, "reason": "lab test"}


class People:
    """The cast: alice requests, bob approves, charlie is another customer's, dana may only read."""

    def __init__(self, service: Service) -> None:
        self.service = service
        self.admin = Person(service.url, (service.data / "admin-token").read_text().strip())
        for slug in (CUSTOMER, "other"):
            self.admin.post("customers/", {"slug": slug, "name": slug})
        self.alice = self.person("alice", "operator", CUSTOMER)
        self.bob = self.person("bob", "approver", CUSTOMER)
        self.charlie = self.person("charlie", "operator", "other")
        self.dana = self.person("dana", "viewer", CUSTOMER)

    def person(self, name: str, role: str, customer: str) -> Person:
        """Somebody new. Only who approves needs a token of their own, which takes a second."""
        self.admin.post("users/", {"username": name, "roles": [{"role": role, "customer": customer}]})
        if role == "approver":
            return Person(self.service.url, self.service.first_token(name))
        return Person(self.service.url, self.admin.post("tokens/", {"name": "lab", "user": name})["token"])

    def register(self, host: Host, name: str = "", **fields: Json) -> Json:
        """A host with its scanned key, which is the one that the lab gave it; and what discovery said."""
        name = name or host.name
        body = {"name": name, "customer": CUSTOMER, "address": host.address, "username": USER, "credential": "lab"}
        self.admin.post("hosts/", body | {"become": "sudo"} | fields)
        scanned = self.admin.post(f"hosts/{name}/scan-host-key/", {})["host_key"]
        assert scanned.split()[:2] == host.host_key.split()
        self.admin.patch(f"hosts/{name}/", {"host_key": scanned})
        return self.discover(name)

    def discover(self, name: str) -> Json:
        return self.admin.wait(self.admin.post(f"hosts/{name}/discover/", {}, Prefer="wait=30"))

    def agreed(self, job: Json, seconds: float = 60) -> Json:
        """The job once bob has agreed to its plan and it has ended."""
        assert job["state"] == "awaiting_approval", f"{job['state']}: {self.alice.said(job)}"
        self.bob.approve(job)
        return self.alice.wait(job, seconds, ENDED)

    def changed(self, operation: str, target: str | Json, seconds: float = 60, **params: Json) -> Json:
        """alice's job, agreed to by bob where the policy wants that, ended whatever way."""
        job = self.alice.job(operation, target, seconds, **params)
        return self.agreed(job, seconds) if job["state"] == "awaiting_approval" else job


class Queue:
    """The outer Postfix instance of a host, looked at with root's own eyes."""

    def __init__(self, host: Host, instance: str) -> None:
        self.host = host
        self.instance = instance
        self.name = instance.rpartition("/")[2]
        self.config = f"/etc/{self.name}"
        self.spool = f"/var/spool/{self.name}"

    def inject(
        self, count: int = 1, sender: str | bytes = "a@bulk.example", to: str = "r{i}@defer.test", **more: Json
    ) -> None:
        """Send messages and wait until the queue manager has tried them all once."""
        before = self.deferred()
        found = self.host.inject(n=count, sender=sender, recipients=(to,), **more)
        assert found.accepted == count, found.summary()
        await_true(lambda: self.deferred() == before + count, 60, "not all are deferred")

    def deferred(self) -> int:
        """How many messages are deferred, for who waits for them: by names alone, where postqueue reads every file."""
        return int(self.host.sh(f"find {self.spool}/deferred -type f | wc -l"))

    def listed(self, state: str = "") -> list[Json]:
        """What postqueue says, of one queue or of all of them."""
        rows = [json.loads(line) for line in self.host.sh(f"postqueue -c {self.config} -j").splitlines()]
        return [row for row in rows if state in ("", row["queue_name"])]

    def ids(self, state: str = "") -> set[str]:
        return {row["queue_id"] for row in self.listed(state)}

    def files(self) -> dict[str, tuple[str, str]]:
        """Queue ID -> (queue, SHA-256 of the queue file)."""
        found = "find deferred hold active incoming -type f -exec sha256sum {} +"
        lines = self.host.sh(f"cd {self.spool} && {found}").splitlines()
        rows = [line.split() for line in lines]
        return {path.rpartition("/")[2]: (path.partition("/")[0], digest) for digest, path in rows}

    def times(self) -> dict[str, str]:
        """Queue ID -> last change of the queue file, in nanoseconds."""
        lines = self.host.sh(f"cd {self.spool} && find deferred hold -type f -printf '%f %C@ %p\\n'").splitlines()
        return {line.split()[0]: line for line in lines}

    def hold(self, queue_id: str) -> None:
        """As the host's administrator would."""
        self.host.sh(f"postsuper -c {self.config} -h {queue_id}")

    def knock(self, sender: str, to: str = "r@ok.test") -> list[str]:
        """What a stranger hears who says MAIL FROM and RCPT."""
        tried = self.host.inject(sender=sender, recipients=(to,), stop_at="rcpt", source=OUTSIDER)
        return tried.errors or ["250"]

    def config_files(self) -> str:
        return self.host.sh(f"cd {self.config}; find . -type f ! -name '*.mxfleet-2*' | sort | xargs sha256sum")


def fresh(lab: Lab, instance: str) -> Queue:
    """The instance's host as freshly started, and the sink as at the beginning."""
    host = lab.host(instance.partition("/")[0])
    host.reset()
    lab.sink.reset()
    return Queue(host, instance)


@pytest.fixture(scope="session")
def service(lab: Lab, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    """The running product. What it wrote stays in pytest's temporary directory."""
    found = Service(tmp_path_factory.mktemp("service"))
    try:
        found.start()
        yield found
    finally:
        found.stop()


@pytest.fixture(scope="session")
def people(service: Service, lab: Lab) -> People:
    """Everybody, and the three hosts registered with confirmed keys and discovered."""
    lab.reset(*HOSTS)
    lab.sink.reset()
    found = People(service)
    key = lab.host(HOSTS[0]).private_key
    found.admin.post("credentials/", {"name": "lab", "customer": CUSTOMER, "private_key": key})
    for name in HOSTS:
        found.admin.ended(found.register(lab.host(name)))
    return found
