"""A connection that is lost while only reading is tried again; what may have changed something never is."""

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from fleet.mta.errors import ConnectionLost, OutcomeUnknown, OutputTooLarge, Unreachable
from fleet.mta.steps import Command, Completed, Steps, run
from fleet.ssh import engine as engine_module
from fleet.ssh import pool as pool_module
from fleet.ssh.engine import Engine, Outcome, Request
from tests.ssh.carry import shell
from tests.ssh.sshd import Sshd

CUT = """
n=$(ls "$0" | wc -l); : > "$0/$n"; [ "$n" -lt "$1" ] || exit 0
p=$$; while ! grep -q ^sshd /proc/$p/comm; do p=$(awk '{ print $4 }' /proc/$p/stat); done; kill -9 $p
"""
"""Counts its runs in a directory, and ends its own SSH connection the first times."""


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(engine_module, "READ_PAUSES", (0.02, 0.05))
    monkeypatch.setattr(pool_module, "PAUSES", (0.02, 0.05))


def cutting(directory: Path, times: int, **options: Any) -> Callable[[], Steps[Completed]]:
    def steps() -> Steps[Completed]:
        yield from run(Command(("true",)))
        return (yield from run(Command((*shell(CUT), str(directory), str(times)), **options)))

    return steps


def one(
    engine: Engine, server: Sshd, steps: Callable[[], Steps[Any]], cancelled: Callable[[], bool], seconds: float = 30
) -> Outcome:
    ((outcome,),) = engine.outcomes([Request("a", server.endpoint(), steps, False, seconds)], cancelled)
    return outcome


def never() -> bool:
    return False


def test_a_reading_whose_connection_is_lost_begins_anew(engine: Engine, own_sshd: Sshd, tmp_path: Path) -> None:
    own_sshd.start()
    (tmp_path / "runs").mkdir()
    outcome = one(engine, own_sshd, cutting(tmp_path / "runs", 2), never)
    assert outcome.error is None
    assert outcome.value.exit_status == 0
    assert [record.exit_status for record in outcome.trace.commands] == [0, None, 0, None, 0, 0]


def test_a_reading_is_tried_three_times_and_then_its_connection_is_lost(
    engine: Engine, own_sshd: Sshd, tmp_path: Path
) -> None:
    own_sshd.start()
    (tmp_path / "runs").mkdir()
    outcome = one(engine, own_sshd, cutting(tmp_path / "runs", 9), never)
    assert type(outcome.error) is ConnectionLost
    assert outcome.error.code == "connection_lost"
    assert not outcome.trace.mutated
    assert len(list((tmp_path / "runs").iterdir())) == 3


def test_a_change_whose_connection_is_lost_is_never_sent_twice(engine: Engine, own_sshd: Sshd, tmp_path: Path) -> None:
    own_sshd.start()
    (tmp_path / "runs").mkdir()
    outcome = one(engine, own_sshd, cutting(tmp_path / "runs", 9, mutates=True), never)
    assert type(outcome.error) is OutcomeUnknown
    assert len(list((tmp_path / "runs").iterdir())) == 1


def test_output_that_is_too_large_is_not_asked_for_again(engine: Engine, sshd: Sshd) -> None:
    def steps() -> Steps[Completed]:
        return (yield from run(Command(shell("echo too much"), max_output=3)))

    outcome = one(engine, sshd, steps, never)
    assert type(outcome.error) is OutputTooLarge
    assert len(outcome.trace.commands) == 1


def test_a_cancelled_reading_is_not_tried_again(engine: Engine, own_sshd: Sshd, tmp_path: Path) -> None:
    own_sshd.start()
    (tmp_path / "runs").mkdir()
    begun = time.monotonic()

    def steps() -> Steps[Completed]:
        yield from run(Command(("sleep", "1")))
        return (yield from cutting(tmp_path / "runs", 9)())

    outcome = one(engine, own_sshd, steps, lambda: time.monotonic() - begun > 0.3)
    assert type(outcome.error) is ConnectionLost
    assert len(list((tmp_path / "runs").iterdir())) == 1


def test_there_is_no_further_try_beyond_the_deadline(
    engine: Engine, own_sshd: Sshd, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(engine_module, "READ_PAUSES", (20.0, 20.0))
    own_sshd.start()
    (tmp_path / "runs").mkdir()
    begun = time.monotonic()
    outcome = one(engine, own_sshd, cutting(tmp_path / "runs", 9), never, seconds=5)
    assert type(outcome.error) is ConnectionLost
    assert time.monotonic() - begun < 5


def test_unreachable_means_that_nothing_was_sent(engine: Engine, own_sshd: Sshd, tmp_path: Path) -> None:
    """sshd goes away after the first answer: what follows is a lost connection, not an unreachable host."""
    own_sshd.start()

    def steps() -> Steps[Completed]:
        yield from run(Command(("true",)))
        own_sshd.stop()
        return (yield from run(Command(("true",))))

    outcome = one(engine, own_sshd, steps, never)
    assert type(outcome.error) is ConnectionLost
    assert outcome.error.data["cause"] == Unreachable.code
    assert type(one(engine, own_sshd, steps, never).error) is Unreachable
