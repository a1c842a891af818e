"""The real service of the fault rounds: supervisor, API, two SSH workers, control, Redis, on a real PostgreSQL."""

import os
import signal
import time
import uuid
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import httpx2
import psycopg

from tests.faults.host import Host
from tests.lab.service import Json, Person, Service, await_true
from tests.services import Postgres

CUSTOMER = "acme"
SHARDS = 2
PATIENCE = 60.0
"""Seconds for which a caller repeats a request while the database is away; the same Idempotency-Key each time."""
AN_HOUR_LATER = (
    "UPDATE jobs_run SET dispatched_at = dispatched_at - interval '1 hour',"
    " unknown_at = unknown_at - interval '1 hour', reconcile_at = now()"
    " FROM fleet_host WHERE jobs_run.host_id = fleet_host.id AND jobs_run.state = 'unknown'"
    " AND reconcile_at IS NOT NULL AND unknown_at > now() - interval '30 minutes' AND fleet_host.name = ANY(%s)"
)


class FaultService(Service):
    """As deploy/run starts it, with an Idempotency-Key's patience towards its database."""

    def __init__(self, directory: Path) -> None:
        super().__init__(directory)
        self.database = Postgres(outlives_crashes=True)
        self.key_file = directory / "keys"
        self.key_file.touch(mode=0o600)
        self.key_file.write_text(f"test {'A' * 43}=\n")

    def start(self) -> None:
        self.database.start()
        super().start()

    def stop(self) -> None:
        try:
            super().stop()
        finally:
            self.database.stop()

    def environment(self) -> dict[str, str]:
        return super().environment() | {
            "MXFLEET_DATABASE_URL": self.database.url,
            "MXFLEET_SECRET_KEY": "9tUq0nVdWk3RyeZb5HcXgMoA7LpJf2sT8vEiKxQwNzYuBhCj4G6",
            "MXFLEET_KEY_FILE": str(self.key_file),
            "MXFLEET_SHARDS": str(SHARDS),
            "MXFLEET_ALLOWED_NETWORKS": "127.0.0.0/8",
        }

    def sql(self, query: str, *arguments: Any) -> list[Any]:
        """The rows of a query, none for another statement; committed. Waits for a database that is away."""
        until = time.monotonic() + PATIENCE
        while True:
            try:
                with psycopg.connect(self.database.url, autocommit=True) as connection:
                    cursor = connection.execute(query, arguments)
                    return cursor.fetchall() if cursor.description else []
            except psycopg.OperationalError:
                if time.monotonic() > until:
                    raise
                time.sleep(0.3)

    def all_ended(self, jobs: Sequence[Json]) -> bool:
        query = "SELECT count(*) FROM jobs_job WHERE finished_at IS NULL AND id = ANY(%s)"
        return self.sql(query, [job["id"] for job in jobs]) == [(0,)]

    def put_forward(self, hosts: Iterable[str]) -> None:
        """Make it an hour later for the unknown outcomes on these hosts, where nothing can still be running.

        A verdict waits for minutes, until that is certain by the clock; from outside it can be seen.
        """
        self.sql(AN_HOUR_LATER, list(hosts))

    def workers(self) -> list[int]:
        """The pids of the SSH workers, in the order of their shards."""
        return [pid for shard in range(SHARDS) for pid in self.pids("deploy.worker", f"ssh.{shard}")]

    def is_whole(self) -> bool:
        return self._is_ready() and len(self.workers()) == SHARDS and len(self.pids("deploy.worker")) == SHARDS + 1

    def await_whole(self) -> None:
        """Until all children live again and the API says that it is ready."""
        await_true(self.is_whole, 90, lambda: f"the service does not recover: {self.log.read_text()[-3000:]}")


def signal_all(pids: Iterable[int], number: signal.Signals) -> None:
    for pid in pids:
        try:
            os.kill(pid, number)
        except ProcessLookupError:
            continue


class Caller(Person):
    """A person who asks again while the service cannot answer: 429, 5xx, no connection, or one that broke off."""

    def ask(self, method: str, path: str, body: Json = None, **options: Any) -> httpx2.Response:
        headers = {**(options.pop("headers", None) or {})}
        if method == "POST":
            headers.setdefault("Idempotency-Key", uuid.uuid4().hex)
        until = time.monotonic() + PATIENCE
        while True:
            try:
                answer = super().ask(method, path, body, headers=headers, **options)
                is_busy = answer.status_code == 409 and "idempotency_in_flight" in answer.text
                if not is_busy and answer.status_code != 429 and answer.status_code < 500:
                    return answer
                said = f"{answer.status_code} {answer.text[:500]}"
            except httpx2.HTTPError as error:
                said = repr(error)
            assert time.monotonic() < until, f"{method} {path} is not answered for {PATIENCE} s: {said}"
            time.sleep(0.3)


class World:
    """The service and its people. `silent`: registered hosts that accept connections and never speak."""

    def __init__(self, service: FaultService, key: Path) -> None:
        self.service = service
        self.key = key
        self.silent: list[str] = []
        self.admin = Caller(service.url, (service.data / "admin-token").read_text().strip())
        self.alice = self.customer(CUSTOMER)

    def customer(self, slug: str) -> Caller:
        """A customer with a credential, and its operator."""
        self.admin.post("customers/", {"slug": slug, "name": slug})
        self.admin.post("credentials/", {"name": slug, "customer": slug, "private_key": self.key.read_text()})
        return self.person(f"{slug}-operator", slug)

    def person(self, name: str, slug: str) -> Caller:
        self.admin.post("users/", {"username": name, "roles": [{"role": "operator", "customer": slug}]})
        return Caller(self.service.url, self.admin.post("tokens/", {"name": "faults", "user": name})["token"])

    def ended(self, jobs: Sequence[Json], seconds: float) -> list[Json]:
        """The jobs as they are once all have ended, or when the time is over."""
        until = time.monotonic() + seconds
        while not self.service.all_ended(jobs) and time.monotonic() < until:
            time.sleep(0.3)
        return [self.admin.get(f"jobs/{job['id']}/") for job in jobs]

    def register(self, hosts: Sequence[Host], slug: str = CUSTOMER) -> None:
        """Enter hosts with their keys. The first is discovered, and as all are alike the others get what it has."""
        for host in hosts:
            self.enter(host.name, "127.0.0.1", host.sshd.port, host.host_key, slug)
        first, *others = (host.name for host in hosts)
        self.admin.ended(self.admin.wait(self.admin.post(f"hosts/{first}/discover/", {}, Prefer="wait=30"), 90))
        self.liken(first, others)

    def liken(self, first: str, others: Sequence[str]) -> None:
        """Give registered hosts what discovery learnt of the first one."""
        self.service.sql(
            "UPDATE fleet_host SET facts = first.facts, status = 'ok' FROM fleet_host first"
            " WHERE first.name = %s AND fleet_host.name = ANY(%s)", first, others,
        )  # fmt: skip
        columns = (
            "name, former_name, mta, version, config_dir, queue_dirs, front_ends, options, enabled, "
            "created_at, updated_at"
        )
        shown = ", ".join(f"i.{column}" for column in columns.split(", "))
        self.service.sql(
            f"INSERT INTO fleet_instance (host_id, {columns}) SELECT h.id, {shown} FROM fleet_instance i"
            " JOIN fleet_host f ON f.id = i.host_id, fleet_host h WHERE f.name = %s AND h.name = ANY(%s)",
            first, others,
        )  # fmt: skip

    def read_silent(self, jobs: int) -> list[Json]:
        """Jobs that hang, each on a share of the silent hosts."""
        return [self.alice.submit("host.discover", {"hosts": self.silent[number::jobs]}) for number in range(jobs)]

    def cancel(self, jobs: Sequence[Json], seconds: float) -> None:
        """Cancel jobs and wait for their ends."""
        for job in jobs:
            self.alice.ask("POST", f"jobs/{job['id']}/cancel/", {})
        self.ended(jobs, seconds)

    def enter(self, name: str, address: str, port: int, host_key: str, slug: str = CUSTOMER) -> None:
        body = {"name": name, "customer": slug, "address": address, "port": port, "username": "root"}
        self.admin.post("hosts/", body | {"credential": slug, "become": "none", "host_key": host_key})
