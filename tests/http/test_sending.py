"""How a client reads its answer is nobody's matter but its own: on the real server, byte by byte."""

import asyncio
import socket
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

import pytest

from api import held
from api.access import App
from api.hub import Hub
from api.turns import Turns, in_turns
from tests.http.wire import GET, answer, ask, open_files, serving, talking, until

PAGE = 8 << 20
END = b"\r\n0\r\n\r\n"
BIG = b"GET /big HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n"


async def pages(scope: Any, receive: Any, send: Any) -> None:
    """An answer in Django's parts: a page that no connection takes at once, or a small one."""
    await send({"type": "http.response.start", "status": 200, "headers": []})
    parts = PAGE // 65_536 if scope["path"] == "/big" else 1
    for part in range(parts):
        await send({"type": "http.response.body", "body": b"x" * 65_536, "more_body": part + 1 < parts})


@contextmanager
def one_at_a_time(app: App) -> Iterator[int]:
    """The port of a server whose requests have a single turn."""
    with serving(held.held(in_turns(app, Turns(1, 1), Turns(1, 1), Turns(1, 1)), Hub())) as port:
        yield port


@contextmanager
def deaf(port: int) -> Iterator[socket.socket]:
    """A client that has begun to read a page, and takes no more of it."""
    with talking(port) as client:
        client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1 << 18)
        client.sendall(BIG)
        assert client.recv(1)
        yield client


def everything(client: socket.socket) -> bytes:
    """What is left of an answer."""
    return b"".join(iter(lambda: client.recv(1 << 20), b""))


def test_who_reads_slowly_holds_no_turn_and_gets_the_whole_page_when_he_reads() -> None:
    with one_at_a_time(pages) as port, ExitStack() as stack:
        slow = [stack.enter_context(deaf(port)) for _ in range(5)]
        status, body = ask(port, BIG)
        assert (status, body.count(b"x")) == (200, PAGE)
        for client in slow:
            assert everything(client).count(b"x") == PAGE


def test_beyond_so_many_bytes_unsent_the_oldest_answer_is_cut_off(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(held, "UNSENT", 2 * PAGE)
    with one_at_a_time(pages) as port, deaf(port) as oldest, deaf(port) as next_one, deaf(port) as youngest:
        for client, is_whole in ((oldest, False), (next_one, True), (youngest, True)):
            said = everything(client)
            assert (said.count(b"x") == PAGE, said.endswith(END)) == (is_whole, is_whole)


def test_who_reads_nothing_for_so_long_is_cut_off_and_his_connection_closed(
    monkeypatch: pytest.MonkeyPatch, settings: Any
) -> None:
    monkeypatch.setattr(held, "PATIENCE", 0.1)
    settings.STALL_LIMIT = 0.3
    with one_at_a_time(pages) as port:
        before = open_files()
        with deaf(port) as client:
            until(lambda: open_files() == before + 2)
            until(lambda: open_files() == before + 1)
            said = everything(client)
            assert 0 < said.count(b"x") < PAGE
            assert not said.endswith(END)


def test_an_application_that_breaks_is_500_though_it_had_begun() -> None:
    async def broken(scope: Any, receive: Any, send: Any) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await asyncio.sleep(0)
        raise ZeroDivisionError

    with one_at_a_time(broken) as port:
        assert ask(port)[0] == 500
        with talking(port, GET) as client:
            assert answer(client)[0] == 500
