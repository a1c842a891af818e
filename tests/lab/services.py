"""What runs in the switch's namespace: the sink and the DNS. Started by `network`, never by hand."""

from __future__ import annotations

import asyncio
import functools
import sys
from pathlib import Path

from tests.lab.config import DNS, SINKS
from tests.lab.dns import DnsProtocol, Zone, serve_tcp
from tests.lab.hosts import ALL
from tests.lab.sink import Session, Sink


async def serve(directory: Path) -> None:
    sink = Sink(directory)
    zone = Zone({spec.fqdn: spec.address for spec in ALL.values()}, SINKS)
    await asyncio.get_running_loop().create_datagram_endpoint(lambda: DnsProtocol(zone), local_addr=(DNS, 53))
    await asyncio.start_server(functools.partial(serve_tcp, zone), DNS, 53)
    for domain, address in SINKS.items():
        handler = functools.partial(_session, sink, domain)
        await asyncio.start_server(handler, address, 25, limit=1 << 20, backlog=1024)
    (directory / "services.ready").touch()
    await asyncio.Event().wait()


async def _session(sink: Sink, domain: str, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    await Session(sink, domain, reader, writer).run()


if __name__ == "__main__":
    asyncio.run(serve(Path(sys.argv[1])))
