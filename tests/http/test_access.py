"""The line in the log for each request."""

import asyncio
import logging
from typing import Any

import pytest
from asgiref.sync import sync_to_async
from django.core.handlers.asgi import ASGIHandler

from api.access import App, logged
from api.limits import bounded
from api.models import Token
from api.v1 import events
from tests.http.asgi import site
from tests.http.cast import build_world
from tests.http.test_events import prepared
from tests.http.wire import ask, serving

TOLD = ("client", "caller", "method", "path", "status")


def lines(caplog: pytest.LogCaptureFixture) -> list[Any]:
    """The records of requests."""
    return [record for record in caplog.records if record.name == "mxfleet.access"]


async def request(app: App, method: str, target: str, **headers: str) -> list[dict[str, Any]]:
    """What the application sends to a request without body."""
    path, _, query = target.partition("?")
    pairs = [(name.encode(), value.encode()) for name, value in {"host": "localhost", **headers}.items()]
    scope = {
        "type": "http", "http_version": "1.1", "method": method, "scheme": "http", "root_path": "",
        "path": path, "raw_path": path.encode(), "query_string": query.encode(), "headers": pairs,
        "client": ("192.0.2.7", 1), "server": ("localhost", 80),
    }  # fmt: skip
    messages = [{"type": "http.request", "body": b"", "more_body": False}]
    sent: list[dict[str, Any]] = []

    async def receive() -> dict[str, Any]:
        return messages.pop() if messages else await asyncio.Future()

    async def send(message: Any) -> None:
        sent.append(message)

    await logged(app)(scope, receive, send)
    return sent


@pytest.mark.django_db(transaction=True)
async def test_a_line_tells_who_asked_and_how_it_was_answered(caplog: pytest.LogCaptureFixture) -> None:
    world = await sync_to_async(build_world)()
    token = await Token.objects.aget(account=world.people["alice"])
    caplog.set_level(logging.INFO)
    app = bounded(ASGIHandler())
    bearer = {"authorization": f"Bearer {world.alice.token}", "x-request-id": "r-1"}
    sent = await request(app, "GET", "/api/v1/jobs/?ticket=hunter2", **bearer)
    await request(app, "GET", "/api/v1/jobs/", authorization="Bearer wrong")
    first, second = lines(caplog)
    assert [getattr(first, name) for name in TOLD] == ["192.0.2.7", "alice", "GET", "/api/v1/jobs/", 200]
    assert (first.bearer, first.request_id) == (str(token.pk), "r-1")
    assert first.bytes == sum(len(message.get("body", b"")) for message in sent) > 0
    assert first.duration_ms > 0
    assert [getattr(second, name) for name in TOLD] == ["192.0.2.7", "", "GET", "/api/v1/jobs/", 401]
    assert world.alice.token not in str(vars(first))
    assert "hunter2" not in str(vars(first))


@pytest.mark.django_db(transaction=True)
async def test_a_stream_is_told_at_its_end(caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(events, "LONGEST", 0.2)
    counted: list[tuple[str, int, float]] = []
    monkeypatch.setattr("api.latency.observe", lambda *told: counted.append(told))
    world, job = await sync_to_async(prepared)()
    caplog.set_level(logging.INFO)
    bearer = {"authorization": f"Bearer {world.alice.token}"}
    async with site() as api:
        sent = await request(bounded(api.app), "GET", f"/api/v1/jobs/{job.pk}/events/", **bearer)
    (line,) = lines(caplog)
    assert (line.caller, line.status) == ("alice", 200)
    assert line.bytes == sum(len(message.get("body", b"")) for message in sent) > 100
    assert line.duration_ms > 200
    ((route, status, seconds),) = counted
    assert (route, status) == ("/api/v1/jobs/{pk}/events/", 200)
    assert seconds * 1000 < line.duration_ms - 190  # until it began


async def test_a_request_that_nothing_answered_is_499(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)

    async def silent(scope: Any, receive: Any, send: Any) -> None:
        return

    await request(silent, "GET", "/healthz")
    assert [line.status for line in lines(caplog)] == [499]


@pytest.mark.parametrize(("begun", "status"), [(False, 500), (True, 204)])
async def test_a_request_that_breaks_the_application_is_told_as_it_is_answered(
    caplog: pytest.LogCaptureFixture, begun: bool, status: int
) -> None:
    caplog.set_level(logging.INFO)

    async def broken(scope: Any, receive: Any, send: Any) -> None:
        if begun:
            await send({"type": "http.response.start", "status": 204, "headers": []})
        raise ValueError("broken")

    with pytest.raises(ValueError, match="broken"):
        await request(broken, "GET", "/healthz")
    assert [line.status for line in lines(caplog)] == [status]


def test_what_is_refused_before_any_view_has_a_line_too(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    start = b"POST /api/v1/jobs/ HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n"
    with serving() as port:
        answers = [
            ask(port, start + b"X: " + b"x" * 70_000),
            ask(port, start + b"Content-Type: *\r\n\r\n"),
            ask(port, start + b"Transfer-Encoding: chunked\r\n\r\nno chunk\r\n"),
        ]
    assert [(line.method, line.path, line.status) for line in lines(caplog)] == [
        ("", "", 431),
        ("POST", "/api/v1/jobs/", 415),
        ("POST", "/api/v1/jobs/", 400),
    ]
    for line, (_, body) in zip(lines(caplog), answers, strict=True):
        assert line.request_id.encode() in body
        assert line.bytes == len(body)
