"""A worker that is there and does nothing is missing for readiness, however well the others are."""

from __future__ import annotations

import signal

import httpx2

from tests.faults import table
from tests.faults.service import World, signal_all
from tests.lab.service import await_true

AGED = "UPDATE jobs_workerliveness SET at = at - interval '31 seconds'"


def test_readyz_names_the_queues_of_workers_that_are_stopped_until_they_go_on(world: World) -> None:
    world.service.await_whole()
    workers = world.service.workers()
    signal_all(workers, signal.SIGSTOP)
    try:
        world.service.sql(AGED)  # as if half a minute had gone by; who lives says so again
        wanted = "that it lives: ssh.0, ssh.1"
        await_true(lambda: wanted in _detail(world), 30, lambda: f"not named: {_detail(world)}")
    finally:
        signal_all(workers, signal.SIGCONT)
    await_true(lambda: not _detail(world), 30, lambda: f"not ready again: {_detail(world)}")
    table.note("both SSH workers stopped", 1, "readyz named their queues, and was 200 again after they went on")


def _detail(world: World) -> str:
    """What readyz complains of, empty when it is 200."""
    answer = httpx2.get(f"{world.service.url}/readyz", timeout=10)
    return "" if answer.status_code == 200 else str(answer.json()["detail"])
