"""The installer: one script, the same for the same content, and what it refuses; what it does is tried in the lab."""

import io
import os
import shutil
import subprocess
import tarfile
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import yaml

from fleet.installer.role import role_of
from fleet.installer.script import Installation, script_for
from fleet.mta import REGISTRY
from fleet.ssh.quoting import SCRIPTS

KEY = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIFR5cGUgYnkgaGFuZCwgMzIgYnl0ZXMgbG9uZy4u"
WANTED = Installation("mx1", "mxfleet", KEY, known=("postfix",), sudoers="# rules\n")
SHELLS = [["dash"], ["bash", "--posix"], ["busybox", "ash"]]


def run(script: bytes, shell: list[str], *arguments: str, **options: Any) -> subprocess.CompletedProcess[str]:
    """What the script comes to for somebody who is not root."""
    nobody = [] if os.getuid() else ["setpriv", "--reuid=65534", "--regid=65534", "--clear-groups"]
    command = [*nobody, *shell, "-s", "--", *arguments]
    return subprocess.run(command, input=script.decode(), capture_output=True, text=True, **options)


@pytest.fixture(params=SHELLS, ids=lambda shell: shell[0])
def shell(request: pytest.FixtureRequest) -> list[str]:
    words: list[str] = request.param
    assert shutil.which(words[0]), f"{words[0]} is not installed"
    return words


def test_who_is_not_root_is_refused(shell: list[str]) -> None:
    done = run(script_for(WANTED), shell)
    assert (done.returncode, done.stderr) == (77, "mxfleet: only root can do that\n")


def test_an_unknown_word_is_refused(shell: list[str]) -> None:
    done = run(script_for(WANTED), shell, "remove")
    assert done.returncode == 64
    assert "uninstall" in done.stderr


def test_a_script_that_was_cut_off_does_nothing(shell: list[str]) -> None:
    whole = script_for(WANTED)
    assert whole.endswith(b'\nmain "$@"\n')
    done = run(whole.removesuffix(b'main "$@"\n'), shell)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


def test_every_script_is_in_it_byte_for_byte(shell: list[str], tmp_path: Path) -> None:
    unpacking = script_for(WANTED).replace(b'main "$@"\n', b'work=$1\nmkdir "$work/scripts"\nunpack\n')
    tmp_path.chmod(0o777)
    for parent in tmp_path.parents[:3]:
        parent.chmod(parent.stat().st_mode | 0o011)
    done = run(unpacking, shell, str(tmp_path))
    assert (done.returncode, done.stderr) == (0, "")
    assert {path.name: path.read_bytes() for path in (tmp_path / "scripts").iterdir()} == {
        name: path.read_bytes() for name, path in SCRIPTS.items()
    }
    assert (tmp_path / "sudoers").read_text() == WANTED.sudoers


def test_the_same_content_gives_the_same_bytes_and_each_difference_others() -> None:
    script = script_for(WANTED)
    assert script == script_for(WANTED)
    assert role_of("mx1", script) == role_of("mx1", script_for(WANTED))
    changes = {"host": "mx2", "account": "fleet", "public_key": "x", "host_key": KEY, "known": (), "sudoers": "#\n"}
    changes["next_key"] = KEY
    assert len({script, *(script_for(replace(WANTED, **{name: value})) for name, value in changes.items())}) == 8


@pytest.mark.parametrize(("next_key", "count"), [("", 1), ("ssh-ed25519 NEXT", 2)])
def test_the_key_that_comes_next_is_let_in_beside_the_present_one(
    shell: list[str], tmp_path: Path, next_key: str, count: int
) -> None:
    """By a whole that only keeps what would be authorized_keys."""
    tmp_path.chmod(0o777)
    stubs = "directory() { :; }; usermod() { :; }; getent() { echo 'mxfleet:*'; }\nplace() { cat \"$1\"; }\n"
    asked = f"work='{tmp_path}' home='{tmp_path}'\n{stubs}let_in\n"
    script = script_for(replace(WANTED, next_key=next_key)).replace(b'main "$@"\n', asked.encode())
    for parent in tmp_path.parents[:3]:
        parent.chmod(parent.stat().st_mode | 0o011)
    done = run(script, shell)
    lines = [f"restrict,port-forwarding {key} mxfleet" for key in (KEY, next_key) if key]
    assert (done.returncode, done.stdout.splitlines(), len(lines)) == (0, lines, count), done.stderr


def test_what_a_host_says_stays_text_in_it(shell: list[str], tmp_path: Path) -> None:
    """A rule is made of paths that the host told; none may end the text that it stands in."""
    told = "# $(touch told) `touch told`\nend-0123456789abcdef\ntouch told\n"
    script = script_for(replace(WANTED, account="o'touch told'", sudoers=told))
    assert run(script, shell, "--help", cwd=tmp_path).returncode == 0
    assert list(tmp_path.iterdir()) == []


def test_it_asks_for_each_mta_as_discovery_does() -> None:
    text = script_for(WANTED).decode()
    probes = text[text.rindex("\nprobe() {") :]
    assert [line.split()[1] for line in probes.splitlines() if line.startswith("    has ")] == sorted(REGISTRY)
    assert "    has sendmail sendmail_discover.sh /etc/mail\n" in probes


def test_shellcheck_finds_nothing_in_it(tmp_path: Path) -> None:
    (tmp_path / "installer.sh").write_bytes(script_for(WANTED))
    done = subprocess.run(["shellcheck", tmp_path / "installer.sh"], capture_output=True, text=True)
    assert (done.returncode, done.stdout) == (0, "")


def test_the_role_runs_the_script_and_takes_it_away_when_it_is_absent() -> None:
    with tarfile.open(fileobj=io.BytesIO(role_of("mx1", b"#!/bin/sh\n"))) as tar:
        files = {member.name: tar.extractfile(member) for member in tar.getmembers()}
        content = {name: file.read() for name, file in files.items() if file is not None}
    assert content["mxfleet/files/mx1.sh"] == b"#!/bin/sh\n"
    assert set(content) == {
        f"mxfleet/{name}" for name in ("README.md", "defaults/main.yml", "files/mx1.sh", "tasks/main.yml")
    }
    defaults = yaml.safe_load(content["mxfleet/defaults/main.yml"])
    assert defaults == {"mxfleet_host": "{{ inventory_hostname }}", "mxfleet_state": "present"}
    _, task = yaml.safe_load(content["mxfleet/tasks/main.yml"])
    assert task["become"] is True
    assert task["ansible.builtin.script"]["cmd"].startswith("{{ mxfleet_host }}.sh {{ 'install' if mxfleet_state")
