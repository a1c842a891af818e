"""One command on one SSH channel: callbacks that feed its sink while output streams in, and keep within its limits.

There is no stream reader and no task per channel: what a channel costs is what this class does per block of output.
"""

import asyncio
import signal
from collections.abc import Callable

import asyncssh

from fleet.mta.errors import ConnectionLost, FleetError, LeaseLost, OutputTooLarge, RemoteError, UnparsedOutput
from fleet.mta.steps import Command, Completed, Sink
from fleet.ssh.quoting import BEGIN

SILENCE = "make the login silent where it is not interactive"
STREAMED_MOST = 512 << 20  # bytes of stdout that a sink may be fed
# A daemon that a command started may keep its output open for ever. How long to wait, in seconds, once it has exited.
LINGER = 3.0
NOISE_MOST = 64 << 10  # bytes that a login may print before a command
SIGNALLED = 128  # sh(1): the exit status of what a signal ended, less the number of the signal


class CommandSession(asyncssh.SSHClientSession[bytes]):
    """The life of one command. `began`: from the moment its bytes may be on their way to the host.

    `was_refused`: sshd opened no channel for it. `may_change`: asked about a changing command when its channel stands,
    as the last thing before it is sent. `end`: stands before its exit status, behind its output.
    """

    def __init__(
        self, command: Command, loop: asyncio.AbstractEventLoop, may_change: Callable[[], bool], end: bytes
    ) -> None:
        self._command = command
        self._end = end
        self._held = b""
        self._behind: bytes | None = None
        self._may_change = may_change
        self._loop = loop
        self._sink = command.sink
        self._room = STREAMED_MOST if command.sink is not None else command.max_output
        self._error_room = command.max_output
        self._out: list[bytes] = []
        self._err: list[bytes] = []
        self._noise = b""
        self._has_begun = False
        self._channel: asyncssh.SSHClientChannel[bytes] | None = None
        self._failure: Exception | None = None
        self._status: int | None = None
        self._signal = ""
        self._linger: asyncio.TimerHandle | None = None
        self.began = False
        self.was_refused = False
        self.ended: asyncio.Future[None] = loop.create_future()

    def connection_made(self, chan: asyncssh.SSHClientChannel[bytes]) -> None:
        """The channel stands; asyncssh sends the command when this returns. Raises LeaseLost, then it never does."""
        self._channel = chan
        if self._command.mutates and not self._may_change():
            self.close()
            raise LeaseLost("the lease of this run has ended, so this command was not sent")
        self.began = True

    def data_received(self, data: bytes, datatype: asyncssh.DataType) -> None:
        if self._failure is not None:
            return
        if datatype is None and self._has_begun:
            self._await_end(data)
        elif datatype is None:
            self._await_begin(data)
        else:
            self._error_room -= len(data)
            if self._error_room < 0:
                self._stop(self._too_large("stderr", self._command.max_output))
            else:
                self._err.append(data)

    def _await_begin(self, data: bytes) -> None:
        """What the login prints is not the command's."""
        noise, begin, rest = (self._noise + data).partition(BEGIN)
        self._noise, self._has_begun = noise, bool(begin)
        if rest:
            self._await_end(rest)
        elif len(noise) > NOISE_MOST:
            self._stop(UnparsedOutput(f"the login prints more than {NOISE_MOST} bytes before a command", hint=SILENCE))

    def _await_end(self, data: bytes) -> None:
        """What a wrapper of the login prints is not the command's either: its exit status, and what is behind that."""
        if self._behind is not None:
            self._behind = (self._behind + data)[:NOISE_MOST]
            return
        output, end, behind = (self._held + data).partition(self._end)
        keep = 0 if end else _begun(output, self._end)
        self._held = output[len(output) - keep :]
        self._behind = behind if end else None
        if len(output) > keep:
            self._take_output(output[: len(output) - keep])

    def _take_output(self, data: bytes) -> None:
        self._room -= len(data)
        if self._room < 0:
            most = STREAMED_MOST if self._sink is not None else self._command.max_output
            self._stop(self._too_large("stdout", most))
        elif self._sink is None:
            self._out.append(data)
        else:
            try:
                self._sink.feed(data)
            except Exception as error:  # the parser's verdict, or its bug: both belong to whoever awaits the command
                self._stop(error)

    def exit_status_received(self, status: int) -> None:
        self._status = status
        if self._command.mutates:
            self._linger = self._loop.call_later(LINGER, self.close)

    def exit_signal_received(self, signal: str, core_dumped: bool, msg: str, lang: str) -> None:
        self._signal = signal

    def eof_received(self) -> bool:
        return False

    def connection_lost(self, exc: Exception | None) -> None:
        if self._linger is not None:
            self._linger.cancel()
        if not self.ended.done():
            self.ended.set_result(None)

    def send(self, stdin: bytes) -> None:
        """Send stdin and its end. The end is always sent, or a remote `cat` would wait for ever."""
        if self._channel is None or self._channel.is_closing():
            return
        if stdin:
            self._channel.write(stdin)
        self._channel.write_eof()

    def close(self) -> None:
        """Close our end. The remote process is bounded by its own timeout(1); closing does not stop it."""
        if self._channel is not None:
            self._channel.abort()

    def completed(self, duration: float) -> Completed:
        """What the command did. Raises ConnectionLost without an exit status, and what stopped the reading."""
        if self._held and self._failure is None:
            self._take_output(self._held)
        if self._failure is not None:
            raise self._failure
        if self._signal:
            self._status = self._status_of_signal()
        if self._status is None:
            raise ConnectionLost("the connection ended before the command's exit status came")
        own, line, behind = (self._behind or b"").partition(b"\n")
        if line and own.isdigit():
            self._status = int(own)  # a wrapper has a status of its own
        result = None if self._sink is None else self._closed(self._sink)
        noise = self._noise + behind
        return Completed(self._status, b"".join(self._out), b"".join(self._err), result, duration, noise)

    def _status_of_signal(self) -> int:
        """What a shell would tell of it, for a hint. Raises RemoteError for any other command."""
        if not self._command.is_hint:
            raise RemoteError(f"the command was ended by signal {self._signal[:20]}", stderr=self.stderr_tail())
        number = getattr(signal, f"SIG{self._signal}", 0)  # RFC 4254 6.10: the name without "SIG"
        return SIGNALLED + int(number)

    def _closed(self, sink: Sink) -> object:
        """A command that failed has no result to be judged: its output may stop anywhere."""
        try:
            return sink.close()
        except UnparsedOutput:
            if self._status:
                return None
            raise

    def stderr_tail(self) -> str:
        return b"".join(self._err)[-500:].decode("utf-8", "backslashreplace")

    def _stop(self, failure: Exception) -> None:
        self._failure = failure
        self._out.clear()
        self.close()

    def _too_large(self, stream: str, most: int) -> FleetError:
        return OutputTooLarge(f"{stream} is larger than {most} bytes; what came was cut and is not judged")


def _begun(data: bytes, mark: bytes) -> int:
    """How many bytes at its end may be the beginning of the mark."""
    most = min(len(data), len(mark) - 1)
    return next((size for size in range(most, 0, -1) if data.endswith(mark[:size])), 0)
