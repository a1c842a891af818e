"""What a purge put away on real hosts is found there, at its place, by every adapter; and the same host proves it."""

import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

import pytest

from fleet import match
from fleet.mta.adapter import adapter_for
from fleet.mta.host.discovery import discover_host
from fleet.mta.operations import QueueList, QueuePurge, Selection
from fleet.mta.records import Context
from fleet.mta.steps import Steps
from fleet.ssh.endpoint import AddressPolicy, Endpoint
from fleet.ssh.engine import Engine, Request
from tests.lab.lab import Lab
from tests.lab.service import await_true

pytestmark = pytest.mark.lab
JOB = "01998b5e-7d2a-7c3e-9f10-2b8d4c6e1f33"
INSTANCES = ("pf1/postfixEXT", "sm1/sendmail", "qm1/qmail", "ex1/exim", "ex3/exim", "os1/opensmtpd")
ALL = match.parse("ALL")


@pytest.fixture(scope="module")
def engine() -> Iterator[Engine]:
    found = Engine(AddressPolicy())
    yield found
    found.close()


@pytest.mark.parametrize("name", INSTANCES)
def test_what_a_purge_put_away_is_found_and_proved(lab: Lab, engine: Engine, name: str) -> None:
    host = lab.host(name.partition("/")[0])
    host.reset()
    lab.sink.reset()
    key = host.private_key.encode()
    endpoint = Endpoint(host.name, host.address, 22, host.user, key, host_key=host.host_key, become="sudo")

    def carry(steps: Callable[[], Steps[Any]], *, until_plan: bool = False) -> Any:
        [[outcome]] = list(engine.outcomes([Request("one", endpoint, steps, until_plan, 150)]))
        assert outcome.error is None, outcome.error
        return outcome.value

    [instance] = [each for each in carry(lambda: discover_host(host.name, time.time))[1] if each.id == name]
    adapter: Any = adapter_for(instance.mta)
    assert carry(lambda: adapter.in_quarantine(instance)).found == ()
    assert host.inject(n=3, sender="news@bulk.example", recipients=("r{i}@defer.test",)).accepted == 3

    def deferred() -> bool:
        told = carry(lambda: adapter.queue_list(instance, QueueList(ALL), Context(now=time.time())))
        return [entry["state"] for entry in told.data["entries"]] == ["deferred"] * 3

    await_true(deferred, 60, "not all are deferred")
    purge, context = QueuePurge(Selection(ALL)), Context(now=time.time(), job=JOB)
    plan = carry(lambda: adapter.queue_purge(instance, purge, context), until_plan=True)
    places = carry(lambda: adapter.queue_purge(instance, purge, context)).data["places"]
    assert len(places) == 3
    there = carry(lambda: adapter.in_quarantine(instance))
    assert {each.queue_id: each.place for each in there.found} == places
    assert {each.job for each in there.found} == {adapter.quarantine_mark(JOB)}
    assert (there.more, there.odd) == (0, 0)
    one = replace(context, frozen=plan.selected[:1])
    proved = carry(lambda: adapter.read_back(instance, purge, one)).data["places"]
    assert proved == {each.queue_id: places[each.queue_id] for each in plan.selected[:1]}
