"""Changes that wait for a busy host are carried out in the order in which they were asked for."""

from __future__ import annotations

from collections.abc import Sequence

import pytest

from tests.faults import table
from tests.faults.host import SPEED, Host
from tests.faults.plan import IS_LONG, ROUNDS, dice
from tests.faults.service import World
from tests.lab.service import Json, await_true

TIMES = 100 if IS_LONG else ROUNDS
SLOW = 0.5
"""Seconds that each change of the map takes, so that the next one has to wait."""


@pytest.mark.timeout(3600 if IS_LONG else 300)
def test_of_changes_that_wait_for_a_busy_host_the_last_one_asked_for_counts(world: World, hosts: list[Host]) -> None:
    wrong: list[str] = []
    for begun in range(0, TIMES, len(hosts)):
        wrong += _changes(world, hosts[: TIMES - begun], begun)
    broken = f"{len(wrong)} times not the last one asked for" if wrong else ""
    table.note("block and unblock on a busy host, one right after the other", TIMES, "end state and API", broken)
    assert not wrong, "\n".join(wrong)


def _changes(world: World, hosts: Sequence[Host], begun: int) -> list[str]:
    """On each host at once: a slow block of another sender, then two or three changes of one sender's."""
    rng = dice("order", begun)
    senders = [f"{rng.getrandbits(40):010x}@bulk.example" for _ in hosts]
    wishes = [rng.choice([(True, False), (True, False, True)]) for _ in hosts]
    seen = [len(host.effects()) for host in hosts]
    for host in hosts:
        host.set_pause(SLOW)
    jobs = [_block(world, host, True, f"busy-{sender}") for host, sender in zip(hosts, senders, strict=True)]
    await_true(
        lambda: all(len(host.effects()) > before for host, before in zip(hosts, seen, strict=True)),
        60,
        "not every host became busy",
    )
    for host, sender, wanted in zip(hosts, senders, wishes, strict=True):
        jobs += [_block(world, host, each, sender) for each in wanted]
    ended = world.ended(jobs, 240)
    for host in hosts:
        host.set_pause(SPEED)
    said = [f"{job['operation']} {job['id']} is {job['state']}" for job in ended if job["state"] != "succeeded"]
    cases = zip(hosts, senders, wishes, strict=True)
    return said + [text for case in cases for text in _judged(world, *case)]


def _block(world: World, host: Host, is_wanted: bool, sender: str) -> Json:
    return world.alice.submit("sender.block" if is_wanted else "sender.unblock", host.instance, pattern=sender)


def _judged(world: World, host: Host, sender: str, wanted: Sequence[bool]) -> list[str]:
    """What is wrong in the end, on the host or in the API; at most one line for a host."""
    asked = " then ".join("block" if each else "unblock" for each in wanted)
    rows = [row for row in world.alice.all(f"blocks/?pattern={sender}") if row["wanted"]]
    if host.blocks(sender) == wanted[-1] == bool(rows):
        return []
    is_so = "blocked" if host.blocks(sender) else "not blocked"
    return [f"{host.name}: after {asked} {sender} is {is_so}, and the API says that {len(rows)} blocks are wanted"]
