"""The API behind its real server, in a thread of this process, and clients that speak to it byte by byte."""

import os
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager, suppress

import uvicorn
from django.core.handlers.asgi import ASGIHandler

from api.access import App, logged
from api.limits import bounded
from deploy.serve import options

GET = b"GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n"


@contextmanager
def serving(app: App | None = None) -> Iterator[int]:
    """Serve on a port of loopback, which is yielded; without `app` it is the API."""
    application = logged(bounded(app or ASGIHandler()))
    server = uvicorn.Server(uvicorn.Config(application, **options() | {"host": "127.0.0.1", "port": 0}))
    thread = threading.Thread(target=server.run, name="uvicorn", daemon=True)
    thread.start()
    until(lambda: server.started)
    try:
        yield server.servers[0].sockets[0].getsockname()[1]
    finally:
        server.should_exit = True
        thread.join(10)
        assert not thread.is_alive()


def until(is_so: Callable[[], bool], seconds: float = 15) -> None:
    """Return once it is so."""
    end = time.monotonic() + seconds
    while not is_so():
        assert time.monotonic() < end, "it did not come to be so"
        time.sleep(0.01)


@contextmanager
def talking(port: int, first: bytes = b"") -> Iterator[socket.socket]:
    """A connection, on which `first` was sent."""
    with closing(socket.create_connection(("127.0.0.1", port), timeout=15)) as client:
        client.sendall(first)
        yield client


def answer(client: socket.socket) -> tuple[int, bytes]:
    """Status and body of an answer of a connection that ends with it; status 0: it ended without one."""
    said = b""
    with suppress(ConnectionResetError):
        while part := client.recv(65_536):
            said += part
    head, _, body = said.partition(b"\r\n\r\n")
    return int(head.split()[1]) if head else 0, body


def ask(port: int, request: bytes = GET.replace(b"\r\n\r\n", b"\r\nConnection: close\r\n\r\n")) -> tuple[int, bytes]:
    """Status and body of the answer to a request on a connection of its own."""
    with talking(port) as client:
        client.sendall(request)
        return answer(client)


def open_files() -> int:
    """How many this process has."""
    return len(os.listdir("/proc/self/fd"))
