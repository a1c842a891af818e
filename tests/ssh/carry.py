"""Small ways to send one command, shared by the tests of this directory."""

import asyncio

from fleet.mta.types import Command, Completed
from fleet.ssh.endpoint import Endpoint
from fleet.ssh.pool import Pool
from fleet.ssh.transport import AsyncsshTransport


def transport(pool: Pool, endpoint: Endpoint, seconds: float = 30) -> AsyncsshTransport:
    return AsyncsshTransport(pool, endpoint, asyncio.get_running_loop().time() + seconds)


async def carried(pool: Pool, endpoint: Endpoint, *argv: str, **options: object) -> Completed:
    return await transport(pool, endpoint).run(Command(argv, **options))  # type: ignore[arg-type]


def shell(text: str) -> tuple[str, ...]:
    return ("/bin/sh", "-c", text)
