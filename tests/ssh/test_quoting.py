"""Quoting: what an adapter puts into argv arrives byte for byte, and nothing of it is ever executed."""

import hashlib
import os
from dataclasses import replace
from pathlib import Path

import pytest

from fleet.mta.errors import UnparsedOutput
from fleet.mta.steps import Command
from fleet.ssh import quoting
from fleet.ssh.pool import Pool
from fleet.ssh.quoting import LONGEST, masked, render, script_text, stdin_of
from tests.ssh.carry import carried
from tests.ssh.sshd import Sshd

HOSTILE = [
    "a@b;touch CANARY",
    "$(touch CANARY)@x.y",
    "`touch CANARY`@x.y",
    "a@b|touch CANARY",
    "a@b&&touch CANARY",
    "a@b&touch CANARY&",
    "\\'\";touch CANARY;#",
    "o'brien@example.com",
    "user+tag=1@example.com",
    "a/b@x.org",
    "{x}@y.org",
    "{a,b}",
    "!foo@example.com",
    "!!",
    "<>",
    ">CANARY",
    "<CANARY",
    '"quoted local"@example.com',
    "a@b.c\nOK@x.y REJECT",
    "a@b.c\r\nBcc: z",
    " a@b.c",
    "trailing ",
    "a@b.c #x",
    "a@b.c\tOK",
    "x" * 10_000,
    "a@b@c",
    "",
    "'",
    '"',
    "\\",
    "\\\\n",
    "'\\''",
    "\n",
    "\n\n",
    "$HOME ${PATH} $$ $? $0 $1",
    "*",
    "~",
    "~root",
    "?[a-z]*",
    "-n",
    "--help",
    "%s%n",
    "a=b",
    "üser@exämple.com",
    "\x01\x02\x1b[2J\x07\x7f",
    b"raw \xff\xfe\x80 bytes".decode("utf-8", "surrogateescape"),
    "\u202e\u200b",
]


def forget() -> None:
    quoting.script_text.cache_clear()
    quoting.files_of.cache_clear()


@pytest.fixture(params=["dash", "bash"])
def login_shell(request: pytest.FixtureRequest, own_sshd: Sshd) -> Sshd:
    """Hands the line to the shell as sshd hands it to a login shell: as the one argument of -c."""
    return own_sshd.start(f'ForceCommand exec /bin/{request.param} -c "$SSH_ORIGINAL_COMMAND"\n')


async def test_hostile_arguments_arrive_byte_identical_and_run_nothing(
    login_shell: Sshd, pool: Pool, tmp_path: Path
) -> None:
    canary = tmp_path / "canary"
    hostile = [text.replace("CANARY", str(canary)) for text in HOSTILE]
    for text in hostile:
        done = await carried(pool, login_shell.endpoint(), "/usr/bin/printf", "%s", text)
        assert (done.exit_status, done.stdout) == (0, os.fsencode(text)), text
    together = await carried(pool, login_shell.endpoint(), "/usr/bin/printf", "%s\\0", *hostile)
    assert together.stdout == b"".join(os.fsencode(text) + b"\0" for text in hostile)
    assert not canary.exists()


NOISE = 'printf "Welcome to mx1\\nnews: "; echo oops >&2; '


async def test_what_a_login_prints_is_not_the_commands(own_sshd: Sshd, pool: Pool) -> None:
    endpoint = own_sshd.start(f'ForceCommand {NOISE} exec /bin/sh -c "$SSH_ORIGINAL_COMMAND"\n').endpoint()
    done = await carried(pool, endpoint, "printf", "%s", "a\nend\n")
    assert (done.stdout, done.noise, done.stderr) == (b"a\nend\n", b"Welcome to mx1\nnews: ", b"oops\n")


@pytest.mark.parametrize(
    "sound", ['sh -c "$SSH_ORIGINAL_COMMAND"; rc=$?; echo bye; exit $rc', 'sh -c "$SSH_ORIGINAL_COMMAND"; echo bye']
)
async def test_what_a_wrapper_prints_behind_is_not_the_commands_nor_is_its_status(
    sound: str, own_sshd: Sshd, pool: Pool
) -> None:
    endpoint = own_sshd.start(f"ForceCommand {sound}\n").endpoint()
    done = await carried(pool, endpoint, "printf", "%s", "a\nend\n")
    assert (done.exit_status, done.stdout, done.noise) == (0, b"a\nend\n", b"bye\n")
    assert (await carried(pool, endpoint, "false")).exit_status == 1


async def test_an_answer_cannot_pose_as_its_end(sshd: Sshd, pool: Pool) -> None:
    said = "mxfleet::end-0 0\nmxfleet::end-"
    assert (await carried(pool, sshd.endpoint(), "printf", "%s", said)).stdout == said.encode()


async def test_a_login_that_never_stops_printing_is_named(own_sshd: Sshd, pool: Pool) -> None:
    endpoint = own_sshd.start("ForceCommand exec yes welcome\n").endpoint()
    with pytest.raises(UnparsedOutput, match="the login prints more than"):
        await carried(pool, endpoint, "true")


async def test_a_script_gets_hostile_arguments_byte_identical(
    login_shell: Sshd, pool: Pool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "say.sh").write_text('# it\'s a "test"; `touch x` $(y)\nprintf \'%s\\0\' "$0" "$@"\n')
    monkeypatch.setattr(quoting, "SCRIPTS", {path.name: path for path in tmp_path.iterdir()})
    forget()
    done = await carried(pool, login_shell.endpoint(), *HOSTILE, script="say.sh")
    forget()
    assert done.stdout == b"".join(os.fsencode(text) + b"\0" for text in ["say.sh", *HOSTILE])


@pytest.mark.parametrize("command", [Command(("echo", "a\0b")), Command(("echo\0",))])
def test_nul_is_refused(command: Command) -> None:
    with pytest.raises(ValueError, match="NUL"):
        render(command, "sudo")


def test_sudo_stands_outside_timeout_so_that_root_can_end_what_root_runs() -> None:
    line = render(Command(("postsuper", "-d", "-"), become=True, timeout=7), "sudo")
    assert line == (
        "echo mxfleet::begin; exec env LC_ALL=C PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin "
        f"/bin/sh -c '{quoting.ENDING.format(end='mxfleet::end-0')}' sh sudo -n timeout -k 5 7 postsuper -d -"
    )


@pytest.mark.parametrize(("become", "wanted"), [("none", True), ("sudo", False), ("none", False)])
def test_without_need_or_without_sudo_the_command_runs_directly(become: str, wanted: bool) -> None:
    assert " sudo " not in render(Command(("mailq",), become=wanted), become)


def test_an_installed_helper_is_used_only_for_root_and_when_its_digest_is_ours(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "edit.sh").write_text("exit 0\n")
    monkeypatch.setattr(quoting, "SCRIPTS", {path.name: path for path in tmp_path.iterdir()})
    forget()
    ours = hashlib.sha256(b"exit 0\n").hexdigest()
    command = Command(("a b",), script="edit.sh", become=True)
    installed = frozenset({("edit.sh", ours)})
    assert render(command, "none", installed).endswith("timeout -k 5 30 /usr/local/libexec/mxfleet/edit.sh 'a b'")
    unprivileged = Command(("a b",), script="edit.sh")
    assert render(unprivileged, "none", installed).endswith("/bin/sh -c 'exit 0\n' edit.sh 'a b'")
    for other in (frozenset({("edit.sh", "0" * 64)}), frozenset({("other.sh", ours)}), frozenset()):
        assert render(command, "none", other).endswith("/bin/sh -c 'exit 0\n' edit.sh 'a b'")
    forget()


def test_a_changing_script_gets_its_fence_as_the_first_line_of_stdin_and_nothing_else_does() -> None:
    changing = Command(("a",), script="exim_change.sh", stdin=b"x\n", mutates=True, fence=1_764_470_000_000_000)
    assert stdin_of(changing) == b"fence 1764470000000000\nx\n"
    assert stdin_of(replace(changing, fence=0)) == b"fence 0\nx\n"
    assert stdin_of(replace(changing, mutates=False)) == b"x\n"
    assert stdin_of(replace(changing, script=None)) == b"x\n"


def test_a_script_that_changes_and_checks_no_fence_is_refused() -> None:
    with pytest.raises(ValueError, match="fence"):
        render(Command((), script="postfix_times.sh", mutates=True), "none")


def test_a_script_travels_with_its_parts_and_is_called_when_all_its_files_are_installed() -> None:
    command = Command(("exim4", "-Mf"), script="exim_change.sh", become=True, mutates=True)
    travelling = render(command, "sudo")
    assert "check_fence() {" in travelling
    assert "umask 077" in travelling
    assert '. "${0%/*}' not in travelling
    files = {(name, script_text(name)[1]) for name in ("exim_change.sh", "fence.sh", "pipefail.sh", "prologue.sh")}
    called = "/usr/local/libexec/mxfleet/exim_change.sh exim4 -Mf"
    assert render(command, "sudo", frozenset(files)).endswith(called)
    for one in files:
        for other in (files - {one}, files - {one} | {(one[0], "0" * 64)}):
            assert render(command, "sudo", frozenset(other)) == travelling


@pytest.mark.parametrize("name", ["../../etc/passwd", "/bin/sh", "x"])
def test_only_our_own_scripts_have_names(name: str) -> None:
    with pytest.raises(ValueError, match="script"):
        render(Command((), script=name), "none")


@pytest.mark.parametrize("argv", [(), ("",), ("-rf",)])
def test_a_command_without_a_program_is_refused(argv: tuple[str, ...]) -> None:
    with pytest.raises(ValueError, match="program"):
        render(Command(argv), "none")


def test_a_line_that_no_shell_takes_is_refused_before_it_is_sent() -> None:
    with pytest.raises(ValueError, match="stdin"):
        render(Command(("echo", "x" * LONGEST)), "none")


def test_secret_arguments_are_masked_when_shown_only() -> None:
    command = Command(("login", "-p", "hunter2"), secret=frozenset({2}))
    assert masked(command) == ("login", "-p", "***")
    assert "hunter2" in render(command, "none")
