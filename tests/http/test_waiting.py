"""Who waits, for a held answer or on a stream, costs nothing meanwhile and is woken by one notification."""

import asyncio
import json
import threading
from collections.abc import AsyncIterator
from dataclasses import replace
from socket import create_server
from typing import Any
from uuid import UUID

import pytest
import pytest_asyncio
import uvicorn
from asgiref.sync import sync_to_async
from django.conf import settings
from django.db import transaction
from django.utils import timezone
from rest_framework.exceptions import AuthenticationFailed

from api import held, hub
from api.models import StoredAnswer, Token
from api.v1 import events
from deploy.serve import options
from deploy.server import Server
from jobs import news, selectors
from jobs.lifecycle import submit, transition
from jobs.models import Account, Job, Role
from jobs.rules.state import JobState
from tests.http.asgi import Asked, Site, database_connections, site, until
from tests.http.cast import World, build_world
from tests.http.test_errors import JOB, refused
from tests.http.test_jobs import PURGE
from tests.services import Redis

pytestmark = pytest.mark.django_db(transaction=True)
NEVER = 3600.0


@pytest_asyncio.fixture
async def api() -> AsyncIterator[Site]:
    async with site() as made:
        yield made


@pytest_asyncio.fixture
async def cast() -> World:
    return await sync_to_async(build_world)()


@pytest.fixture
def _no_net(monkeypatch: pytest.MonkeyPatch) -> None:
    """Only what is told is known."""
    monkeypatch.setattr(hub, "NET", NEVER)


@pytest.fixture
def _only_net(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing is told."""
    monkeypatch.setattr(hub, "NET", 0.02)
    monkeypatch.setattr(news, "publish", lambda job: None)


@pytest.fixture
def bounds(monkeypatch: pytest.MonkeyPatch) -> Any:
    """Set how many may wait."""
    return lambda each, total: monkeypatch.setattr(
        settings, "ENV", replace(settings.ENV, waiting_each=each, waiting=total)
    )


def to(state: JobState, job: Job | None = None) -> Job:
    """Move a job, the only one if none is given, as the services do."""
    with transaction.atomic():
        job = job or Job.objects.get()
        job.refresh_from_db()
        if state == JobState.SUCCEEDED and job.state == JobState.QUEUED:
            assert transition.move(job, JobState.RUNNING)
        assert transition.move(job, state)
    return job


def wait(api: Site, token: str, seconds: int = 20, body: Any = JOB, **headers: str) -> Asked:
    return api.ask(token, "POST", "jobs/", body, Prefer=f"wait={seconds}", **headers)


@pytest.mark.parametrize("prefer", ["wait=0", "respond-async, wait=0", 'wait="0"', "WAIT=0"])
async def test_a_wait_that_ends_before_the_job_is_202(api: Site, cast: World, prefer: str) -> None:
    answer = await api.ask(cast.alice.token, "POST", "jobs/", JOB, Prefer=prefer).whole()
    assert (answer.status_code, answer.headers["Preference-Applied"]) == (202, "wait=0")
    assert answer.headers["Retry-After"] == "1"
    assert answer.headers["Location"] == f"http://testserver/api/v1/jobs/{answer.json()['id']}/"


@pytest.mark.parametrize(
    ("state", "body"),
    [
        (JobState.SUCCEEDED, JOB),
        (JobState.AWAITING_APPROVAL, PURGE),
        (JobState.AWAITING_APPROVAL, PURGE | {"confirm": True}),
    ],
)
@pytest.mark.usefixtures("redis_url", "_no_net")
async def test_a_held_answer_comes_with_the_end_or_when_people_are_asked(
    api: Site, cast: World, state: JobState, body: Any
) -> None:
    asked = wait(api, cast.alice.token, body=body, Idempotency_Key="k-1")
    await api.await_waiting(1)
    refused(await wait(api, cast.alice.token, body=body, Idempotency_Key="k-1").whole(), 409, "idempotency_in_flight")
    await sync_to_async(to)(state)
    answer = await asked.whole()
    assert (answer.status_code, answer.json()["state"], answer.headers["Preference-Applied"]) == (200, state, "wait=20")
    assert answer.headers["Content-Type"] == "application/json"
    assert ("Retry-After" in answer.headers) == (state != JobState.SUCCEEDED)
    again = await wait(api, cast.alice.token, body=body, Idempotency_Key="k-1").whole()
    assert (again.status_code, again.json()) == (answer.status_code, answer.json())


@pytest.mark.usefixtures("redis_url", "_no_net")
async def test_who_waits_has_no_thread_and_no_connection_and_one_notification_wakes_all(
    api: Site, cast: World, bounds: Any
) -> None:
    begun, connected = threading.active_count(), await database_connections()
    first = wait(api, cast.alice.token)
    await api.await_waiting(1)
    job = await Job.objects.aget()
    streams = [api.ask(cast.bob.token, "GET", f"jobs/{job.pk}/events/") for _ in range(8)]
    waits = [wait(api, cast.anna.token) for _ in range(8)]
    for stream in streams:
        await (await stream.begun()).until("event: job")
    await api.await_waiting(17)
    assert await database_connections() <= connected
    assert threading.active_count() <= begun + hub.QUERY_THREADS + 2  # the process's own for news and wakeups
    await sync_to_async(to)(JobState.SUCCEEDED, job)
    assert (await first.whole()).json()["state"] == "succeeded"
    for stream in streams:
        assert '"state": "succeeded"' in (await stream.whole()).content.decode()
    assert api.waiting == 8
    for asked in waits:
        asked.leave()
        await asked.whole()


@pytest.mark.usefixtures("_only_net")
async def test_what_nobody_told_is_found_by_the_net(api: Site, cast: World) -> None:
    asked = wait(api, cast.alice.token)
    await api.await_waiting(1)
    job = await sync_to_async(to)(JobState.RUNNING)
    stream = await api.ask(cast.alice.token, "GET", f"jobs/{job.pk}/events/").begun()
    await api.await_waiting(2)
    await sync_to_async(to)(JobState.SUCCEEDED, job)
    assert (await asked.whole()).json()["state"] == "succeeded"
    assert '"state": "succeeded"' in (await stream.whole()).content.decode()


async def test_the_net_is_one_look_for_all_and_wakes_nobody_without_news(
    api: Site, cast: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(hub, "NET", NEVER)
    monkeypatch.setattr(hub.Hub, "_subscribe", lambda _: asyncio.sleep(NEVER))  # all look when it has begun
    asked = [wait(api, cast.alice.token) for _ in range(5)]
    await api.await_waiting(5)
    looks: list[int] = []
    news_of = selectors.news_of
    monkeypatch.setattr(selectors, "news_of", lambda jobs: (looks.append(len(list(jobs))), news_of(jobs))[1])
    monkeypatch.setattr(hub, "NET", 0.01)
    net = asyncio.create_task(api.hub._cast_net())
    await until(lambda: len(looks) >= 5)
    net.cancel()
    assert set(looks) == {5}
    for each in asked:
        each.leave()
        await each.whole()


@pytest.mark.usefixtures("_no_net")
async def test_all_look_again_when_redis_is_back(api: Site, cast: World, redis_server: Redis, redis_url: str) -> None:
    asked = wait(api, cast.alice.token)
    await api.await_waiting(1)
    await until(lambda: redis_server.client().pubsub_numsub(news.CHANNEL)[0][1] == 1)
    await asyncio.to_thread(redis_server.stop)
    await sync_to_async(to)(JobState.SUCCEEDED)
    await asyncio.to_thread(redis_server.start)
    assert (await asked.whole()).json()["state"] == "succeeded"


@pytest.mark.usefixtures("redis_url", "_no_net")
async def test_what_is_no_job_on_the_channel_harms_nobody(api: Site, cast: World, redis_server: Redis) -> None:
    asked = wait(api, cast.alice.token)
    await api.await_waiting(1)
    await until(lambda: redis_server.client().pubsub_numsub(news.CHANNEL)[0][1] == 1)
    for text in (b"", b"\xff\xfe", b"no job", b"x" * 100_000):
        redis_server.client().publish(news.CHANNEL, text)
    await sync_to_async(to)(JobState.SUCCEEDED)
    assert (await asked.whole()).status_code == 200


@pytest.mark.parametrize(("each", "total"), [(2, 9), (9, 2)])
async def test_beyond_its_bounds_a_wait_is_202_at_once_and_a_stream_429(
    bounds: Any, cast: World, each: int, total: int
) -> None:
    bounds(each, total)
    async with site() as api:
        waits = [wait(api, cast.alice.token) for _ in range(2)]
        await api.await_waiting(2)
        late = await wait(api, cast.alice.token, Idempotency_Key="k-1").whole()
        assert (late.status_code, "Preference-Applied" in late.headers) == (202, False)
        again = await wait(api, cast.alice.token, Idempotency_Key="k-1").whole()
        assert (again.status_code, again.headers["Idempotency-Replayed"]) == (202, "true")
        path = f"jobs/{late.json()['id']}/events/"
        streams = [api.ask(cast.alice.token, "GET", path) for _ in range(2)]
        await api.await_waiting(4)
        answer = await api.ask(cast.alice.token, "GET", path).whole()
        refused(answer, 429, "rate_limited")
        assert answer.headers["Retry-After"] == "5"
        other = api.ask(cast.bob.token, "GET", path)
        assert (await other.begun()).status_code == (200 if total == 9 else 429)
        for asked in (*waits, *streams, other):
            asked.leave()
            await asked.whole()


async def test_a_place_is_free_again_however_the_exchange_ended(bounds: Any, cast: World) -> None:
    bounds(1, 1)
    async with site() as api:
        for _ in range(2):
            gone = wait(api, cast.alice.token)
            await api.await_waiting(1)
            gone.leave()
            assert (await gone.whole()).status_code == 202
            killed = wait(api, cast.alice.token)
            await api.await_waiting(1)
            killed.task.cancel()
            await asyncio.gather(killed.task, return_exceptions=True)
            refused(await wait(api, cast.alice.token, body={"operation": "nothing"}).whole(), 422, "invalid")
            refused(await wait(api, "wrong").whole(), 401, "unauthenticated")
        assert (await wait(api, cast.alice.token, 0).whole()).headers["Preference-Applied"] == "wait=0"
        assert api.waiting == 0


async def test_a_client_that_leaves_while_its_job_is_made_leaves_nothing_behind(
    cast: World, bounds: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    bounds(1, 1)
    at_work, go_on, make = threading.Event(), threading.Event(), submit.submit

    def slowly(*asked: Any) -> Job:
        at_work.set()
        assert go_on.wait(10)
        return make(*asked)

    monkeypatch.setattr(submit, "submit", slowly)
    async with site() as api:
        asked = wait(api, cast.alice.token, Idempotency_Key="k-1")
        await asyncio.to_thread(at_work.wait, 10)
        asked.leave()
        await asyncio.sleep(0)
        go_on.set()
        await asked.task
        again = await wait(api, cast.alice.token, 0, Idempotency_Key="k-1").whole()
        assert (again.status_code, again.headers["Idempotency-Replayed"]) == (202, "true")
        assert (await wait(api, cast.alice.token, 0).whole()).headers["Preference-Applied"] == "wait=0"


async def test_a_client_that_does_not_read_loses_its_place(
    cast: World, bounds: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(held, "PATIENCE", 0.02)
    bounds(1, 1)
    async with site() as api:
        job = (await api.ask(cast.alice.token, "POST", "jobs/", JOB).whole()).json()["id"]
        for _ in range(2):
            deaf = api.ask(cast.alice.token, "GET", f"jobs/{job}/events/", room=1)
            assert (await deaf.begun()).status_code == 200
            await deaf.task
            assert api.waiting == 0


async def test_a_client_that_left_finds_his_answer_by_its_key(api: Site, cast: World) -> None:
    asked = wait(api, cast.alice.token, Idempotency_Key="k-1")
    await api.await_waiting(1)
    asked.leave()
    await asked.whole()
    again = await wait(api, cast.alice.token, Idempotency_Key="k-1").whole()
    assert (again.status_code, again.json()["state"]) == (202, "queued")


async def test_a_database_that_fails_meanwhile_leaves_the_first_answer(
    api: Site, cast: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(jobs: object) -> None:
        raise OSError("gone")

    monkeypatch.setattr(selectors, "news_of", fail)
    answer = await wait(api, cast.alice.token, Idempotency_Key="k-1").whole()
    assert (answer.status_code, answer.json()["state"], answer.headers["Retry-After"]) == (202, "queued", "1")
    assert (await StoredAnswer.objects.aget()).status is None  # good when its time as one in flight is over


async def test_the_end_of_the_process_ends_what_waits(cast: World) -> None:
    async with site() as api:
        asked = wait(api, cast.alice.token)
        await api.await_waiting(1)
        job = await Job.objects.aget()
        stream = api.ask(cast.alice.token, "GET", f"jobs/{job.pk}/events/")
        await api.await_waiting(2)
        api.hub.close()
        assert (await asked.whole()).status_code == 202
        assert (await stream.whole()).content.startswith(b"retry: 1000\n\nid: ")
        assert (await wait(api, cast.alice.token).whole()).status_code == 202


async def test_a_server_that_is_told_to_stop_lets_go_of_what_waits(api: Site, cast: World, caplog: Any) -> None:
    with create_server(("127.0.0.1", 0)) as listening:
        server = Server(uvicorn.Config(api.app, **options()), api.hub)
        serving = asyncio.create_task(server.serve([listening]))
        reader, writer = await asyncio.open_connection(*listening.getsockname())
        body = json.dumps(JOB).encode()
        writer.write(
            b"POST /api/v1/jobs/ HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\nPrefer: wait=20\r\n"
            b"Authorization: Bearer %b\r\nContent-Length: %d\r\n\r\n%b" % (cast.alice.token.encode(), len(body), body)
        )
        await api.await_waiting(1)
        server.should_exit = True
        answer = await reader.read()
        await serving
        writer.close()
    assert answer.startswith(b"HTTP/1.1 202 ")
    assert answer.endswith(b"\r\n0\r\n\r\n")
    assert "Cancel" not in caplog.text


def test_a_token_that_ends_while_events_are_read_is_told_none_of_them(
    cast: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    answer = cast.alice.post("jobs/", JOB)
    caller = events._Caller(f"Bearer {cast.bob.token}", "127.0.0.1", UUID(answer.json()["id"]))
    assert len(caller.read(0)[2]) == 1
    read = selectors.events_after

    def revoked(*asked: Any) -> Any:
        Token.objects.filter(account__username="bob").delete()
        return read(*asked)

    monkeypatch.setattr(selectors, "events_after", revoked)
    with pytest.raises(AuthenticationFailed):
        caller.read(0)


@pytest.mark.parametrize(
    "end",
    [
        lambda: Token.objects.filter(account__username="bob").delete(),
        lambda: Token.objects.filter(account__username="bob").update(expires_at=timezone.now()),
        lambda: Role.objects.filter(account__username="bob").delete(),
        lambda: Account.objects.filter(username="bob").update(is_active=False),
    ],
    ids=["revoked", "expired", "role taken", "account disabled"],
)
@pytest.mark.usefixtures("redis_url", "_no_net")
async def test_a_stream_tells_nothing_more_to_whom_it_would_refuse(api: Site, cast: World, end: Any) -> None:
    job = Job(pk=(await api.ask(cast.alice.token, "POST", "jobs/", JOB).whole()).json()["id"])
    stream = api.ask(cast.bob.token, "GET", f"jobs/{job.pk}/events/")
    await api.await_waiting(1)
    await sync_to_async(end)()
    await sync_to_async(to)(JobState.SUCCEEDED, job)
    assert (await stream.whole()).content.count(b"event: ") == 1
