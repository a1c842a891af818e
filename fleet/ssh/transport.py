"""Commands and dialogues over a warm SSH connection."""

import asyncio
from collections.abc import Awaitable, Callable
from secrets import token_hex
from typing import Protocol, TypeVar, cast

import asyncssh

from fleet.mta.errors import ConnectionLost, RemoteTimeout, Unreachable
from fleet.mta.steps import Command, Completed, Dialogue, DnsQuery, DnsReply, Transcript
from fleet.ssh.dns import inquire
from fleet.ssh.endpoint import Endpoint
from fleet.ssh.gate import Lane
from fleet.ssh.pool import SESSIONS, Pool, Warm
from fleet.ssh.quoting import KILL_AFTER, encode, end_mark, render, stdin_of
from fleet.ssh.session import CommandSession
from fleet.ssh.smtp import converse

# Beyond the remote timeout(1): time for its KILL and for the answer to come back.
GRACE = KILL_AFTER + 3.0
MOST_BROKEN = 1  # connections that may break before the command's channel is open
MOST_REFUSED = SESSIONS + 4  # sessions that sshd may refuse; each refusal narrows what is asked of this connection
Reply = TypeVar("Reply", Transcript, DnsReply)
REFUSED_PAUSE = 0.02  # seconds, times the number of refusals


class Transport(Protocol):
    """Carries one instance's commands. Errors are those of fleet.mta.errors, whatever the command changes:

    NothingSent: no byte of this command left. ConnectionLost: it began and its exit status never came.
    RemoteTimeout: it began and did not end in its time. OutputTooLarge, or what the sink raised: the reading stopped.
    """

    async def run(self, command: Command) -> Completed: ...

    async def talk(self, dialogue: Dialogue) -> Transcript: ...

    async def ask(self, query: DnsQuery) -> DnsReply: ...


class Stopped(Exception):
    """The job was cancelled before anything was sent for this instance."""


class _NotOpened(Exception):
    """The command's channel was not opened, so nothing was sent and it may be tried again.

    The connection broke, or it stands and sshd allows no further session on it (MaxSessions).
    """


def _never() -> bool:
    return False


def always() -> bool:
    return True


class AsyncsshTransport:
    """One instance's way to its host. `until`: loop time by which everything must have ended. `lane`: why it is asked.

    `is_stopped` is asked once, when the connection stands and before the first command: a cancelled job sends nothing.
    `may_change` is asked before each changing command is sent: False ends it with LeaseLost, and it is not sent.
    """

    def __init__(
        self,
        pool: Pool,
        endpoint: Endpoint,
        until: float,
        is_stopped: Callable[[], bool] = _never,
        may_change: Callable[[], bool] = always,
        lane: Lane = Lane.READ,
    ) -> None:
        self._pool = pool
        self._endpoint = endpoint
        self._until = until
        self._is_stopped: Callable[[], bool] | None = is_stopped
        self._may_change = may_change
        self._lane = lane
        self._loop = asyncio.get_running_loop()

    async def run(self, command: Command) -> Completed:
        """Run it and return what it did. Raises the errors of `Transport`, ValueError for what cannot be quoted."""
        end = end_mark(token_hex(8))
        line = encode(render(command, self._endpoint.become, self._endpoint.helpers, end))
        broken = refused = 0
        while True:
            warm = await self._acquired()
            try:
                return await self._run_on(warm, line, command, end)
            except _NotOpened as error:
                if warm.is_usable:
                    refused += 1
                else:
                    self._pool.retire(warm)
                    broken += 1
                if broken > MOST_BROKEN or refused > MOST_REFUSED:
                    raise Unreachable(f"{self._endpoint.name}: no session: {error}") from error
            finally:
                self._pool.release(warm)
            await asyncio.sleep(REFUSED_PAUSE * refused)

    async def talk(self, dialogue: Dialogue) -> Transcript:
        """Hold an SMTP dialogue from the host. Raises NothingSent errors and ConnectionLost for SSH's own failures."""
        return await self._forwarded(lambda connection: converse(connection, dialogue), "an SMTP dialogue")

    async def ask(self, query: DnsQuery) -> DnsReply:
        """Ask a nameserver from the host. Raises as `talk` does."""
        return await self._forwarded(lambda connection: inquire(connection, query), "a DNS query")

    async def _forwarded(self, speak: Callable[[asyncssh.SSHClientConnection], Awaitable[Reply]], what: str) -> Reply:
        warm = await self._acquired()
        try:
            async with asyncio.timeout_at(self._until):
                reply = await speak(warm.connection)
        except TimeoutError:
            raise RemoteTimeout(f"{self._endpoint.name}: the deadline passed during {what}") from None
        finally:
            self._pool.release(warm)
        if warm.watch.is_lost:
            raise ConnectionLost(f"{self._endpoint.name}: the connection ended during {what}")
        return reply

    async def _acquired(self) -> Warm:
        warm = await self._pool.acquire(self._endpoint, self._until, [self._lane])
        if self._is_stopped is not None:
            if self._is_stopped():
                self._pool.release(warm)
                raise Stopped
            self._is_stopped = None
        return warm

    async def _run_on(self, warm: Warm, line: bytes, command: Command, end: bytes) -> Completed:
        session = CommandSession(command, self._loop, self._may_change, end)
        begun = self._loop.time()
        try:
            async with asyncio.timeout_at(self._until) as limit, warm.room(self._lane):
                await warm.slots.acquire()
                try:
                    begun = self._loop.time()
                    limit.reschedule(min(self._until, begun + command.timeout + GRACE))
                    await self._open(warm, session, line)
                    session.send(stdin_of(command))
                    await session.ended
                finally:
                    warm.leave_slot(session.was_refused)
        except TimeoutError:
            raise self._late(warm, session, command) from None
        except asyncio.CancelledError:
            self._leave(warm, session)
            raise
        return session.completed(self._loop.time() - begun)

    async def _open(self, warm: Warm, session: CommandSession, line: bytes) -> None:
        """Open the channel and send the command. The session knows whether the command's bytes may have left."""
        try:
            # asyncssh sends str and bytes alike, and only bytes carry what is no UTF-8.
            await warm.connection.create_session(lambda: session, cast(str, line), encoding=None)
        except (asyncssh.Error, OSError) as error:
            if session.began:
                raise ConnectionLost(f"{self._endpoint.name}: {error}") from error
            session.was_refused = warm.is_usable
            raise _NotOpened(str(error)) from error

    def _late(self, warm: Warm, session: CommandSession, command: Command) -> RemoteTimeout | Unreachable:
        self._leave(warm, session)
        if not session.began:
            return Unreachable(f"{self._endpoint.name}: no session could be opened before the deadline")
        return RemoteTimeout(f"{self._endpoint.name}: {command.argv[:1] or command.script} did not end in time")

    def _leave(self, warm: Warm, session: CommandSession) -> None:
        """Close the channel; without one it may still open later, so that connection takes no new commands."""
        if session.began:
            session.close()
        else:
            self._pool.retire(warm)
