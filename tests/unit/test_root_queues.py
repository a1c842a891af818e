"""Quarantines of ours in queue directories that belong to an MTA's account: no link of its is followed."""

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from fleet.mta.steps import Command, Completed
from tests.unit import real_scripts
from tests.unit.real_scripts import run_script
from tests.unit.root_scripts import OTHER
from tests.unit.sendmail_host import queue_file
from tests.unit.test_fence import CASES
from tests.unit.test_root_scripts import tree

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="only root has something to lose here")

SENDMAIL = "6AKAxcId000281"


@pytest.fixture(autouse=True)
def _own_run(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(real_scripts, "RUN", str(tmp_path_factory.mktemp("run")))


def run(name: str, argv: tuple[str, ...], stdin: str, tools: Path | None = None) -> Completed:
    return run_script(Command(argv, script=name, stdin=stdin.encode(), mutates=True), tools)


def victim_in(directory: Path) -> Path:
    victim = directory / "victim"
    for kind in ("mess", "info", "job-1", "job-1/mess"):
        (victim / kind).mkdir(parents=True, mode=0o755)
    for name in ("file", f"qf{SENDMAIL}", f"df{SENDMAIL}", "AAAAAA1", "job-1/AAAAAA1"):
        (victim / name).write_text("secret\n")
    return victim


def first_level(place: Path, victim: Path) -> None:
    (place / "mxfleet-quarantine").symlink_to(victim)


def second_level(place: Path, victim: Path) -> None:
    (place / "mxfleet-quarantine").mkdir(mode=0o700)
    (place / "mxfleet-quarantine/job-1").symlink_to(victim)


def not_ours(place: Path, victim: Path) -> None:
    (place / "mxfleet-quarantine").mkdir(mode=0o700)
    os.chown(place / "mxfleet-quarantine", OTHER, OTHER)


@pytest.mark.parametrize("plant", [first_level, second_level, not_ours])
@pytest.mark.parametrize("action", ["out", "back", "erase"])
@pytest.mark.parametrize("name", ["postfix_quarantine.sh", "sendmail_change.sh"])
def test_a_quarantine_that_is_no_directory_of_ours_is_not_entered(
    name: str, action: str, plant: Callable[[Path, Path], None], tmp_path: Path
) -> None:
    case = CASES[name](tmp_path)
    place = tmp_path / "q1" if name.startswith("sendmail") else tmp_path
    os.chown(place, OTHER, OTHER)
    victim = victim_in(tmp_path)
    plant(place, victim)
    before = tree(victim)
    queued = case.files()
    done = run(name, (action, *case.argv[1:]), case.stdin)
    assert tree(victim) == before
    assert case.files() == queued
    assert done.exit_status == (0 if plant is not_ours and action != "out" else 77), done


@pytest.mark.parametrize("action", ["delete", "out", "hold"])
@pytest.mark.parametrize("part", ["qf", "df"])
def test_a_link_of_the_queues_owner_in_the_place_of_qf_or_df_is_not_followed(
    part: str, action: str, tmp_path: Path
) -> None:
    case = CASES["sendmail_change.sh"](tmp_path)
    place, victim = tmp_path / "q1", victim_in(tmp_path)
    os.chown(place, OTHER, OTHER)
    (victim / f"qf{SENDMAIL}").write_bytes(queue_file())
    (place / f"df{SENDMAIL}").write_text("body\n")
    (place / part).symlink_to(victim)
    before, queued = tree(victim), case.files()
    done = run("sendmail_change.sh", (action, *case.argv[1:]), case.stdin)
    assert (done.exit_status, tree(victim)) == (77, before), done
    assert case.files() == queued


def test_a_link_to_a_directory_of_the_same_owner_is_where_sendmail_keeps_its_data(tmp_path: Path) -> None:
    case = CASES["sendmail_change.sh"](tmp_path)
    place, other = tmp_path / "q1", tmp_path / "other"
    other.mkdir()
    (place / "df").symlink_to(other)
    (other / f"df{SENDMAIL}").write_text("body\n")
    for at in (place, other):
        os.chown(at, OTHER, OTHER)
    assert run("sendmail_change.sh", case.argv, case.stdin).stdout == f"{SENDMAIL} done\nend\n".encode()
    assert not list(other.iterdir())


SWAPS = """#!/bin/sh
# After each look somebody exchanges the directory that was looked at.
/usr/bin/stat "$@"
status=$?
cd {place}/mxfleet-quarantine 2>/dev/null && [ ! -L job-1 ] && [ -d job-1 ] && mv job-1 was-1 && ln -s {victim} job-1
exit $status
"""


@pytest.mark.parametrize("action", ["back", "erase"])
def test_a_quarantine_that_is_exchanged_after_our_look_is_the_one_that_was_entered(action: str, tmp_path: Path) -> None:
    case = CASES["sendmail_change.sh"](tmp_path)
    victim = victim_in(tmp_path)
    there = tmp_path / "q1/mxfleet-quarantine/job-1"
    there.mkdir(parents=True, mode=0o700)
    there.parent.chmod(0o700)
    (tmp_path / f"q1/qf{SENDMAIL}").rename(there / f"qf{SENDMAIL}")
    (there / f"df{SENDMAIL}").write_text("body\n")
    (tmp_path / "tools").mkdir()
    (tmp_path / "tools/stat").write_text(SWAPS.format(place=tmp_path / "q1", victim=victim))
    (tmp_path / "tools/stat").chmod(0o755)
    before = tree(victim)
    run("sendmail_change.sh", (action, *case.argv[1:]), case.stdin, tmp_path / "tools")
    assert tree(victim) == before
    moved = tmp_path / f"q1/qf{SENDMAIL}"
    assert not moved.exists() or moved.read_bytes() == queue_file()


def test_a_spool_that_others_can_exchange_is_not_entered(tmp_path: Path) -> None:
    case = CASES["opensmtpd_quarantine.sh"](tmp_path)
    os.chown(tmp_path, OTHER, OTHER)
    before = tree(tmp_path)
    done = run("opensmtpd_quarantine.sh", tuple(case.argv), case.stdin)
    assert (done.exit_status, tree(tmp_path)) == (66, before), done


def test_qmail_is_not_stopped_for_an_area_that_is_not_ours(tmp_path: Path) -> None:
    case = CASES["qmail_change.sh"](tmp_path)
    victim = victim_in(tmp_path)
    queue = Path(case.argv[1])
    (queue / "mxfleet-hold").symlink_to(victim)
    before = tree(victim)
    done = run("qmail_change.sh", tuple(case.argv), case.stdin)
    case.close()
    assert (done.exit_status, tree(victim)) == (77, before), done
    assert b"was up" not in done.stdout
