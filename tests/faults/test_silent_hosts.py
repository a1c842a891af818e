"""Hosts that accept a connection and never speak hold up nobody but those who ask them."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from tests.faults import table
from tests.faults.host import SPEED, Host
from tests.faults.plan import IS_LONG
from tests.faults.service import Caller, World
from tests.lab.service import Json, await_true

READINGS = 48
"""Jobs that read them: a worker has 16 threads and there are two workers, so no thread is left to others."""
PURGES = 4
SOON = 20.0
LOOK_WITHIN = 60.0

pytestmark = pytest.mark.timeout(900 if IS_LONG else 300)


@pytest.fixture(scope="module")
def other(world: World, hosts: list[Host], silent: list[str]) -> Caller:
    """Another customer, with a host that answers."""
    caller = world.customer("other")
    world.enter("other-mx", "127.0.0.1", hosts[-1].sshd.port, hosts[-1].host_key, "other")
    world.liken(hosts[0].name, ["other-mx"])
    return caller


@contextmanager
def readings(world: World) -> Iterator[None]:
    """Jobs that hang, more than there are threads, each on a share of the silent hosts; under way."""
    jobs = world.read_silent(READINGS)
    await_true(lambda: _begun(world, jobs) >= 4, 30, "no reading began")
    time.sleep(1)  # as many as will begin together have begun
    try:
        yield
    finally:
        world.cancel(jobs, 120)


def _begun(world: World, jobs: list[Json]) -> int:
    query = "SELECT count(*) FROM jobs_run WHERE state <> 'pending' AND job_id = ANY(%s)"
    ((count,),) = world.service.sql(query, [job["id"] for job in jobs])
    return int(count)


def test_who_asks_hosts_that_answer_is_served_while_others_wait_for_silent_ones(
    world: World, hosts: list[Host], silent: list[str], other: Caller
) -> None:
    """Another customer's reading and change end soon, and an unknown outcome is looked at in time."""
    world.service.await_whole()
    purges = _slow_purges(world, hosts[:PURGES])
    hosts[-1].fill(1, "other@bulk.example")
    with readings(world):
        begun = time.monotonic()
        asked = [
            other.submit("queue.summary", "other-mx/postfix"),
            other.submit("queue.hold", "other-mx/postfix", match="from:other@bulk.example"),
        ]
        for host in hosts[:PURGES]:
            host.cut()
            host.set_pause(SPEED)
        cut = time.monotonic()
        ended = world.ended(asked, 60)
        took = time.monotonic() - begun
        looked = [_seconds_to_look(world, job, cut) for job in purges]
    hosts[-1].clear()
    slow = [] if took <= SOON else [f"another's reading and change took {took:.0f} s"]
    late = looked.count(None)
    slow += [f"{late} unknown outcomes were not looked at within {LOOK_WITHIN:.0f} s"] if late else []
    first = max((seconds for seconds in looked if seconds is not None), default=None)
    measured = f"another's jobs {took:.1f} s, last first look {first} s after the cut"
    table.note(f"{READINGS} readings of {len(silent)} silent hosts", 1, measured, "; ".join(slow))
    assert not slow, slow
    assert {job["state"] for job in ended} == {"succeeded"}


def _slow_purges(world: World, hosts: list[Host]) -> list[str]:
    """Purges in the middle of their work, slow enough to be there still when the readings are under way."""
    seen = [len(host.effects()) for host in hosts]
    jobs = []
    for number, host in enumerate(hosts):
        host.fill(15, f"cut{number}@bulk.example")
        host.set_pause(1.0)
        jobs.append(world.alice.submit("queue.purge", host.instance, match=f"from:cut{number}@bulk.example"))
    await_true(
        lambda: all(len(host.effects()) > before for host, before in zip(hosts, seen, strict=True)),
        60,
        "not every purge began",
    )
    return [job["id"] for job in jobs]


def _seconds_to_look(world: World, job: str, cut: float) -> float | None:
    """From the cut to the first look at the outcome that it made unknown, seen from outside; None: none in time."""
    query = "SELECT reconciled > 0 OR state NOT IN ('unknown', 'running') FROM jobs_run WHERE job_id = %s"
    while True:
        ((is_looked_at,),) = world.service.sql(query, job)
        seconds = time.monotonic() - cut
        if is_looked_at or seconds > LOOK_WITHIN:
            return round(seconds, 1) if is_looked_at else None
        time.sleep(0.2)
