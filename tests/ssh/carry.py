"""Small ways to send one command, shared by the tests of this directory."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager

from fleet.mta.steps import Command, Completed
from fleet.ssh.endpoint import Endpoint
from fleet.ssh.pool import Pool
from fleet.ssh.transport import AsyncsshTransport


def transport(pool: Pool, endpoint: Endpoint, seconds: float = 30) -> AsyncsshTransport:
    return AsyncsshTransport(pool, endpoint, asyncio.get_running_loop().time() + seconds)


async def carried(pool: Pool, endpoint: Endpoint, *argv: str, **options: object) -> Completed:
    return await transport(pool, endpoint).run(Command(argv, **options))  # type: ignore[arg-type]


def shell(text: str) -> tuple[str, ...]:
    return ("/bin/sh", "-c", text)


Serve = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


@asynccontextmanager
async def serving(serve: Serve) -> AsyncIterator[int]:
    """A server on loopback that treats each client so; gives its port."""

    async def served(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            await serve(reader, writer)
        except ConnectionError:
            return
        finally:
            writer.close()

    server = await asyncio.start_server(served, "127.0.0.1", 0)
    try:
        yield server.sockets[0].getsockname()[1]
    finally:
        server.close()
