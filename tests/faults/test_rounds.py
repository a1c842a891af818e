"""Purges while workers, database, Redis, leases and connections fail: nothing lost, doubled or claimed wrongly."""

from __future__ import annotations

import pytest

from tests.faults import table
from tests.faults.host import Host
from tests.faults.plan import IS_LONG, ROUNDS
from tests.faults.rounds import faulty, play
from tests.faults.service import World
from tests.faults.strikes import KINDS, STORM

TRIED = KINDS if IS_LONG else (STORM,)


@pytest.mark.timeout(3600 if IS_LONG else 300)
@pytest.mark.parametrize("kind", TRIED)
def test_no_fault_makes_a_purge_lose_double_or_misreport_a_message(
    world: World, hosts: list[Host], silent: list[str], kind: str
) -> None:
    rounds = play(world, hosts, kind, max(1, ROUNDS // len(TRIED)))
    table.ROUNDS.extend(rounds)
    assert not list(faulty(rounds)), "\n".join(faulty(rounds))
