"""A part of a script that is ended by a signal, as by a kernel out of memory, ends the script: half is never told."""

from pathlib import Path

import pytest

from fleet.mta.types import Command, Completed
from tests.unit.real_scripts import run_script
from tests.unit.sendmail_host import ARRIVAL, SendmailHost

ID = "AAAAAA1"


def killed(directory: Path, program: str) -> Path:
    """Programs with one among them that is ended as soon as it begins."""
    tools = directory / "tools"
    tools.mkdir()
    (tools / program).write_text("#!/bin/sh\nkill -KILL $$\n")
    (tools / program).chmod(0o755)
    return tools


def is_refused(done: Completed) -> bool:
    return done.exit_status in (70, 74) and b"end\n" not in done.stdout


@pytest.mark.parametrize(("action", "program"), [("out", "mv"), ("back", "mv"), ("erase", "rm"), ("look", "find")])
def test_of_postfix(tmp_path: Path, action: str, program: str) -> None:
    there = tmp_path / "queue/mxfleet-quarantine/job-1"
    there.mkdir(parents=True)
    (tmp_path / "queue/hold").mkdir()
    for directory in (there.parent, there):
        directory.chmod(0o700)
    ((tmp_path / "queue/hold" if action == "out" else there) / ID).write_text("x")
    words = (action, str(tmp_path / "queue"))
    stdin = f"job-1\n{ID}\n".encode()
    command = Command(words, script="postfix_quarantine.sh", stdin=stdin, mutates=action != "look")
    assert is_refused(run_script(command, killed(tmp_path, program)))
    whole = run_script(command)
    assert (whole.exit_status, whole.stdout) == (0, f"{ID}\nend\n".encode() if action in ("out", "look") else b"end\n")


@pytest.mark.parametrize(
    ("action", "program"), [("out", "find"), ("out", "sort"), ("out", "mv"), ("back", "cut"), ("back", "mv")]
)
def test_of_sendmail(tmp_path: Path, action: str, program: str) -> None:
    host = SendmailHost(tmp_path / "host")
    name = host.add("6AKAxcId000281")
    words = (action, "none", f"{host.root}/mqueue/q1")
    stdin = f"job-1\n{name} {ARRIVAL} news@bulk.example\n".encode()
    command = Command(words, script="sendmail_change.sh", stdin=stdin, mutates=True)
    if action == "back":
        assert (
            run_script(Command(("out", *words[1:]), script="sendmail_change.sh", stdin=stdin, mutates=True)).exit_status
            == 0
        )
    assert is_refused(run_script(command, killed(tmp_path, program)))
    assert run_script(command).exit_status == 0


@pytest.mark.parametrize(("program", "status"), [("xargs", 74), ("grep", 64), ("nothing", 0)])
def test_of_exim(tmp_path: Path, program: str, status: int) -> None:
    exim = tmp_path / "exim"
    exim.write_text("#!/bin/sh\nexit 1\n")
    exim.chmod(0o755)
    command = Command(
        ("out", str(exim), str(tmp_path)), script="exim_quarantine.sh", stdin=b"job-1\n1xUMSQ-00005F-0r\n", mutates=True
    )
    done = run_script(command, killed(tmp_path, program))
    assert (done.exit_status, b"end\n" in done.stdout) == (status, status == 0), done


@pytest.mark.parametrize(("fake", "status"), [("kill -KILL $$", 70), ("exit 1", 0)])
def test_of_sendmails_delete_which_keeps_the_data_of_a_queue_file_that_stays(
    tmp_path: Path, fake: str, status: int
) -> None:
    host = SendmailHost(tmp_path / "host")
    name = host.add("6AKAxcId000281")
    before = host.files()
    tools = killed(tmp_path, "rm")
    (tools / "rm").write_text(f'#!/bin/sh\ncase $* in *[qd]f6AK*) {fake} ;; esac\nexec /bin/rm "$@"\n')
    stdin = f"job-1\n{name} {ARRIVAL} news@bulk.example\n".encode()
    words = ("delete", "none", f"{host.root}/mqueue/q1")
    done = run_script(Command(words, script="sendmail_change.sh", stdin=stdin, mutates=True), tools)
    assert done.exit_status == status, done
    assert host.files() == before
    assert f"{name} done".encode() not in done.stdout
