"""The event stream, as an ASGI client sees it."""

import json
from collections.abc import AsyncIterator

import pytest
import pytest_asyncio
from asgiref.sync import sync_to_async
from django.db import transaction
from django.test import AsyncClient
from django.utils import timezone

from api import hub
from api.v1 import events
from jobs.models import Job, JobEvent
from tests.http.asgi import Asked, Site, site
from tests.http.cast import Caller, World, build_world
from tests.http.test_errors import JOB, refused
from tests.http.test_jobs import succeed

pytestmark = pytest.mark.django_db(transaction=True)


@pytest.fixture(autouse=True)
def _quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hub, "NET", 0.01)


@pytest_asyncio.fixture
async def api() -> AsyncIterator[Site]:
    async with site() as made:
        yield made


def prepared() -> tuple[World, Job]:
    """A job of alice's with three events, not ended."""
    world = build_world()
    job = Job.objects.get(pk=world.alice.post("jobs/", JOB).json()["id"])
    JobEvent.objects.create(
        job=job, kind="run", data={"instance": "mx1/postfix", "state": "running"}, at=timezone.now()
    )
    JobEvent.objects.create(job=job, kind="progress", data={"done": 1}, at=timezone.now())
    return world, job


def finish(job: Job) -> None:
    """Its last event and its end, as the services write them."""
    with transaction.atomic():
        succeed(job)
        JobEvent.objects.create(job=job, kind="job", data={"state": "succeeded"}, at=timezone.now())


def stream(api: Site, caller: Caller, job: Job, query: str = "", **headers: str) -> Asked:
    """The request."""
    return api.ask(caller.token, "GET", f"jobs/{job.pk}/events/{query}", **headers)


def lines(text: str, name: str) -> list[str]:
    """The values of one field, in their order."""
    return [line.removeprefix(f"{name}: ") for line in text.splitlines() if line.startswith(f"{name}: ")]


async def test_events_come_in_order_until_the_job_has_ended(api: Site) -> None:
    world, job = await sync_to_async(prepared)()
    answer = await stream(api, world.alice, job).begun()
    assert answer.headers["Content-Type"] == "text/event-stream"
    assert answer.headers["Cache-Control"] == "no-cache"
    assert answer.headers["X-Content-Type-Options"] == "nosniff"
    await answer.until("event: progress")
    await sync_to_async(finish)(job)
    said = (await answer.whole()).content.decode()
    assert said.startswith("retry: 1000\n\n")
    assert lines(said, "event") == ["job", "run", "progress", "job"]
    assert {"instance": "mx1/postfix", "state": "running"} in map(json.loads, lines(said, "data"))


async def test_a_stream_resumes_where_it_was_left(api: Site) -> None:
    world, job = await sync_to_async(prepared)()
    await sync_to_async(finish)(job)
    ids = lines((await stream(api, world.alice, job).whole()).content.decode(), "id")
    for answer in (
        stream(api, world.alice, job, Last_Event_ID=ids[1]),
        stream(api, world.alice, job, f"?after={ids[1]}"),
    ):
        assert lines((await answer.whole()).content.decode(), "id") == ids[2:]
    assert (await stream(api, world.alice, job, Last_Event_ID=ids[-1]).whole()).status_code == 204


async def test_more_events_than_one_look_brings_are_all_told(api: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(events, "BATCH", 1)
    world, job = await sync_to_async(prepared)()
    await sync_to_async(finish)(job)
    said = (await stream(api, world.alice, job).whole()).content.decode()
    assert lines(said, "event") == ["job", "run", "progress", "job"]


async def test_a_quiet_stream_beats(api: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(events, "HEARTBEAT", 0.01)
    world, job = await sync_to_async(prepared)()
    answer = await stream(api, world.alice, job).begun()
    await answer.until(": still here")
    answer.leave()
    await answer.whole()


async def test_a_stream_ends_after_a_while_with_all_that_was_to_be_told(
    api: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(events, "LONGEST", 0.01)
    world, job = await sync_to_async(prepared)()
    said = (await stream(api, world.alice, job).whole()).content.decode()
    assert lines(said, "event") == ["job", "run", "progress"]


async def test_a_stream_is_refused_like_everything_else(api: Site) -> None:
    world, job = await sync_to_async(prepared)()
    refused(await stream(api, world.charlie, job).whole(), 404, "not_found")
    refused(await stream(api, Caller("x"), job).whole(), 401, "unauthenticated")
    reader = await sync_to_async(world.token)("alice", scopes=["fleet:read"])
    refused(await stream(api, reader, job).whole(), 403, "forbidden")
    refused(await stream(api, world.alice, job, "?since=1").whole(), 400, "unknown_parameter")
    refused(await stream(api, world.alice, job, Last_Event_ID="x").whole(), 400, "malformed_header")
    refused(await api.ask(world.alice.token, "POST", f"jobs/{job.pk}/events/").whole(), 405, "method_not_allowed")


async def test_a_server_that_cannot_stream_says_so() -> None:
    world, job = await sync_to_async(prepared)()
    headers = {"Authorization": f"Bearer {world.alice.token}"}
    refused(await AsyncClient().get(f"/api/v1/jobs/{job.pk}/events/", headers=headers), 503, "unavailable")
