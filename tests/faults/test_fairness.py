"""Many waiting jobs of ten customers: none waits more than twice the mean of the others."""

from __future__ import annotations

import signal
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from statistics import mean

import pytest

from tests.faults import table
from tests.faults.host import Host
from tests.faults.plan import IS_LONG
from tests.faults.service import Caller, World, signal_all
from tests.lab.service import Json

CUSTOMERS = 10
HOSTS = 2
JOBS = {"queue.summary": 1000 if IS_LONG else 100, "queue.hold": 1000 if IS_LONG else 40}
WAITED = (
    "SELECT fleet_customer.slug, avg(extract(epoch FROM run.started_at - greatest(job.created_at, %s)))::float"
    " FROM jobs_run run JOIN jobs_job job ON job.id = run.job_id JOIN fleet_host host ON host.id = run.host_id"
    " JOIN fleet_customer ON fleet_customer.id = host.customer_id WHERE job.id = ANY(%s) GROUP BY 1"
)


@pytest.fixture(scope="module")
def callers(world: World, hosts: list[Host]) -> dict[str, Caller]:
    """Ten customers with two hosts each; some of these are the same machine, which no one can tell."""
    found = {}
    for number in range(CUSTOMERS):
        slug = f"customer{number}"
        found[slug] = world.customer(slug)
        for place in range(HOSTS):
            host = hosts[(number * HOSTS + place) % len(hosts)]
            world.enter(f"{slug}-mx{place}", "127.0.0.1", host.sshd.port, host.host_key, slug)
    names = [f"{slug}-mx{place}" for slug in found for place in range(HOSTS)]
    world.liken(hosts[0].name, names)
    return found


@pytest.mark.timeout(3600 if IS_LONG else 300)
@pytest.mark.parametrize("operation", JOBS)
def test_no_customer_waits_more_than_twice_as_long_as_the_others(
    world: World, hosts: list[Host], callers: dict[str, Caller], operation: str
) -> None:
    world.service.await_whole()
    stopped = world.service.workers()
    signal_all(stopped, signal.SIGSTOP)
    try:
        jobs = [job for slug, caller in callers.items() for job in _submitted(caller, slug, operation, hosts)]
        ((since,),) = world.service.sql("SELECT now()")
    finally:
        signal_all(stopped, signal.SIGCONT)
    ended = world.ended(jobs, 3000 if IS_LONG else 200)
    assert {job["state"] for job in ended} == {"succeeded"}
    waited = dict(world.service.sql(WAITED, since, [job["id"] for job in jobs]))
    worst = {slug: round(seconds / _others(waited, slug), 2) for slug, seconds in waited.items()}
    unfair = {slug: times for slug, times in worst.items() if times > 2}
    for host in hosts:
        host.clear()
    measured = f"mean wait {mean(waited.values()):.1f} s, the longest {max(worst.values())} times that of the others"
    table.note(f"{operation} of ten customers, all waiting at once", len(jobs), measured, str(unfair or ""))
    assert len(waited) == CUSTOMERS
    assert not unfair, waited


def _submitted(caller: Caller, slug: str, operation: str, hosts: Sequence[Host]) -> Sequence[Json]:
    """One customer's share, all of it before the next customer's: who comes last must not wait for all."""
    count = JOBS[operation] // CUSTOMERS
    first = int(slug.removeprefix("customer")) * HOSTS

    def submit(number: int) -> Json:
        params = {}
        if operation == "queue.hold":  # of one message of its own: a job that finds nothing never waits for the host
            sender = f"{slug}-{number}@bulk.example"
            hosts[(first + number % HOSTS) % len(hosts)].fill(1, sender)
            params = {"match": f"from:{sender}"}
        return caller.submit(operation, f"{slug}-mx{number % HOSTS}/postfix", **params)

    with ThreadPoolExecutor(4) as pool:
        return list(pool.map(submit, range(count)))


def _others(waited: dict[str, float], slug: str) -> float:
    return mean(seconds for other, seconds in waited.items() if other != slug)
