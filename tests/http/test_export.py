"""The audit export: whole and verifiable when it is read, cut off when it is not, and at nobody else's cost."""

import asyncio
import csv
import io
import json
from collections.abc import AsyncIterator, Callable
from typing import Any
from urllib.parse import quote

import pytest
import pytest_asyncio
from asgiref.sync import sync_to_async
from django.db import transaction

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


async def export(api: Site, caller: Caller, query: str = "") -> Asked:
    return await api.ask(caller.token, "GET", f"{PATH}?{query}" if query else PATH).whole()


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


async def test_an_export_is_of_the_customers_that_are_named_and_of_no_others_than_may_be_read(
    api: Site, world: World
) -> None:
    for caller, query, chains in (
        (world.dana, "customer=beta", {"beta"}),
        (world.dana, "customer=beta,acme", {"acme", "beta"}),
        (world.charlie, "customer=acme,beta", {"beta"}),
        (world.charlie, "customer=acme", set()),
    ):
        answer = await export(api, caller, query)
        lines = [json.loads(line) for line in answer.content.splitlines()]
        assert {line["chain"] for line in lines} == chains
        assert (await sync_to_async(lambda told=lines: verify_lines(told, trail.public_keys()))()).ok
    refused(await export(api, world.dana, "customer=beta&format=xlsx"), 422, "invalid")
    refused(await export(api, world.dana, "since=yesterday"), 422, "invalid")
    refused(await export(api, world.dana, "limit=1"), 400, "unknown_parameter")


async def test_an_export_of_a_time_is_taken_as_an_excerpt_and_never_as_the_whole(api: Site, world: World) -> None:
    entries = [entry async for entry in AuditEvent.objects.filter(chain="acme").order_by("seq")]
    since, until = (quote(entry.at.isoformat()) for entry in (entries[-2], entries[-1]))
    keys = await sync_to_async(trail.public_keys)()
    for query, seqs in (
        (f"customer=acme&since={since}", [entries[-2].seq, entries[-1].seq]),
        (f"customer=acme&until={until}", [entry.seq for entry in entries[:-1]]),
        (f"customer=acme&since={since}&until={until}", [entries[-2].seq]),
        ("customer=acme&until=2020-01-01T00:00:00Z", []),
    ):
        lines = [json.loads(line) for line in (await export(api, world.dana, query)).content.splitlines()]
        assert [line["seq"] for line in lines if line["type"] == "event"] == seqs
        verdict = verify_lines(lines, keys, takes_excerpts=True)
        assert (verdict.ok, verdict.checked, len(verdict.excerpts)) == (True, len(seqs), bool(seqs))
        assert verify_lines(lines, keys).ok is (not seqs)
        for gone in range("since" not in query, len(lines)):  # before entry 1 there is nothing to be proven
            other = verify_lines([*lines[:gone], *lines[gone + 1 :]], keys, takes_excerpts=True)
            assert not other.ok or other.unsigned > verdict.unsigned, lines[gone]


async def test_csv_has_the_same_entries_and_no_cell_of_it_is_a_formula(api: Site, world: World) -> None:
    evil = '=HYPERLINK("http://evil.example","x")'
    await sync_to_async(recorded)(trail.Entry("beta", "x.done", None, evil, data={"=1": '"\r\n@x'}))
    answer = await export(api, world.dana, "customer=beta&format=csv")
    assert answer.headers["Content-Type"] == "text/csv; charset=utf-8; header=present"
    assert answer.headers["Content-Disposition"] == 'attachment; filename="audit.csv"'
    head, *rows = csv.reader(io.StringIO(answer.content.decode(), newline=""))
    theirs = [dict(zip(head, row, strict=True)) for row in rows]
    assert [row["seq"] for row in theirs] == [str(n + 1) for n in range(len(rows))]
    assert {row["customer"] for row in theirs} == {"beta"}
    assert (theirs[-1]["object"], json.loads(theirs[-1]["data"])) == (f"'{evil}", {"=1": '"\r\n@x'})
    entry = await AuditEvent.objects.filter(chain="beta").alatest("seq")
    assert theirs[-1]["hash"] == entry.hash
    assert not any(cell.startswith(("=", "+", "-", "@", "\t", "\r")) for row in rows for cell in row)


def recorded(entry: trail.Entry) -> None:
    with transaction.atomic():
        trail.append(entry)


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
