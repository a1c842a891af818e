"""DNS questions through the SSH connection (direct-tcpip), over TCP (RFC 7766), within limits."""

import asyncio

import asyncssh

from fleet.mta.steps import FORWARDING_PROHIBITED, DnsQuery, DnsReply
from fleet.ssh.smtp import PROHIBITED

PREFIX = 2  # octets of length before each message (RFC 1035 4.2.2)


async def inquire(connection: asyncssh.SSHClientConnection, query: DnsQuery) -> DnsReply:
    """Ask one question after the other. What goes wrong beyond SSH itself is the reply's `error`."""
    packets: list[bytes] = []
    writer: asyncssh.SSHWriter[bytes] | None = None
    try:
        async with asyncio.timeout(query.timeout):
            reader, writer = await connection.open_connection(query.address, query.port)
            for packet in query.packets:
                writer.write(len(packet).to_bytes(PREFIX) + packet)
                length = int.from_bytes(await reader.readexactly(PREFIX))
                packets.append(await reader.readexactly(length))
    except asyncssh.ChannelOpenError as error:
        why = FORWARDING_PROHIBITED if error.code == PROHIBITED else error.reason
        return DnsReply((), f"no connection to {query.address} port {query.port}: {why}")
    except TimeoutError:
        return DnsReply(tuple(packets), f"no answer from {query.address} within {query.timeout} s")
    except (asyncio.IncompleteReadError, OSError):
        return DnsReply(tuple(packets), f"{query.address} closed the connection")
    finally:
        if writer is not None:
            writer.channel.abort()
    return DnsReply(tuple(packets))
