"""Whatever environment our scripts are called with, root runs the system's programs and writes for itself only."""

import os
import re
import subprocess
from pathlib import Path

import pytest

from fleet.ssh.quoting import SCRIPTS, TAKES_IN, script_text

PROLOGUE = script_text("prologue.sh")[0]
CALLED = sorted(path.name for path in SCRIPTS.values() if path.read_text().startswith("#!/bin/sh\n"))
QMAILS = {f"qmail_{part}.sh" for part in ("queue", "move", "finish", "choose", "act")} | {"pipe.sh"}
PARTS = (
    {"prologue.sh", "pipefail.sh", "fence.sh", "exchange.sh", "enter.sh", "place.sh"}
    | QMAILS
    | {f"sendmail_{part}.sh" for part in ("queues", "hold", "quarantine")}
    | {"exim_each.sh", "log_since.sh", "opensmtpd_envelopes.sh", "opensmtpd_settle.sh", "postfix_instance.sh"}
)


def commands_of(text: str) -> str:
    """The text from its first command on."""
    return re.sub(r"\A(#.*\n|\n)*", "", text)


def test_the_scripts_and_their_parts_are_all_that_is_installed() -> None:
    assert set(SCRIPTS) == {*CALLED, *PARTS}
    assert {part for name in CALLED for part in TAKES_IN.findall(SCRIPTS[name].read_text())} == PARTS


@pytest.mark.parametrize("name", CALLED)
def test_every_script_sets_path_language_and_umask_before_anything_else(name: str) -> None:
    first = commands_of(script_text(name)[0])
    assert first.startswith(commands_of(PROLOGUE)), name
    later = commands_of(SCRIPTS[name].read_text())
    assert not re.search(r"^\s*(umask|LC_ALL=|PATH=(?!\$PATH:/))", later, re.MULTILINE), "only there"


def test_the_prologue_names_directories_of_roots_only() -> None:
    given = {"PATH": "/evil", "TMPDIR": "/evil", "CDPATH": "/evil", "PERL5OPT": "-Mevil"}
    shell = ["/bin/sh", "-c", f"{PROLOGUE}\necho $PATH; umask; env"]
    said = subprocess.run(shell, env=given, capture_output=True, text=True, check=True).stdout.splitlines()
    assert said[:2] == ["/usr/sbin:/usr/bin:/sbin:/bin:/usr/local/sbin:/usr/local/bin", "0077"]
    assert not [line for line in said if "evil" in line]
    assert "LC_ALL=C" in said


PROGRAMS = """awk cat chmod cut date env find flock getent grep head hostname id journalctl mkdir mktemp postconf ps
    readlink sed sha256sum sort ss stat sudo tail tr uname wc xargs"""


@pytest.mark.parametrize("name", CALLED)
def test_no_script_runs_a_program_from_the_callers_path(name: str, tmp_path: Path) -> None:
    for program in PROGRAMS.split():
        (tmp_path / program).write_text(f"#!/bin/sh\necho {program} >>{tmp_path}/called\n")
        (tmp_path / program).chmod(0o755)
    subprocess.run(
        ["/bin/sh", "-c", script_text(name)[0], name, *["/nonexistent/x"] * 7],
        input=b"fence 0\n0 0 0 0\n",
        env={"PATH": f"{tmp_path}:{os.environ['PATH']}", "TMPDIR": str(tmp_path), "IFS": "/"},
        capture_output=True,
        timeout=20,
    )
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted(PROGRAMS.split())
