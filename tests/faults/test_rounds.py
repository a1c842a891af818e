"""Purges while workers, database, Redis, leases and connections fail: nothing lost, doubled or claimed wrongly."""

from __future__ import annotations

import pytest

from tests.faults import table
from tests.faults.host import Host
from tests.faults.plan import IS_LONG, ROUNDS
from tests.faults.rounds import faulty, play
from tests.faults.service import World
from tests.faults.strikes import KINDS, STORM


@pytest.mark.timeout(600 if not IS_LONG else 7200)
def test_no_fault_makes_a_purge_lose_double_or_misreport_a_message(world: World, hosts: list[Host]) -> None:
    rounds = play(world, hosts, KINDS if IS_LONG else (STORM,))
    table.ROUNDS.extend(rounds)
    assert len(rounds) == ROUNDS
    assert not list(faulty(rounds)), "\n".join(faulty(rounds))
