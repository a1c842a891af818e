"""The one place that quotes: a `Command` becomes one line for a POSIX login shell."""

import hashlib
import re
import shlex
from functools import cache
from pathlib import Path

from fleet.mta.host.commands import HELPERS
from fleet.mta.steps import Command

PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
MTA = Path(__file__).resolve().parent.parent / "mta"
SCRIPTS = {path.name: path for path in (*MTA.glob("scripts/*.sh"), *MTA.glob("*/scripts/*.sh"))}
"""By name, as they are installed: those that several MTAs have, and those of each."""
KILL_AFTER = 5  # seconds between TERM and KILL, timeout(1) -k
# One argument of execve(2) may be 128 KiB on Linux (MAX_ARG_STRLEN), and the whole line is one for the login shell.
LONGEST = 120 * 1024

FENCE = "fence.sh"
TAKES_IN = re.compile(r'^# shellcheck source=(\w+\.sh)\n\. "\$\{0%/\*\}/\1"\n', re.MULTILINE)
"""How a script takes in a part, such as fence.sh: where it is installed, from the file beside it."""

BEGIN = b"mxfleet::begin\n"
"""Comes before the command's own output, behind whatever the login's profile prints."""
PREFIX = f"echo {BEGIN.decode().strip()}; exec env LC_ALL=C PATH={PATH} "
END = "mxfleet::end"
# Ends as the command did: by its signal too, so that sshd tells that.
ENDING = """"$@"; s=$?; echo "{end} $s"; [ $s -le 128 ] || kill -$((s - 128)) $$ 2>/dev/null; exit $s"""
NOTHING: frozenset[tuple[str, str]] = frozenset()


@cache
def script_text(name: str) -> tuple[str, str]:
    """A script's text as it travels, with its parts, and the sha256 hex of its file.

    Raises ValueError for a name that is not ours.
    """
    if name not in SCRIPTS:
        raise ValueError(f"not the name of a script: {name!r}")
    content = SCRIPTS[name].read_bytes()
    text = TAKES_IN.sub(lambda part: script_text(part[1])[0], content.decode("ascii"))
    return text, hashlib.sha256(content).hexdigest()


@cache
def files_of(name: str) -> frozenset[str]:
    """The names of the script's own file and of those that it takes in."""
    parts = TAKES_IN.findall(SCRIPTS[name].read_text("ascii"))
    return frozenset({name}).union(*(files_of(part) for part in parts))


def is_fenced(name: str) -> bool:
    """Whether the script has fence.sh in it."""
    return FENCE in files_of(name) - {name}


def _is_installed(name: str, helpers: frozenset[tuple[str, str]]) -> bool:
    """Whether the host's file, and those of what it takes in, are those of this release."""
    return all((each, script_text(each)[1]) in helpers for each in files_of(name))


def stdin_of(command: Command) -> bytes:
    """The bytes that go to the command's stdin: for a changing script its fence comes first."""
    if command.script is None or not command.mutates:
        return command.stdin
    return f"fence {command.fence}\n".encode() + command.stdin


def words(command: Command, helpers: frozenset[tuple[str, str]] = NOTHING) -> tuple[str, ...]:
    """The argument vector that runs on the host: the command's own, or that of its script.

    A script that needs no root always travels, so that discovery works on a host whose installed helpers are gone.
    Raises ValueError for one that changes the host and does not check its fence.
    """
    if command.script is None:
        if not command.argv or not command.argv[0] or command.argv[0].startswith("-"):
            raise ValueError("a command needs a program as its first word")
        return command.argv
    text, _ = script_text(command.script)
    if command.mutates and not is_fenced(command.script):
        raise ValueError(f"{command.script} changes the host and checks no fence")
    if command.become and _is_installed(command.script, helpers):
        return (f"{HELPERS}/{command.script}", *command.argv)
    return ("/bin/sh", "-c", text, command.script, *command.argv)


def end_mark(token: str) -> bytes:
    """Comes behind the command's own output, before its exit status and what a wrapper of the login (ForceCommand)
    prints. `token`: of this command alone, so that nothing that it tells of others is taken for its end."""
    return f"{END}-{token} ".encode()


def render(
    command: Command, become: str, helpers: frozenset[tuple[str, str]] = NOTHING, end: bytes = end_mark("0")
) -> str:
    """The line to send. `become` is the endpoint's: with "none" the account itself has the rights.

    sudo stands outside timeout(1): only root's timeout can kill what root runs. Bytes that are no UTF-8 are carried as
    surrogates (os.fsencode's way); the transport encodes them back. Raises ValueError for NUL and over-long lines.
    """
    argv = words(command, helpers)
    line = f"timeout -k {KILL_AFTER} {command.timeout} {shlex.join(argv)}"
    if command.become and become == "sudo":
        line = f"sudo -n {line}"
    ending = ENDING.format(end=end.decode().strip())
    line = f"{PREFIX}/bin/sh -c {shlex.quote(ending)} sh {line}"
    if "\0" in line:
        raise ValueError("an argument contains NUL, which no command line can carry")
    if len(line) > LONGEST:
        raise ValueError(f"the command line has {len(line)} characters, more than {LONGEST}: use stdin")
    return line


def encode(line: str) -> bytes:
    """The line's bytes as they go out."""
    return line.encode("utf-8", "surrogateescape")


def masked(command: Command) -> tuple[str, ...]:
    """The command as people may see it: script name and arguments, secret ones masked."""
    argv = tuple("***" if at in command.secret else word for at, word in enumerate(command.argv))
    return argv if command.script is None else (command.script, *argv)
