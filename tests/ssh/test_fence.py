"""A worker that may have lost its lease sends no changing command."""

import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from fleet.mta.errors import LeaseLost, OutcomeUnknown
from fleet.mta.host.commands import CHANGE_SECONDS
from fleet.mta.steps import Command, Plan, Steps, run
from fleet.ssh.endpoint import Endpoint
from fleet.ssh.engine import Engine, Outcome, Request
from fleet.ssh.pool import SESSIONS
from tests.ssh.sshd import Sshd


def changing(*paths: Path) -> Callable[[], Steps[int]]:
    """A listing, and one change for each path."""

    def steps() -> Steps[int]:
        yield from run(Command(("true",)))
        yield Plan()
        for path in paths:
            yield from run(Command(("touch", str(path)), mutates=True))
        return len(paths)

    return steps


def one(engine: Engine, endpoint: Endpoint, steps: Callable[[], Steps[Any]], may_change: Callable[[], bool]) -> Outcome:
    ((outcome,),) = engine.outcomes([Request("a", endpoint, steps, False, 30, may_change)])
    return outcome


def test_without_the_lease_no_change_is_sent_and_nothing_is_unknown(engine: Engine, sshd: Sshd, tmp_path: Path) -> None:
    outcome = one(engine, sshd.endpoint(), changing(tmp_path / "a"), lambda: False)
    assert type(outcome.error) is LeaseLost
    assert not outcome.trace.mutated
    assert [record.exit_status for record in outcome.trace.commands] == [0, None]
    assert list(tmp_path.iterdir()) == []


def test_a_lease_that_ends_between_two_changes_leaves_the_outcome_unknown(
    engine: Engine, sshd: Sshd, tmp_path: Path
) -> None:
    outcome = one(
        engine, sshd.endpoint(), changing(tmp_path / "a", tmp_path / "b"), lambda: not (tmp_path / "a").exists()
    )
    assert type(outcome.error) is OutcomeUnknown
    assert outcome.error.data["cause"] == LeaseLost.code
    assert outcome.trace.mutated
    assert [path.name for path in tmp_path.iterdir()] == ["a"]


def test_the_lease_is_asked_for_each_change_and_never_for_a_reading(engine: Engine, sshd: Sshd, tmp_path: Path) -> None:
    asked: list[int] = []
    outcome = one(
        engine,
        sshd.endpoint(),
        changing(tmp_path / "a", tmp_path / "b"),
        lambda: not asked.append(threading.get_ident()),
    )
    assert outcome.value == 2
    assert len(asked) == 2


def test_a_change_that_waited_for_its_session_asks_after_the_wait(
    engine: Engine, own_sshd: Sshd, tmp_path: Path
) -> None:
    own_sshd.start()
    begun = time.monotonic()

    def sleeping() -> Steps[None]:
        yield from run(Command(("sleep", "1")))

    def change() -> Steps[None]:
        yield from run(Command(("touch", str(tmp_path / "a")), mutates=True))

    readers = [Request(str(number), own_sshd.endpoint(), sleeping, False, 30) for number in range(SESSIONS)]
    late = Request("late", own_sshd.endpoint(), change, False, 30, lambda: time.monotonic() - begun < 0.8)
    outcomes = {outcome.key: outcome for block in engine.outcomes([*readers, late]) for outcome in block}
    assert type(outcomes["late"].error) is LeaseLost
    assert not (tmp_path / "a").exists()


def test_a_connection_on_which_a_change_was_withheld_goes_on(engine: Engine, own_sshd: Sshd, tmp_path: Path) -> None:
    own_sshd.start()
    for _ in range(SESSIONS + 3):
        assert type(one(engine, own_sshd.endpoint(), changing(tmp_path / "a"), lambda: False).error) is LeaseLost
    assert one(engine, own_sshd.endpoint(), changing(tmp_path / "a"), lambda: True).value == 1
    assert own_sshd.log().count("Accepted publickey") == 1


@pytest.mark.parametrize("mutates", [True, False])
def test_no_change_may_run_longer_than_read_back_reckons_with(
    engine: Engine, sshd: Sshd, tmp_path: Path, mutates: bool
) -> None:
    def steps() -> Steps[None]:
        yield from run(Command(("touch", str(tmp_path / "a")), mutates=mutates, timeout=CHANGE_SECONDS + 1))

    outcome = one(engine, sshd.endpoint(), steps, lambda: True)
    assert (outcome.error is not None) == mutates
    assert not outcome.trace.mutated
    assert (tmp_path / "a").exists() != mutates
