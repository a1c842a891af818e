"""The mapping table knows every error of the library below."""

import inspect
import socket

import asyncssh
import pytest

from fleet.mta.errors import AuthFailed, FleetError, HostKeyMismatch, NothingSent, Unreachable
from fleet.ssh.errors import LOGIN, expected, login_error

PUBLIC = [
    value
    for name, value in vars(asyncssh).items()
    if not name.startswith("_") and inspect.isclass(value) and issubclass(value, BaseException)
]


@pytest.mark.parametrize("error", PUBLIC)
def test_every_public_error_of_asyncssh_is_mapped(error: type[BaseException]) -> None:
    assert error in LOGIN or issubclass(error, asyncssh.SFTPError)


@pytest.mark.parametrize(
    ("error", "kind"),
    [
        (asyncssh.HostKeyNotVerifiable("x"), HostKeyMismatch),
        (asyncssh.PermissionDenied("x"), AuthFailed),
        (asyncssh.ConnectionLost("x"), Unreachable),
        (TimeoutError(), Unreachable),
        (ConnectionRefusedError(111, "refused"), Unreachable),
        (socket.gaierror(-2, "unknown"), Unreachable),
        (asyncssh.SFTPNoSuchFile("x"), Unreachable),
    ],
)
def test_a_failed_login_has_a_name_a_host_and_a_hint(error: Exception, kind: type[FleetError]) -> None:
    mapped = login_error(error, "mx1")
    assert type(mapped) is kind
    assert mapped.detail.startswith("mx1: ")
    assert mapped.hint


def test_all_that_a_login_raises_says_that_nothing_was_sent() -> None:
    assert all(issubclass(kind, NothingSent) for kind in LOGIN.values())


def test_a_bug_of_ours_is_not_called_the_network() -> None:
    assert expected(KeyError("x")) is None
    with pytest.raises(KeyError):
        login_error(KeyError("x"), "mx1")
