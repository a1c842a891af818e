"""What clients can do to the API before any request of theirs is whole, on its real server on loopback."""

import asyncio
import json
import resource
import socket
import threading
from collections.abc import Iterator
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import Any

import h11
import pytest

from api.connection import OTHER_FILES, Connection, most_connections
from deploy.serve import FILES, allow_files
from tests.http.wire import GET, answer, ask, open_files, serving, talking, until

HALF = b"GET /healthz HTTP/1.1\r\nHost: local"
START = b"GET /healthz HTTP/1.1\r\nHost: localhost\r\n"


@pytest.fixture(scope="module")
def port() -> Iterator[int]:
    """Where the API listens."""
    with serving() as port:
        yield port


@pytest.fixture
def _files() -> Iterator[None]:
    """Files enough for both ends of many connections."""
    before = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (before[1], before[1]))
    yield
    resource.setrlimit(resource.RLIMIT_NOFILE, before)


def code(said: tuple[int, bytes]) -> tuple[int, str]:
    """Status and code of a problem."""
    status, body = said
    return status, json.loads(body)["code"]


def test_a_header_without_end_is_cut_off_with_431(port: int) -> None:
    with talking(port) as client:
        client.sendall(START + b"X-Long: ")
        with pytest.raises(OSError, match=r"(Broken pipe|reset by peer)"):
            client.sendall(b"x" * (64 << 20))
        assert code(answer(client)) == (431, "headers_too_large")


def test_a_refused_client_that_stops_sending_reads_why(port: int) -> None:
    with talking(port) as client:
        client.sendall(START + b"X-Long: " + b"x" * 200_000)
        assert code(answer(client)) == (431, "headers_too_large")


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        (b"X-Long: " + b"x" * 66_000 + b"\r\n", 431),
        (b"X-Long: " + b"x" * 60_000 + b"\r\n", 200),
        (b"X: 1\r\n" * 250, 431),
        (b"X: 1\r\n" * 150, 200),
        (b'Content-Type: ;"' + b";" * 60_000 + b"\r\n", 415),
        (b"Content-Type: application/json; charset*=foo'en'utf-8\r\n", 415),
        (b"No colon\r\n", 400),
        (b"Transfer-Encoding: gzip\r\n", 400),
    ],
)
def test_a_head_is_judged_whole(port: int, headers: bytes, status: int) -> None:
    assert ask(port, START + headers + b"Connection: close\r\n\r\n")[0] == status


def test_trailers_without_end_are_cut_off(port: int) -> None:
    with talking(port) as client:
        client.sendall(START + b"Transfer-Encoding: chunked\r\n\r\n1\r\nx\r\n0\r\nX-Long: " + b"x" * 200_000)
        assert code(answer(client)) == (431, "headers_too_large")


def test_a_client_whose_body_is_too_long_is_not_reset_while_it_sends_it(port: int) -> None:
    said = b""
    with talking(port) as client:
        client.sendall(b"POST /healthz HTTP/1.1\r\nHost: localhost\r\nContent-Length: 900000\r\n\r\n" + b"x" * 300_000)
        client.settimeout(0.2)
        with suppress(TimeoutError):
            while part := client.recv(65_536):
                said += part
            pytest.fail("closed before all was sent")
        client.sendall(b"x" * 600_000)
        assert client.recv(1) == b""
    assert said.startswith(b"HTTP/1.1 413 ")


def test_a_body_that_does_not_come_is_408(port: int, settings: Any) -> None:
    settings.BODY_DEADLINE = 0.1
    with talking(port) as client:
        client.sendall(b"POST /healthz HTTP/1.1\r\nHost: localhost\r\nContent-Length: 9\r\n\r\nx")
        assert code(answer(client)) == (408, "request_timeout")


@pytest.mark.usefixtures("_files")
def test_1100_half_sent_heads_leave_room_for_others_and_are_gone_in_time(port: int, settings: Any) -> None:
    settings.HEAD_DEADLINE = 1
    with ExitStack() as stack:
        ask(port)
        before = open_files()
        clients = [stack.enter_context(talking(port, HALF)) for _ in range(1100)]
        assert ask(port)[0] == 200
        assert [code(answer(client)) for client in clients] == [(408, "request_timeout")] * 1100
        assert ask(port)[0] == 200
        stack.close()
        until(lambda: open_files() <= before)


def test_a_head_that_trickles_is_cut_off(port: int, settings: Any) -> None:
    settings.HEAD_DEADLINE = 0.3
    with talking(port) as client:
        client.settimeout(0.02)
        for byte in START * 10:
            client.send(bytes([byte]))
            try:
                said = client.recv(65_536)
                break
            except TimeoutError:
                continue
        assert said.startswith(b"HTTP/1.1 408 ")


def test_a_connection_that_says_nothing_is_closed_without_a_word(port: int, settings: Any) -> None:
    settings.HEAD_DEADLINE = 0.1
    with talking(port) as client:
        assert answer(client) == (0, b"")


def half_sent() -> int:
    """How many heads have begun to come, and not come yet."""
    return sum(bool(waiting.conn.trailing_data[0]) for waiting in list(Connection.unfinished))


def test_beyond_the_limit_the_oldest_half_sent_head_gives_way(port: int, settings: Any) -> None:
    settings.CONNECTIONS = 5
    with ExitStack() as stack:
        clients = [stack.enter_context(talking(port, HALF)) for _ in range(5)]
        until(lambda: half_sent() == 5)
        assert [ask(port)[0] for _ in range(2)] == [200, 200]
        assert code(answer(clients[0])) == (503, "unavailable")
        clients[4].sendall(b"host\r\nConnection: close\r\n\r\n")
        assert answer(clients[4])[0] == 200


def test_half_sent_bodies_give_way_too(port: int, settings: Any) -> None:
    settings.CONNECTIONS = 2
    with talking(port) as first, talking(port) as second:
        for client in (first, second):
            client.sendall(b"POST /healthz HTTP/1.1\r\nHost: localhost\r\nContent-Length: 9\r\n\r\nx")
        until(lambda: [waiting.conn.their_state for waiting in list(Connection.unfinished)] == [h11.SEND_BODY] * 2)
        assert ask(port)[0] == 200
        assert code(answer(first)) == (503, "unavailable")
        second.sendall(b"x" * 8)
        assert second.recv(65_536).startswith(b"HTTP/1.1 405 ")


@pytest.mark.parametrize(
    ("rest", "state"),
    [(HALF, h11.IDLE), (b"POST /healthz HTTP/1.1\r\nHost: localhost\r\nContent-Length: 9\r\n\r\nx", h11.SEND_BODY)],
)
def test_what_came_half_behind_a_whole_request_gives_way_too(
    port: int, settings: Any, rest: bytes, state: type[h11.IDLE]
) -> None:
    settings.CONNECTIONS = 1
    with talking(port, GET + rest) as client:
        parts = iter(lambda: client.recv(65_536), b"")
        assert any(b'"ok"}' in part for part in parts)
        until(lambda: [each.conn.their_state for each in list(Connection.unfinished)] == [state])
        assert ask(port)[0] == 200
        assert b'"code": "unavailable"' in b"".join(parts)


def test_where_all_connections_are_at_work_a_new_one_is_503(settings: Any) -> None:
    settings.CONNECTIONS = 1
    at_work, done = threading.Event(), threading.Event()

    async def slow(scope: Any, receive: Any, send: Any) -> None:
        at_work.set()
        await asyncio.to_thread(done.wait, 15)
        await send({"type": "http.response.start", "status": 204, "headers": [(b"connection", b"close")]})
        await send({"type": "http.response.body", "body": b""})

    with serving(slow) as port, talking(port) as client:
        client.sendall(GET)
        assert at_work.wait(15)
        with talking(port) as late:
            assert code(answer(late)) == (503, "unavailable")
        done.set()
        assert answer(client)[0] == 204


def test_files_are_kept_free_of_connections(settings: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(resource, "getrlimit", lambda _: (1024, 4096))
    assert most_connections() == 1024 - OTHER_FILES


def test_units_and_containers_may_open_the_files_that_the_api_asks_for() -> None:
    units = [unit.read_text() for unit in Path("deploy/systemd").glob("*.service")]
    assert units
    assert all(f"LimitNOFILE={FILES}\n" in unit for unit in units)
    assert f"nofile: {FILES}" in Path("deploy/compose.yaml").read_text()


def test_the_soft_limit_of_files_is_raised(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[tuple[int, int]] = []
    monkeypatch.setattr(resource, "setrlimit", lambda _, limits: asked.append(limits))
    for given in ((1024, 524_288), (1024, 4096), (65_536, 65_536)):
        monkeypatch.setattr(resource, "getrlimit", lambda _, given=given: given)
        allow_files(FILES)
    assert asked == [(FILES, 524_288), (4096, 4096)]


def test_who_does_not_take_his_answer_is_cut_off(settings: Any) -> None:
    settings.STALL_LIMIT = 0.3
    ended = threading.Event()

    async def endless(scope: Any, receive: Any, send: Any) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": []})
        while True:
            await send({"type": "http.response.body", "body": b"x" * 65_536, "more_body": True})
            if ended.is_set():
                return

    with serving(endless) as port:
        before = open_files()
        with talking(port) as client:
            client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
            client.sendall(GET)
            until(lambda: open_files() == before + 2)
            until(lambda: open_files() == before + 1)
            ended.set()
