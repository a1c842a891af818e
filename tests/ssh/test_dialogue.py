"""SMTP dialogues through the SSH connection, from the host's own side."""

import asyncio

import pytest

from fleet.mta.errors import ConnectionLost
from fleet.mta.steps import Dialogue
from fleet.ssh import smtp
from fleet.ssh.pool import Pool
from fleet.ssh.smtp import reply_end
from tests.ssh.carry import serving, transport
from tests.ssh.sshd import Sshd, free_port


async def polite(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Answers slowly and in pieces, EHLO with several lines."""
    for piece in (b"220 mx1.exa", b"mple.com ESMTP\r\n"):
        writer.write(piece)
        await writer.drain()
        await asyncio.sleep(0.02)
    while line := await reader.readline():
        if line.startswith(b"EHLO"):
            writer.write(b"250-mx1\r\n250-SIZE\r\n25")
            await writer.drain()
            await asyncio.sleep(0.02)
            writer.write(b"0 8BITMIME\r\n")
        elif line.startswith(b"QUIT"):
            writer.write(b"221 bye\r\n")
            return
        else:
            writer.write(b"550 5.7.1 <" + line.strip() + b"> \xff\r\n")


async def test_each_line_is_sent_after_the_reply_to_the_one_before(sshd: Sshd, pool: Pool) -> None:
    async with serving(polite) as port:
        said = await transport(pool, sshd.endpoint()).talk(
            Dialogue("127.0.0.1", port, ("EHLO us", "MAIL FROM:<a@b.c>", "QUIT"))
        )
    assert said.error == ""
    assert said.exchanges == (
        ("", "220 mx1.example.com ESMTP"),
        ("EHLO us", "250-mx1\n250-SIZE\n250 8BITMIME"),
        ("MAIL FROM:<a@b.c>", "550 5.7.1 <MAIL FROM:<a@b.c>> \\xff"),
        ("QUIT", "221 bye"),
    )


async def test_nothing_is_sent_after_a_421(sshd: Sshd, pool: Pool) -> None:
    received = []

    async def busy(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"421 too busy\r\n")
        received.append(await reader.read())

    async with serving(busy) as port:
        said = await transport(pool, sshd.endpoint()).talk(Dialogue("127.0.0.1", port, ("EHLO us",)))
        await asyncio.sleep(0.1)
    assert said.exchanges == (("", "421 too busy"),)
    assert received == [b""]


@pytest.mark.parametrize(
    ("sends", "error"), [(b"", "closed"), (b"220 half a line", "closed"), (b"220-" + b"x" * 70_000, "larger than")]
)
async def test_a_broken_server_is_told_in_the_transcript(sshd: Sshd, pool: Pool, sends: bytes, error: str) -> None:
    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(sends)
        await writer.drain()

    async with serving(serve) as port:
        said = await transport(pool, sshd.endpoint()).talk(Dialogue("127.0.0.1", port, ("QUIT",)))
    assert error in said.error


async def test_an_endless_reply_is_cut_off(sshd: Sshd, pool: Pool) -> None:
    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while True:
            writer.write(b"250-more\r\n" * 1000)
            await writer.drain()

    async with serving(serve) as port:
        said = await transport(pool, sshd.endpoint()).talk(Dialogue("127.0.0.1", port, ("QUIT",)))
    assert str(smtp.LARGEST_REPLY) in said.error


async def test_a_silent_server_ends_at_the_dialogues_time(sshd: Sshd, pool: Pool) -> None:
    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read()

    async with serving(serve) as port:
        said = await transport(pool, sshd.endpoint()).talk(Dialogue("127.0.0.1", port, ("QUIT",), timeout=1))
    assert "within 1 s" in said.error


async def test_a_closed_port_is_told_in_the_transcript(sshd: Sshd, pool: Pool) -> None:
    said = await transport(pool, sshd.endpoint()).talk(Dialogue("127.0.0.1", free_port(), ("QUIT",)))
    assert said.exchanges == ()
    assert "no connection" in said.error


async def test_forbidden_forwarding_is_told_in_the_transcript(own_sshd: Sshd, pool: Pool) -> None:
    own_sshd.start("AllowTcpForwarding no\n")
    said = await transport(pool, own_sshd.endpoint()).talk(Dialogue("127.0.0.1", 25, ("QUIT",)))
    assert "prohibited" in said.error


async def test_an_ssh_connection_that_ends_is_no_smtp_answer(own_sshd: Sshd, pool: Pool) -> None:
    own_sshd.start()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read()

    async with serving(serve) as port:
        talking = asyncio.create_task(transport(pool, own_sshd.endpoint()).talk(Dialogue("127.0.0.1", port, ("QUIT",))))
        await asyncio.sleep(0.7)
        own_sshd.stop()
        with pytest.raises(ConnectionLost):
            await talking


async def test_a_line_break_inside_a_line_is_refused(sshd: Sshd, pool: Pool) -> None:
    async with serving(polite) as port:
        with pytest.raises(ValueError, match="line break"):
            await transport(pool, sshd.endpoint()).talk(Dialogue("127.0.0.1", port, ("RCPT TO:<a>\r\nDATA",)))


@pytest.mark.parametrize(
    ("buffer", "end"),
    [(b"", 0), (b"250 ok", 0), (b"250 ok\r\nx", 8), (b"250-a\n", 0), (b"250-a\n250 b\n", 12), (b"\n", 1)],
)
def test_a_reply_ends_with_a_line_without_a_hyphen(buffer: bytes, end: int) -> None:
    assert reply_end(buffer) == end
