"""Requests take turns: never too many at once, and nobody waits long behind another one's burst."""

import asyncio
from typing import Any

import pytest

from api import callers
from api.callers import caller_of, digest_of, note_good
from api.turns import Turns, in_turns


class Work:
    """Requests that are at work until they are told to end, and who was served."""

    def __init__(self, total: int, each: int) -> None:
        self.turns = Turns(total, each)
        self.served: list[str] = []
        self.ending: list[asyncio.Event] = []
        self.tasks: list[asyncio.Task[None]] = []

    async def ask(self, caller: str, count: int = 1) -> None:
        """So many requests of his, as far as they come now."""
        self.tasks += [asyncio.create_task(self._request(caller)) for _ in range(count)]
        await settled()

    async def _request(self, caller: str) -> None:
        async with self.turns.turn(caller):
            self.served.append(caller)
            end = asyncio.Event()
            self.ending.append(end)
            await end.wait()

    async def end(self, count: int) -> None:
        """Let the oldest ones end, one after the other."""
        for _ in range(count):
            self.ending.pop(0).set()
            await settled()


async def settled() -> None:
    """Everything that can go on has gone on."""
    for _ in range(10):
        await asyncio.sleep(0)


async def test_so_many_are_at_work_at_once_and_half_of_them_one_callers() -> None:
    work = Work(4, 2)
    await work.ask("a", 5)
    assert work.served == ["a"] * 2
    await work.ask("b", 5)
    assert work.served == ["a"] * 2 + ["b"] * 2
    await work.ask("c")
    assert len(work.served) == 4
    await work.end(7)
    assert sorted(work.served) == ["a"] * 5 + ["b"] * 5 + ["c"]


async def test_who_comes_behind_a_burst_has_the_next_turn() -> None:
    work = Work(2, 2)
    await work.ask("burst", 100)
    await work.ask("other")
    await work.end(2)
    assert "other" in work.served


async def test_who_leaves_before_or_in_his_turn_takes_none_with_him() -> None:
    work = Work(1, 1)
    await work.ask("a", 3)
    work.tasks[1].cancel()
    await settled()
    work.tasks[0].cancel()
    await settled()
    assert len(work.served) == 2  # the third has the turn
    work.ending[1].set()
    await work.ask("b")
    assert work.served[-1] == "b"


async def test_who_is_cancelled_at_the_moment_of_his_turn_gives_it_on() -> None:
    work = Work(1, 1)
    await work.ask("a", 3)
    work.ending[0].set()
    work.tasks[1].cancel()  # seen by the first one's end before he himself notices
    await settled()
    assert len(work.served) == 2
    assert not work.tasks[2].done()


def request(path: str = "/", method: str = "POST", **headers: str) -> dict[str, Any]:
    pairs = [(name.encode(), value.encode()) for name, value in headers.items()]
    return {"path": path, "method": method, "headers": pairs, "client": ("::1", 5)}


@pytest.mark.parametrize(
    ("first", "second", "is_served"),
    [
        (request(authorization="Bearer x"), request(authorization="Bearer y"), True),
        (request(authorization="Bearer x"), request(authorization="Bearer x"), False),
        (request(authorization="Bearer x"), request(authorization="bearer   x "), False),
        (request(authorization="Bearer made up"), request(authorization="Bearer made up too"), False),
        (request(authorization="Bearer made up"), request(authorization="Bearer x"), True),
        (request(), request(), False),
        (request(), request(authorization="Bearer x"), True),
        (request(), request("/healthz", "GET"), True),
        (request(), request("/readyz", "GET"), True),
        (request("/api/v1/jobs/", prefer="Wait=9"), request(), True),
        (request("/api/v1/hosts/mx1/discover/", prefer="wait=9"), request("/api/v1/jobs/"), True),
        (request("/api/v1/hosts/mx1/scan-host-key/", prefer="wait=9"), request(), True),
        (request("/api/v1/hosts/mx1/scan-host-key/"), request("/api/v1/audit/verify/", "GET"), False),
        (request("/api/v1/audit/verify/", "GET"), request("/jobs/1/events/"), True),
        (request("/api/v1/audit/export/", "GET"), request(), False),
        (request("/api/v1/jobs/", "GET", prefer="wait=9"), request(), False),
        (request("/jobs/1/events/"), request(), True),
        (request("/jobs/1/events/"), request("/api/v1/jobs/1/undo/", prefer="respond-async, wait=9"), False),
    ],
)
async def test_a_caller_is_his_token_or_address_and_those_that_will_wait_hold_up_nobody(
    first: Any, second: Any, is_served: bool
) -> None:
    for secret in (b"x", b"y"):
        note_good(digest_of(secret))
    served: list[Any] = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        served.append(scope)
        await asyncio.Event().wait()

    one = in_turns(app, Turns(2, 1), Turns(2, 1), Turns(2, 1))
    tasks = [asyncio.create_task(one(scope, None, None)) for scope in (first, second)]  # type: ignore[arg-type]
    await settled()
    assert served == ([first, second] if is_served else [first])
    for task in tasks:
        task.cancel()


async def test_a_request_that_fails_ends_its_turn() -> None:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        raise ZeroDivisionError

    one = in_turns(app, Turns(1, 1), Turns(1, 1), Turns(1, 1))
    for _ in range(2):
        with pytest.raises(ZeroDivisionError):
            await one(request(), None, None)  # type: ignore[arg-type]


async def test_tokens_that_are_remembered_are_bounded_and_those_in_use_stay(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(callers, "MOST", 2)
    for secret in (b"one", b"two", b"one", b"three"):
        note_good(digest_of(secret))
    found = [caller_of(b"Bearer " + secret, "::1") == "::1" for secret in (b"one", b"two", b"three")]
    assert found == [False, True, False]
