"""Who logs in next: lanes take turns, hosts that hang come last, and nobody keeps a place for ever."""

import asyncio
from collections.abc import Collection

import pytest

from fleet.ssh import gate as gate_module
from fleet.ssh.gate import Gate, Lane


class Crowd:
    """Logins that come at the gate one after the other; `entered` has their names in the order they got in."""

    def __init__(self, places: int) -> None:
        self.gate = Gate(places)
        self.entered: list[str] = []
        self.tasks: dict[str, asyncio.Task[None]] = {}

    async def comes(self, name: str, lanes: Collection[Lane], *, is_suspect: bool = False, stays: bool = False) -> None:
        async def stay() -> None:
            async with self.gate.place(lanes, is_suspect):
                self.entered.append(name)
                if stays:
                    await asyncio.Event().wait()

        self.tasks[name] = asyncio.create_task(stay())
        await settled()

    async def goes(self, name: str) -> None:
        self.tasks[name].cancel()
        await settled()


async def settled() -> None:
    for _ in range(20):
        await asyncio.sleep(0)


async def test_a_lane_does_not_wait_behind_anothers_crowd() -> None:
    crowd = Crowd(1)
    await crowd.comes("first", [Lane.READ], stays=True)
    for number in range(20):
        await crowd.comes(f"read{number}", [Lane.READ])
    await crowd.comes("change", [Lane.CHANGE])
    await crowd.comes("look", [Lane.LOOK])
    crowd.tasks.pop("first").cancel()
    await asyncio.gather(*crowd.tasks.values())
    assert {"change", "look"} <= set(crowd.entered[1:4])
    assert len(crowd.entered) == 23


async def test_a_host_that_hung_comes_after_those_that_did_not() -> None:
    crowd = Crowd(1)
    await crowd.comes("first", [Lane.READ], stays=True)
    await crowd.comes("hung", [Lane.READ], is_suspect=True)
    await crowd.comes("well", [Lane.READ])
    await crowd.comes("well too", [Lane.READ])
    await crowd.goes("first")
    assert crowd.entered == ["first", "well", "well too", "hung"]


async def test_a_login_that_another_lane_wants_too_is_hurried() -> None:
    crowd = Crowd(1)
    await crowd.comes("first", [Lane.READ], stays=True)
    for number in range(5):
        await crowd.comes(f"read{number}", [Lane.READ])
    wanted = {Lane.READ}
    await crowd.comes("wanted", wanted)
    wanted.add(Lane.CHANGE)
    await crowd.goes("first")
    assert "wanted" in crowd.entered[1:3]


async def test_one_that_waits_for_its_host_gives_its_place_back_and_goes_on(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gate_module, "HOLD", 0.05)
    crowd = Crowd(2)
    for name in "abcdef":
        await crowd.comes(name, [Lane.READ], stays=True)
    assert crowd.entered == ["a", "b"]
    async with asyncio.timeout(5):
        while len(crowd.entered) < 6:
            await asyncio.sleep(0.01)
    assert not any(task.done() for task in crowd.tasks.values())
    for name in "abcdef":
        await crowd.goes(name)
    for name in "xyz":
        await crowd.comes(name, [Lane.READ], stays=True)
    assert crowd.entered[6:] == ["x", "y"]


async def test_one_that_goes_while_it_waits_takes_no_place_along() -> None:
    crowd = Crowd(1)
    await crowd.comes("first", [Lane.READ], stays=True)
    await crowd.comes("impatient", [Lane.READ])
    await crowd.comes("patient", [Lane.READ], stays=True)
    crowd.tasks["first"].cancel()
    await crowd.goes("impatient")
    assert crowd.entered == ["first", "patient"]
    await crowd.goes("patient")
    await crowd.comes("last", [Lane.READ])
    assert crowd.entered[-1] == "last"
