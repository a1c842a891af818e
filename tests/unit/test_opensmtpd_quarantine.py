"""opensmtpd_quarantine.sh on real files: how little it runs, and what it leaves where it is."""

import os
from collections import Counter
from pathlib import Path

import pytest

from fleet.mta.steps import Command, Completed
from tests.unit import real_scripts, smtpd_spool
from tests.unit.real_scripts import run_script

CREATED = 1795172609
COUNTED = """#!/bin/sh
echo {name} "$1" >>{log}
{text}
"""
NAMES = tuple(f"{number:02x}17e3a5" for number in range(24))


@pytest.fixture(autouse=True)
def _own_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "run").mkdir()
    monkeypatch.setattr(real_scripts, "RUN", str(tmp_path / "run"))


@pytest.fixture
def spool(tmp_path: Path) -> Path:
    """Messages, and programs that count themselves."""
    for name in NAMES:
        smtpd_spool.add(tmp_path / "spool", name)
    (tmp_path / "tools").mkdir()
    put(tmp_path, "smtpctl", smtpd_spool.SMTPCTL.format(spool=tmp_path / "spool"))
    for name in ("ln", "mv"):
        put(tmp_path, name, f'exec /usr/bin/{name} "$@"')
    put(tmp_path, "sleep", "")
    return tmp_path / "spool"


def put(at: Path, name: str, text: str) -> None:
    (at / "tools" / name).write_text(COUNTED.format(name=name, log=at / "log", text=text))
    (at / "tools" / name).chmod(0o755)


def take(spool: Path, action: str, *names: str, word: object = CREATED) -> Completed:
    words = (str(spool.parent / "tools/smtpctl"), str(spool), action)
    stdin = "".join(f"{line}\n" for line in ("job-1", *(f"{name} {word}" for name in names)))
    command = Command(words, script="opensmtpd_quarantine.sh", stdin=stdin.encode(), mutates=action != "look")
    return run_script(command, spool.parent / "tools")


def pause(spool: Path, name: str) -> None:
    for path in (spool / "queue" / name[:2] / name).glob(f"{name}*"):
        path.write_text(path.read_text().replace("|mta||", "|mta|suspend|"))


def test_a_purge_lists_the_queue_once_and_runs_three_programs_for_a_message(spool: Path) -> None:
    done = take(spool, "out", *NAMES)
    assert done.stdout.decode().split() == [*NAMES, "end"]
    ran = Counter((spool.parent / "log").read_text().splitlines())
    assert ran == {"smtpctl show": 2, "smtpctl remove": 24, "mv -n": 24, "ln --": 24}


def test_paused_envelopes_are_named_by_the_mark_and_others_are_not(spool: Path) -> None:
    pause(spool, NAMES[0])
    assert take(spool, "out", *NAMES[:2]).exit_status == 0
    there = spool / "mxfleet-quarantine/job-1"
    assert {*(there / f"{NAMES[0]}.ready").read_text().split()} == {f"{NAMES[0]}{at:08x}" for at in range(2)}
    assert (there / f"{NAMES[1]}.ready").read_text() == ""
    assert {path.name for path in (there / NAMES[0]).iterdir()} == {
        "message",
        *(f"{NAMES[0]}{at:08x}" for at in (0, 1)),
    }


def test_a_message_of_which_an_envelope_is_done_while_it_is_moved_gets_its_file_back(spool: Path) -> None:
    gone = spool / "queue" / NAMES[0][:2] / NAMES[0] / f"{NAMES[0]}00000001"
    put(spool.parent, "mv", f'rm -f {gone}; exec /usr/bin/mv "$@"')
    assert take(spool, "out", *NAMES[:2]).stdout.decode().split("\n")[:2] == [f"busy {NAMES[0]}", NAMES[1]]
    assert (gone.parent / "message").exists()
    assert not (spool / "mxfleet-quarantine/job-1" / NAMES[0]).exists()


def test_a_message_of_which_an_envelope_could_not_be_linked_is_not_removed(spool: Path) -> None:
    put(spool.parent, "ln", f'case $* in *{NAMES[0]}*) exit 1 ;; esac; exec /usr/bin/ln "$@"')
    assert take(spool, "out", *NAMES[:2]).stdout.decode().split() == [NAMES[1], "end"]
    assert (spool / "queue" / NAMES[0][:2] / NAMES[0] / "message").exists()
    assert (spool.parent / "log").read_text().count("smtpctl remove") == 1


@pytest.mark.parametrize("program", ["mv", "ln", "smtpctl"])
def test_a_program_that_is_killed_for_one_message_ends_the_run_and_the_next_one_finds_all(
    spool: Path, program: str
) -> None:
    text = (spool.parent / "tools" / program).read_text().partition("\n")[2]
    cut = f"case $*{spool} in show*) ;; *{NAMES[3]}*) kill -KILL $$ ;; esac"
    put(spool.parent, program, f"{cut}\n{text}")
    assert take(spool, "out", *NAMES[:6]).exit_status == 74
    put(spool.parent, program, text)
    assert set(take(spool, "out", *NAMES[:6]).stdout.decode().split()) == {*NAMES[:6], "end"}
    assert not [name for name in NAMES[:6] if (spool / "queue" / name[:2] / name).exists()]


def test_names_that_smtpd_did_not_make_are_no_arguments(spool: Path) -> None:
    home = spool / "queue" / NAMES[0][:2] / NAMES[0]
    outside = spool.parent / "outside"
    outside.mkdir()
    planted = ("        ", "\n -sf .. ", " '\"\\    ", "00000002")
    for name in planted[:3]:
        (home / f"{NAMES[0]}{name}").write_text("x")
    os.symlink(outside, home / f"{NAMES[0]}{planted[3]}")
    done = take(spool, "out", NAMES[0], NAMES[1])
    assert NAMES[1] in done.stdout.decode().split()
    assert {path.name for path in outside.iterdir()} == set()
    assert {path.name for path in spool.iterdir()} == {"queue", "mxfleet-quarantine"}


def test_links_that_an_earlier_run_has_left_are_not_taken_for_what_is_queued_now(spool: Path) -> None:
    """It gave the message back and was ended before it removed them; one recipient has his mail since."""
    for name in NAMES[:2]:
        copy = spool / "mxfleet-quarantine/job-1" / name
        copy.mkdir(parents=True)
        for at in (0, 5):
            (copy / f"{name}{at:08x}").write_text("as it was\n")
    put(spool.parent, "rm", f'case $* in -rf*/{NAMES[0]}) kill -KILL $$ ;; esac; exec /usr/bin/rm "$@"')
    assert take(spool, "out", *NAMES[:2]).stdout.decode().split() == [NAMES[1], "end"]
    copy = spool / "mxfleet-quarantine/job-1" / NAMES[1]
    assert {path.name for path in copy.iterdir()} == {"message", f"{NAMES[1]}00000000", f"{NAMES[1]}00000001"}
    assert "as it was" not in (copy / f"{NAMES[1]}00000000").read_text()
    assert (spool / "queue" / NAMES[0][:2] / NAMES[0] / "message").exists()


def test_a_message_whose_file_has_another_in_its_place_is_kept(spool: Path) -> None:
    copy = spool / "mxfleet-quarantine/job-2" / NAMES[0]
    copy.mkdir(parents=True)
    (copy / "message").write_text("Subject: another\n")
    assert take(spool, "out", NAMES[1]).exit_status == 0
    assert (copy / "message").read_text() == "Subject: another\n"


def test_a_paused_message_whose_file_did_not_come_back_is_brought_back_by_the_next_run(spool: Path) -> None:
    pause(spool, NAMES[0])
    assert take(spool, "out", NAMES[0]).exit_status == 0
    home = spool / "queue" / NAMES[0][:2] / NAMES[0]
    put(spool.parent, "mv", 'case $* in *.back*queue/*) kill -KILL $$ ;; esac; exec /usr/bin/mv "$@"')
    assert take(spool, "back", NAMES[0], word="schedule").exit_status == 74
    assert not (home / "message").exists()
    put(spool.parent, "mv", 'exec /usr/bin/mv "$@"')
    assert take(spool, "look").exit_status == 0
    assert (home / "message").read_text().startswith(f"Subject: {NAMES[0]}")
    assert {path.name for path in (spool / "mxfleet-quarantine").rglob("*")} <= {"lock", "job-1"}
