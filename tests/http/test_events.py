"""The event stream, as an ASGI client sees it."""

import asyncio
import json
from typing import Any

import pytest
from asgiref.sync import sync_to_async
from django.test import AsyncClient
from django.utils import timezone

from api.v1 import events
from jobs.models import Job, JobEvent
from tests.http.cast import Caller, World, build_world
from tests.http.test_errors import JOB, refused
from tests.http.test_jobs import succeed

pytestmark = pytest.mark.django_db(transaction=True)


@pytest.fixture(autouse=True)
def _quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(events, "POLL", 0.01)
    monkeypatch.setattr(events, "LONGEST", 0.3)
    monkeypatch.setattr(events, "HEARTBEAT", 0.1)


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
    succeed(job)
    JobEvent.objects.create(job=job, kind="job", data={"state": "succeeded"}, at=timezone.now())


async def stream(caller: Caller, job: Job, query: str = "", **headers: str) -> Any:
    """The answer."""
    sent = {"Authorization": f"Bearer {caller.token}", **{k.replace("_", "-"): v for k, v in headers.items()}}
    return await AsyncClient().get(f"/api/v1/jobs/{job.pk}/events/{query}", headers=sent)


async def text(answer: Any) -> str:
    """All that is streamed."""
    return "".join([part.decode() async for part in answer.streaming_content])


async def test_events_come_in_order_until_the_job_has_ended() -> None:
    world, job = await sync_to_async(prepared)()
    answer = await stream(world.alice, job)
    assert answer.headers["Content-Type"] == "text/event-stream"
    assert answer.headers["Cache-Control"] == "no-cache"
    reading = asyncio.create_task(text(answer))
    await asyncio.sleep(0.05)
    await sync_to_async(finish)(job)
    said = await reading
    assert said.startswith("retry: 1000\n\n")
    assert [line.removeprefix("event: ") for line in said.splitlines() if line.startswith("event: ")] == [
        "job",
        "run",
        "progress",
        "job",
    ]
    told = [json.loads(line.removeprefix("data: ")) for line in said.splitlines() if line.startswith("data: ")]
    assert {"instance": "mx1/postfix", "state": "running"} in told


async def test_a_stream_resumes_where_it_was_left() -> None:
    world, job = await sync_to_async(prepared)()
    await sync_to_async(finish)(job)
    first = await text(await stream(world.alice, job))
    ids = [line.removeprefix("id: ") for line in first.splitlines() if line.startswith("id: ")]
    for answer in (
        await stream(world.alice, job, Last_Event_ID=ids[1]),
        await stream(world.alice, job, f"?after={ids[1]}"),
    ):
        assert [line[4:] for line in (await text(answer)).splitlines() if line.startswith("id: ")] == ids[2:]
    assert (await stream(world.alice, job, Last_Event_ID=ids[-1])).status_code == 204


async def test_a_quiet_stream_beats_and_ends_after_a_while() -> None:
    world, job = await sync_to_async(prepared)()
    said = await text(await stream(world.alice, job))
    assert ": still here" in said


async def test_a_stream_is_refused_like_everything_else() -> None:
    world, job = await sync_to_async(prepared)()
    refused(await stream(world.charlie, job), 404, "not_found")
    refused(await stream(Caller("x"), job), 401, "unauthenticated")
    refused(await stream(await sync_to_async(world.token)("alice", scopes=["fleet:read"]), job), 403, "forbidden")
    refused(await stream(world.alice, job, "?since=1"), 400, "unknown_parameter")
    refused(await stream(world.alice, job, Last_Event_ID="x"), 400, "malformed_header")
    answer = await AsyncClient().post(f"/api/v1/jobs/{job.pk}/events/")
    refused(answer, 405, "method_not_allowed")
