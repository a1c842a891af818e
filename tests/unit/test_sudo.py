"""sudo's refusals, its warnings, and what other programs say behind them."""

import pytest

from fleet.mta.errors import DiskFull, FleetError, MtaNotRunning, RemoteError, SudoDenied
from fleet.mta.host.commands import error_of, sudoers_line, sudoers_section
from fleet.mta.host.sudo import refusal_of
from fleet.mta.opensmtpd.parse import error_of as opensmtpd_error
from fleet.mta.postfix.parse import error_of as postfix_error
from fleet.mta.sendmail.parse import error_of as sendmail_error
from fleet.mta.steps import Completed

WARNING = b"sudo: unable to resolve host mx1: Name or service not known\n"


@pytest.mark.parametrize(
    "words",
    [
        b"sudo: a password is required\n",
        b"sudo: a terminal is required to read the password; either use the -S option or configure an askpass helper\n",
        b"sudo: no tty present and no askpass program specified\n",
        b"sudo: sorry, you must have a tty to run sudo\n",
        b'sudo: The "no new privileges" flag is set, which prevents sudo from running as root.\n',
        b"sudo: /usr/bin/sudo must be owned by uid 0 and have the setuid bit set\n",
        b"sudo: effective uid is not 0, is /usr/bin/sudo on a file system with the 'nosuid' option set?\n",
        b"sudo: no valid sudoers sources found, quitting\n",
        b"sudo: /etc/sudoers is world writable\n",
        b"sudo: account validation failure, is your account locked?\n",
        b"sudo: PAM account management error: Permission denied\n",
        b"sudo: timeout: command not found\n",
        b"sudo: sorry, you are not allowed to set the following environment variables: PATH\n",
        b"Sorry, user fleetops is not allowed to execute '/usr/bin/timeout' as root on mx1.\n",
        b"fleetops is not in the sudoers file.\n",
        b"fleetops is not in the sudoers file.\nThis incident has been reported to the administrator.\n",
        b"/etc/sudoers:5:10: syntax error\nfoo bar\n    ^~~\nsudo: no valid sudoers sources found, quitting\n",
        b"sudo-rs: interactive authentication is required\n",
        b"sudo-rs: I'm sorry fleetops. I'm afraid I can't do that\n",
        WARNING + b"sudo: a password is required\n",
        b"Welcome to mx1\nsudo: a password is required\n",
    ],
)
def test_a_refusal_is_known_by_its_words(words: bytes) -> None:
    assert refusal_of(Completed(1, b"", words))
    assert isinstance(error_of(Completed(1, b"", words), "postqueue"), SudoDenied)


@pytest.mark.parametrize(
    "done",
    [
        Completed(1, b"", WARNING),
        Completed(1, b"", b"sudo: setrlimit(RLIMIT_CORE): Operation not permitted\n"),
        Completed(1, b"", WARNING + b"smtpctl: connection lost\n"),
        Completed(1, b"", b"sudo: unable to open log file: /var/log/sudo.log: Permission denied\n"),
        Completed(1, b"", b"sudo: unable to send audit message: Operation not permitted\n"),
        Completed(1, b"removed 11111111\n", b"sudo: a password is required\n"),
        Completed(0, b"", b"sudo: a password is required\n"),
        Completed(69, b"", b"sudo: a password is required\n"),
        Completed(1, b"", b"postsuper: fatal: sudo: a password is required\n"),
        # A profile that calls sudo itself, before each command.
        Completed(1, b"", b"sudo: a password is required\npostsuper: fatal: scan_dir_push: open directory hold\n"),
        Completed(1),
    ],
)
def test_a_warning_or_a_command_that_ran_is_no_refusal(done: Completed) -> None:
    assert refusal_of(done) == ""
    assert not isinstance(error_of(done, "postqueue"), SudoDenied)


@pytest.mark.parametrize(
    ("error", "kind"),
    [
        (
            postfix_error(
                Completed(69, b"", WARNING + b"postqueue: fatal: Queue report unavailable - mail system is down\n"),
                "postqueue",
            ),
            MtaNotRunning,
        ),
        (
            sendmail_error(Completed(81, b"", WARNING + b"mv: No space left on device\n"), "sendmail_change.sh"),
            DiskFull,
        ),
        (opensmtpd_error(Completed(1, b"", WARNING + b"smtpctl: connection lost\n"), "smtpctl"), RemoteError),
    ],
)
def test_a_warning_of_sudos_does_not_hide_the_cause(error: FleetError, kind: type[FleetError]) -> None:
    assert isinstance(error, kind)


@pytest.mark.parametrize("name", ["ALL", "ADMINS", "A_1"])
def test_an_account_in_capitals_is_no_word_of_sudoers(name: str) -> None:
    line = sudoers_line(name, 60, ("/usr/sbin/postqueue", "-j"))
    assert line == f'"{name}" ALL=(root) NOPASSWD: /usr/bin/timeout -k 5 60 /usr/sbin/postqueue -j'
    rule = sudoers_section(name, 1, [line])
    assert f'\n"{name}" ALL=(root) NOPASSWD: MXFLEET_{name}_1\n' in rule
    assert f"Cmnd_Alias MXFLEET_{name}_1 = \\\n    /usr/bin/timeout -k 5 60" in rule


def test_other_accounts_stand_in_sudoers_as_they_are() -> None:
    assert sudoers_line("mxfleet", 60, ("/bin/x",)) == "mxfleet ALL=(root) NOPASSWD: /usr/bin/timeout -k 5 60 /bin/x"
