"""The audit export: whole and verifiable when it is read, cut off when it is not, and at nobody else's cost."""

import asyncio
import json
from collections.abc import AsyncIterator, Callable
from typing import Any

import pytest
import pytest_asyncio
from asgiref.sync import sync_to_async

from api import held
from api.models import Token
from api.v1 import audit
from jobs.audit import trail
from jobs.audit.verify import verify_lines
from jobs.models import AuditEvent, Role
from tests.http.asgi import PATIENCE, Asked, Site, database_connections, site
from tests.http.cast import Caller, World, build_world
from tests.http.test_errors import JOB, refused

pytestmark = pytest.mark.django_db(transaction=True)
PATH = "audit/export/"


def prepared() -> World:
    """Some entries at both customers, and checkpoints."""
    world = build_world()
    beta = {"operation": "queue.list", "target": {"hosts": ["bx1"]}}
    for caller, body in ((world.alice, JOB), (world.charlie, beta), (world.alice, JOB)):
        assert caller.post("jobs/", body).status_code == 202
        trail.checkpoint()
    return world


@pytest_asyncio.fixture
async def world(monkeypatch: pytest.MonkeyPatch) -> World:
    monkeypatch.setattr(audit, "LINES", 1)
    monkeypatch.setattr(trail, "BATCH", 2)
    return await sync_to_async(prepared)()


@pytest_asyncio.fixture
async def api() -> AsyncIterator[Site]:
    async with site() as made:
        yield made


async def export(api: Site, caller: Caller) -> Asked:
    return await api.ask(caller.token, "GET", PATH).whole()


async def test_an_export_is_whole_and_verifiable_and_of_the_callers_chains(api: Site, world: World) -> None:
    answer = await export(api, world.dana)
    assert (answer.status_code, answer.headers["Content-Type"]) == (200, "application/x-ndjson")
    lines = [json.loads(line) for line in answer.content.splitlines()]
    verdict = await sync_to_async(lambda: verify_lines(lines, trail.public_keys()))()
    assert (verdict.ok, verdict.checked) == (True, await AuditEvent.objects.acount())
    assert len([line for line in lines if line["type"] == "checkpoint"]) == len(
        await sync_to_async(lambda: world.dana.get("audit/checkpoints/").json()["results"])()
    )
    theirs = (await export(api, world.charlie)).content
    assert {json.loads(line)["chain"] for line in theirs.splitlines()} == {"beta"}
    assert not any(word in theirs for word in (b"acme", b"alice", b"mx1"))


async def deaf(api: Site, caller: Caller) -> Asked:
    """A request whose client takes the first part of the answer and then no more."""
    asked = await api.ask(caller.token, "GET", PATH, room=1).begun()
    await asked.part()
    assert not asked.is_whole
    return asked


async def rest(asked: Asked) -> list[bool]:
    """Whether there is more, as each part says that comes until the exchange has ended."""
    told: list[bool] = []
    while not asked.task.done() or asked._to_client.qsize():
        if asked._to_client.qsize():
            told.append(asked._to_client.get_nowait()["more_body"])
        await asyncio.sleep(0.01)
    await asked.task
    return told


async def test_who_does_not_read_has_no_connection_and_one_export_and_others_have_theirs(
    api: Site, world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(held, "EXPORTS", (1, 2))
    async with site() as api:
        before = await database_connections()
        slow = await deaf(api, world.alice)
        async with asyncio.timeout(PATIENCE):
            while not slow._to_client.full() or await database_connections() != before:
                await asyncio.sleep(0.01)
        answer = await export(api, world.alice)
        refused(answer, 429, "rate_limited")
        assert answer.headers["Retry-After"] == "5"
        assert (await export(api, world.bob)).is_whole
        others = await deaf(api, world.bob)
        refused(await export(api, world.dana), 429, "rate_limited")
        for asked in (slow, others):
            asked.leave()
            await rest(asked)
        assert (await export(api, world.alice)).is_whole


async def test_long_entries_make_a_part_of_few_of_them(
    api: Site, world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(audit, "LINES", 500)
    monkeypatch.setattr(audit, "PART", 1000)
    whole = (await export(api, world.alice)).content
    asked = await api.ask(world.alice.token, "GET", PATH).begun()
    parts = [await asked.part()]
    while not asked.is_whole:
        parts.append(await asked.part())
    longest = max(map(len, whole.splitlines(keepends=True)))
    assert b"".join(parts) == whole
    assert max(map(len, parts)) < 1000 + longest < len(whole)


async def test_who_does_not_read_is_cut_off_and_sees_that(
    api: Site, world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(held, "PATIENCE", 0.05)
    slow = await deaf(api, world.alice)
    await slow.task
    assert await rest(slow) == [True]
    monkeypatch.undo()
    assert (await export(api, world.alice)).is_whole


@pytest.mark.parametrize(
    "end",
    [
        lambda world: Token.objects.filter(account__username="alice").delete(),
        lambda world: Role.objects.filter(account__username="alice").delete(),
    ],
    ids=["token revoked", "role taken"],
)
async def test_an_export_ends_without_an_end_when_it_is_the_callers_no_more(
    api: Site, world: World, end: Callable[[World], Any]
) -> None:
    slow = await deaf(api, world.alice)
    await sync_to_async(end)(world)
    told = await rest(slow)
    assert all(told)
    assert len(told) < await AuditEvent.objects.filter(chain="acme").acount()


async def test_the_end_of_the_process_cuts_an_export_off(world: World) -> None:
    async with site() as api:
        slow = await deaf(api, world.alice)
        api.hub.close()
        assert all(await rest(slow))
        assert api.waiting == 0


async def test_a_head_of_an_export_reads_nothing(api: Site, world: World) -> None:
    answer = await api.ask(world.alice.token, "HEAD", PATH).whole()
    assert (answer.status_code, answer.content) == (200, b"")
    assert api.waiting == 0
