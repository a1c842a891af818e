"""postfix_quarantine.sh on real files: what a restore of ours put on hold is told from what somebody else holds."""

import os
from itertools import pairwise
from pathlib import Path

import pytest

from fleet.mta.steps import Command
from tests.unit.real_scripts import run_script

NAME, OTHER, JOB = "AAAAAA1", "AAAAAA2", "job-1"


@pytest.fixture
def queue(tmp_path: Path) -> Path:
    """Two messages in the quarantine of the job."""
    for name in ("deferred", "hold"):
        (tmp_path / name).mkdir()
    for name in (NAME, OTHER):
        (tmp_path / "hold" / name).write_text("whole")
    assert told(tmp_path, "out", NAME, OTHER) == {NAME, OTHER}
    return tmp_path


def told(queue: Path, action: str, *names: str) -> set[str]:
    lines = "".join(f"{line}\n" for line in (JOB, *names))
    argv = (action, str(queue))
    done = run_script(
        Command(argv, script="postfix_quarantine.sh", stdin=lines.encode(), become=True, mutates=action != "look")
    )
    assert done.exit_status == 0, done.stderr
    *said, end = done.stdout.decode().splitlines()
    assert end == "end"
    return set(said)


def move(queue: Path, *places: str) -> None:
    """As postsuper moves it, one place after the other."""
    for source, target in pairwise(places):
        (queue / source / NAME).rename(queue / target / NAME)


def test_what_came_back_is_ours_also_when_it_is_asked_for_again(queue: Path) -> None:
    assert told(queue, "back", NAME) == {OTHER, f"ours {NAME}"}
    assert told(queue, "back", NAME) == {OTHER, f"ours {NAME}"}
    assert told(queue, "back", NAME, OTHER) == {f"ours {NAME}", f"ours {OTHER}"}
    assert told(queue, "look") == set()


def test_what_was_released_and_is_held_again_is_not_ours(queue: Path) -> None:
    told(queue, "back", NAME)
    move(queue, "hold", "deferred", "hold")
    assert told(queue, "back", NAME) == {OTHER}
    assert (queue / "hold" / NAME).read_text() == "whole"


def test_what_came_back_into_the_quarantine_is_ours_again_once_it_is_restored(queue: Path) -> None:
    told(queue, "back", NAME)
    move(queue, "hold", "deferred", "hold")
    assert told(queue, "out", NAME) == {NAME, OTHER}
    assert told(queue, "back", NAME) == {OTHER, f"ours {NAME}"}


def test_what_a_restore_moved_that_died_before_it_could_say_so_is_ours_for_as_long_as_it_may_have_run(
    queue: Path,
) -> None:
    told(queue, "back", NAME)
    noted = queue / "mxfleet-quarantine" / f"{JOB}.restored"
    before_the_move, _ = noted.read_text().splitlines()
    noted.write_text(f"{before_the_move}\n")
    assert told(queue, "back", NAME) == {OTHER, f"ours {NAME}"}
    name, start, end = before_the_move.split()
    noted.write_text(f"{name} {int(start) - 9_000} {int(end) - 9_000}\n")
    assert told(queue, "back", NAME) == {OTHER}


def test_what_an_older_release_moved_is_not_ours_since_nothing_tells(queue: Path) -> None:
    move(queue, "mxfleet-quarantine/" + JOB, "hold")
    assert told(queue, "back", NAME) == {OTHER}


def test_what_nobody_goes_on_with_is_forgotten(queue: Path) -> None:
    told(queue, "back", NAME)
    old = queue / "mxfleet-quarantine" / "job-0.restored"
    old.write_text("")
    os.utime(old, (1, 1))
    told(queue, "back", OTHER)
    assert sorted(path.name for path in old.parent.iterdir()) == [JOB, f"{JOB}.restored"]
