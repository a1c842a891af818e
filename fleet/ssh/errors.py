"""What asyncssh and the socket layer raise, in the words of fleet.mta.errors. One table, complete by a test."""

import asyncio
import socket

import asyncssh

from fleet.mta.errors import AuthFailed, FleetError, HostKeyMismatch, Unreachable

# Raised while logging in; nothing was sent yet.
LOGIN: dict[type[BaseException], type[FleetError]] = {
    asyncssh.HostKeyNotVerifiable: HostKeyMismatch,
    asyncssh.PermissionDenied: AuthFailed,
    asyncssh.IllegalUserName: AuthFailed,
    asyncssh.PasswordChangeRequired: AuthFailed,
    asyncssh.KeyImportError: AuthFailed,
    asyncssh.KeyEncryptionError: AuthFailed,
    asyncssh.KeyExportError: AuthFailed,
    asyncssh.KeyGenerationError: AuthFailed,
    asyncssh.ConnectionLost: Unreachable,
    asyncssh.KeyExchangeFailed: Unreachable,
    asyncssh.CompressionError: Unreachable,
    asyncssh.MACError: Unreachable,
    asyncssh.ProtocolError: Unreachable,
    asyncssh.ProtocolNotSupported: Unreachable,
    asyncssh.ServiceNotAvailable: Unreachable,
    asyncssh.DisconnectError: Unreachable,
    asyncssh.ChannelOpenError: Unreachable,
    asyncssh.ChannelListenError: Unreachable,
    asyncssh.ProcessError: Unreachable,
    asyncssh.TimeoutError: Unreachable,
    asyncssh.SFTPError: Unreachable,
    asyncssh.BreakReceived: Unreachable,
    asyncssh.SignalReceived: Unreachable,
    asyncssh.TerminalSizeChanged: Unreachable,
    asyncssh.ConfigParseError: Unreachable,
    asyncssh.Error: Unreachable,
    socket.gaierror: Unreachable,
    TimeoutError: Unreachable,
    asyncio.IncompleteReadError: Unreachable,
    OSError: Unreachable,
}

HINTS: dict[type[FleetError], str] = {
    HostKeyMismatch: "Compare the key that it shows with what its owner says, then set host_key. Nothing was sent.",
    AuthFailed: "Check the account's name and that its authorized_keys has this credential's public key.",
    Unreachable: "Check address, port, firewall and that sshd runs.",
}


def expected(error: BaseException) -> type[FleetError] | None:
    """The class that stands for `error` during a login, or None when it is none of theirs (a bug)."""
    for base in type(error).__mro__:
        if base in LOGIN:
            return LOGIN[base]
    return None


def login_error(error: BaseException, name: str) -> FleetError:
    """The error of a login that failed. Raises `error` itself when it is none of asyncssh's or the socket layer's."""
    kind = expected(error)
    if kind is None:
        raise error
    message = str(error) or ("no answer in time" if isinstance(error, TimeoutError) else type(error).__name__)
    return kind(f"{name}: {message}", hint=HINTS[kind])
