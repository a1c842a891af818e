"""An SMTP dialogue through the SSH connection (direct-tcpip), line by line, within limits."""

import asyncio

import asyncssh

from fleet.mta.steps import FORWARDING_PROHIBITED, Dialogue, Transcript

LARGEST_REPLY = 64 * 1024  # RFC 5321 4.5.3.1.5 allows 512 bytes a line; multi-line replies have no limit of their own
PROHIBITED = asyncssh.OPEN_ADMINISTRATIVELY_PROHIBITED
GOODBYE = "421"  # the service closes the channel: nothing may follow (RFC 5321 3.8)


class ReplyTooLarge(Exception):
    """The server sent more than one reply may have."""


class TcpSession(asyncssh.SSHTCPSession[bytes]):
    """Gathers bytes into replies. A reply ends with a line whose fourth character is no "-" (RFC 5321 4.2.1)."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._buffer = bytearray()
        self._waiter: asyncio.Future[None] | None = None
        self._is_over = False

    def data_received(self, data: bytes, datatype: asyncssh.DataType) -> None:
        if len(self._buffer) <= LARGEST_REPLY:
            self._buffer += data
        self._wake()

    def eof_received(self) -> bool:
        self._end()
        return False

    def connection_lost(self, exc: Exception | None) -> None:
        self._end()

    async def reply(self) -> str:
        """The next reply, its lines joined by LF. Raises EOFError when the server closed, ReplyTooLarge."""
        while True:
            end = reply_end(self._buffer)
            if end:
                text = bytes(self._buffer[:end]).decode("utf-8", "backslashreplace")
                del self._buffer[:end]
                return "\n".join(line.rstrip("\r") for line in text.rstrip("\n").split("\n"))
            if len(self._buffer) > LARGEST_REPLY:
                raise ReplyTooLarge
            if self._is_over:
                raise EOFError
            self._waiter = self._loop.create_future()
            await self._waiter

    def _end(self) -> None:
        self._is_over = True
        self._wake()

    def _wake(self) -> None:
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)


def reply_end(buffer: bytes | bytearray) -> int:
    """Where the first complete reply in `buffer` ends, or 0 when it is not complete yet."""
    start = 0
    while True:
        newline = buffer.find(b"\n", start)
        if newline < 0:
            return 0
        if buffer[start + 3 : start + 4] != b"-":
            return newline + 1
        start = newline + 1


async def converse(connection: asyncssh.SSHClientConnection, dialogue: Dialogue) -> Transcript:
    """Hold the dialogue. What goes wrong beyond SSH itself is the transcript's `error`, never an exception."""
    exchanges: list[tuple[str, str]] = []
    channel: asyncssh.SSHTCPChannel[bytes] | None = None
    try:
        async with asyncio.timeout(dialogue.timeout):
            session = TcpSession(asyncio.get_running_loop())
            channel, _ = await connection.create_connection(lambda: session, dialogue.address, dialogue.port)
            await _exchange(channel, session, dialogue.lines, exchanges)
    except asyncssh.ChannelOpenError as error:
        why = FORWARDING_PROHIBITED if error.code == PROHIBITED else error.reason
        return Transcript((), f"no connection to {dialogue.address} port {dialogue.port}: {why}")
    except TimeoutError:
        return Transcript(tuple(exchanges), f"no answer within {dialogue.timeout} s")
    except EOFError:
        return Transcript(tuple(exchanges), "the server closed the connection")
    except ReplyTooLarge:
        return Transcript(tuple(exchanges), f"a reply is larger than {LARGEST_REPLY} bytes")
    finally:
        if channel is not None:
            channel.abort()
    return Transcript(tuple(exchanges))


async def _exchange(
    channel: asyncssh.SSHTCPChannel[bytes],
    session: TcpSession,
    lines: tuple[str, ...],
    exchanges: list[tuple[str, str]],
) -> None:
    reply = await session.reply()
    exchanges.append(("", reply))
    for line in lines:
        if reply.startswith(GOODBYE) or channel.is_closing():
            return
        if "\r" in line or "\n" in line:
            raise ValueError("an SMTP line contains a line break")
        channel.write(line.encode("utf-8", "surrogateescape") + b"\r\n")
        reply = await session.reply()
        exchanges.append((line, reply))
