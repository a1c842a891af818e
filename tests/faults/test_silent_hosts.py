"""Hosts that accept a connection and never speak hold up nobody but those who ask them."""

from __future__ import annotations

import socket
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest

from tests.faults import table
from tests.faults.host import SPEED, Host
from tests.faults.plan import IS_LONG
from tests.faults.service import Caller, World
from tests.lab.service import Json, await_true

SILENT = 500 if IS_LONG else 48
READINGS = 48
"""Jobs that read them: a worker has 16 threads and there are two workers, so no thread is left to others."""
SOON = 20.0
LOOK_WITHIN = 60.0

pytestmark = pytest.mark.timeout(900 if IS_LONG else 300)


@pytest.fixture(scope="module")
def silent(world: World, hosts: list[Host]) -> Iterator[list[str]]:
    """Names of registered hosts whose connections the kernel accepts and nobody ever serves."""
    with socket.socket() as listener:
        listener.bind(("0.0.0.0", 0))  # noqa: S104 - each host has an address of its own in 127.0.0.0/8
        listener.listen(4096)
        port = listener.getsockname()[1]
        names = [f"silent{number}" for number in range(SILENT)]
        with ThreadPoolExecutor(4) as pool:
            list(
                pool.map(
                    lambda number: world.enter(
                        names[number], f"127.1.{number // 200}.{number % 200 + 1}", port, hosts[0].host_key
                    ),
                    range(SILENT),
                )
            )
        yield names


@pytest.fixture(scope="module")
def other(world: World, hosts: list[Host], silent: list[str]) -> Caller:
    """Another customer, with a host that answers."""
    caller = world.customer("other")
    world.enter("other-mx", "127.0.0.1", hosts[-1].sshd.port, hosts[-1].host_key, "other")
    world.liken(hosts[0].name, ["other-mx"])
    return caller


@pytest.fixture
def readings(world: World, silent: list[str], other: Caller) -> Iterator[list[Json]]:
    """Jobs that hang, as many as there are threads and more, each on a share of the silent hosts; under way."""
    world.service.await_whole()
    jobs = [world.alice.submit("host.discover", {"hosts": silent[number::READINGS]}) for number in range(READINGS)]
    await_true(lambda: _running(world, jobs) >= 8, 30, "no reading began")
    time.sleep(1)  # as many as will begin together have begun
    yield jobs
    for job in jobs:
        world.alice.ask("POST", f"jobs/{job['id']}/cancel/", {})
    world.alice.all_ended(jobs, 120)


def _running(world: World, jobs: list[Json]) -> int:
    query = "SELECT count(*) FROM jobs_run WHERE state = 'running' AND job_id = ANY(%s)"
    ((count,),) = world.service.sql(query, [job["id"] for job in jobs])
    return int(count)


def test_who_asks_hosts_that_answer_is_served_while_others_wait_for_silent_ones(
    world: World, hosts: list[Host], other: Caller, readings: list[Json]
) -> None:
    """Another customer's reading and change end soon, and an unknown outcome is looked at in time."""
    hosts[-1].fill(1, "other@bulk.example")
    begun = time.monotonic()
    cut = [_cut_purge(world, host) for host in hosts[:4]]
    asked = [
        other.submit("queue.summary", "other-mx/postfix"),
        other.submit("queue.hold", "other-mx/postfix", match="from:other@bulk.example"),
    ]
    ended = other.all_ended(asked, 90)
    took = time.monotonic() - begun
    hosts[-1].clear()
    unknown = [job for job in cut if job]
    looked = [_seconds_to_look(world, job) for job in unknown]
    slow = [] if took <= SOON else [f"another's reading and change took {took:.0f} s"]
    slow += [f"an unknown outcome was not looked at within {LOOK_WITHIN} s" for seconds in looked if seconds is None]
    measured = f"another's jobs {took:.1f} s, first look {max(looked or [0], key=lambda s: s or 999)} s after unknown"
    table.note(f"{READINGS} readings of {SILENT} silent hosts", 1, measured, "; ".join(slow))
    assert {job["state"] for job in ended} == {"succeeded"}
    assert unknown, "no purge was cut"
    assert not slow, slow


def _cut_purge(world: World, host: Host) -> str | None:
    """A purge whose connection is cut in the middle; its id once its outcome is unknown, or None if it never began."""
    sender = f"cut-{time.monotonic_ns()}@bulk.example"
    before = len(host.effects())
    host.fill(8, sender)
    host.set_pause(0.3)
    job = world.alice.submit("queue.purge", host.instance, match=f"from:{sender}")
    until = time.monotonic() + 20
    while time.monotonic() < until and len(host.effects()) < before + 2:
        time.sleep(0.05)
    host.cut()
    host.set_pause(SPEED)
    return str(job["id"]) if len(host.effects()) >= before + 2 else None


def _seconds_to_look(world: World, job: str) -> float | None:
    """From the moment the outcome became unknown to the first look, seen from outside; None: none in time."""
    query = (
        "SELECT extract(epoch FROM now() - coalesce(unknown_at, started_at))::float, reconciled > 0 OR"
        " state NOT IN ('unknown', 'running') FROM jobs_run WHERE job_id = %s"
    )
    while True:
        ((seconds, is_looked_at),) = world.service.sql(query, job)
        if is_looked_at or seconds > LOOK_WITHIN:
            return round(seconds, 1) if is_looked_at else None
        time.sleep(0.2)
