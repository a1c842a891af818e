"""DNS questions through the SSH connection, from the host's own side."""

import asyncio

import pytest

from fleet.mta.steps import FORWARDING_PROHIBITED, DnsQuery
from fleet.ssh.pool import Pool
from tests.ssh.carry import serving, transport
from tests.ssh.sshd import Sshd, free_port


async def echo(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Sends each message back in two pieces, as TCP may cut it."""
    while length := await reader.read(2):
        message = await reader.readexactly(int.from_bytes(length))
        writer.write(length + message[:1])
        await writer.drain()
        await asyncio.sleep(0.02)
        writer.write(message[1:])
        await writer.drain()


async def test_questions_are_answered_in_order_over_one_connection(sshd: Sshd, pool: Pool) -> None:
    packets = (b"first", b"x" * 3000)
    async with serving(echo) as port:
        said = await transport(pool, sshd.endpoint()).ask(DnsQuery("127.0.0.1", packets, port))
    assert said.packets == packets
    assert said.error == ""


@pytest.mark.parametrize("sends", [b"", b"\x00", b"\x00\x09short"])
async def test_a_server_that_hangs_up_is_told_in_the_reply(sshd: Sshd, pool: Pool, sends: bytes) -> None:
    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(sends)
        await writer.drain()

    async with serving(serve) as port:
        said = await transport(pool, sshd.endpoint()).ask(DnsQuery("127.0.0.1", (b"q",), port))
    assert said.packets == ()
    assert "closed the connection" in said.error


async def test_a_silent_server_is_given_up(sshd: Sshd, pool: Pool) -> None:
    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await asyncio.sleep(5)

    async with serving(serve) as port:
        said = await transport(pool, sshd.endpoint()).ask(DnsQuery("127.0.0.1", (b"q",), port, timeout=1))
    assert said.error == "no answer from 127.0.0.1 within 1 s"


async def test_a_closed_port_is_told_and_is_not_a_prohibition(sshd: Sshd, pool: Pool) -> None:
    said = await transport(pool, sshd.endpoint()).ask(DnsQuery("127.0.0.1", (b"q",), free_port()))
    assert "no connection to 127.0.0.1" in said.error
    assert FORWARDING_PROHIBITED not in said.error


async def test_forbidden_forwarding_is_told_in_the_reply(own_sshd: Sshd, pool: Pool) -> None:
    own_sshd.start("AllowTcpForwarding no\n")
    said = await transport(pool, own_sshd.endpoint()).ask(DnsQuery("127.0.0.1", (b"q",)))
    assert FORWARDING_PROHIBITED in said.error
