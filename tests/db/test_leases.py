"""A worker knows when what it has at work is no longer its own, and asks before each change."""

from datetime import timedelta

import pytest

from jobs.clock import db_now
from jobs.lifecycle import claim, reconcile
from jobs.models import Run
from jobs.worker import leases, runner
from jobs.worker.leases import Keeper
from tests.db.fleet import Cast, ask, claimed

HOLD = {"match": "from:*@bulk.example"}


@pytest.fixture
def keeper(monkeypatch: pytest.MonkeyPatch) -> Keeper:
    found = Keeper()
    monkeypatch.setattr(found, "_watch", lambda: None)
    return found


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """Our own clock, moved by hand."""
    now = [1000.0]
    monkeypatch.setattr(leases, "clock", lambda: now[0])
    return now


def taken(people: Cast, hosts: str = "mx2") -> claim.Claim:
    found = claimed(ask(people.alice, "queue.hold", {"hosts": [hosts]}, params=HOLD))
    assert found is not None
    return found


def test_a_lease_ends_here_before_anybody_may_take_it_away_there(
    people: Cast, keeper: Keeper, clock: list[float]
) -> None:
    found = taken(people)
    (run,) = found.runs
    with keeper.kept(found.job, found.runs, 1000.0) as lease:
        clock[0] = 1029.9
        assert lease.holds(run.pk)
        clock[0] = 1030.0
        assert not lease.holds(run.pk), "the worker was stopped for half a minute"


def test_one_renewal_moves_all_leases_of_the_process_on(people: Cast, keeper: Keeper, clock: list[float]) -> None:
    first, second = taken(people, "mx1"), taken(people)
    Run.objects.update(lease_until=db_now() - timedelta(seconds=1))
    with keeper.kept(first.job, first.runs, 1000.0) as one, keeper.kept(second.job, second.runs, 1000.0) as two:
        clock[0] = 1020.0
        keeper.renew()
        clock[0] = 1049.0
        assert all(lease.holds(run.pk) for lease, c in ((one, first), (two, second)) for run in c.runs)
    assert not Run.objects.filter(state="running", lease_until__lt=db_now() + timedelta(seconds=20)).exists()


def test_a_run_whose_thread_gave_up_is_not_kept_alive_by_the_others_of_its_process(
    people: Cast, keeper: Keeper, clock: list[float]
) -> None:
    left, kept = taken(people, "mx1"), taken(people)
    Run.objects.update(lease_until=db_now() - timedelta(seconds=1))
    with keeper.kept(kept.job, kept.runs, 1000.0):
        keeper.renew()
    reconcile.lose(db_now())
    assert {run.state for run in left.job.runs.all()} == {"pending"}
    assert {run.state for run in kept.job.runs.all()} == {"running"}


def test_a_renewal_finds_what_was_taken_away_also_when_this_process_has_it_again(
    people: Cast, keeper: Keeper, clock: list[float]
) -> None:
    found = taken(people)
    (run,) = found.runs
    with keeper.kept(found.job, found.runs, 1000.0) as lease:
        Run.objects.update(lease_until=db_now() - timedelta(seconds=1))
        reconcile.lose(db_now())
        again = claimed(found.job)
        assert again is not None
        keeper.renew()
        assert not lease.holds(run.pk)
        assert Run.objects.get().state == "running"


def test_a_cancelled_job_is_noticed_without_asking_for_each(people: Cast, keeper: Keeper) -> None:
    found = taken(people)
    with keeper.kept(found.job, found.runs, 1000.0) as lease:
        keeper.note_cancelled()
        assert not lease.was_cancelled()
        type(found.job).objects.update(cancel_asked_at=db_now())
        keeper.note_cancelled()
        assert lease.was_cancelled()


def test_the_engine_asks_the_lease_of_the_run_before_each_change(
    people: Cast, clock: list[float], monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = []
    genuine = people.engine.outcomes

    def outcomes(requests, cancelled):  # type: ignore[no-untyped-def]
        asked.extend(request.may_change() for request in requests)
        clock[0] += 31
        asked.extend(request.may_change() for request in requests)
        return genuine(requests, cancelled)

    monkeypatch.setattr(people.engine, "outcomes", outcomes)
    ask(people.alice, "queue.list", {"hosts": ["mx2"]})
    runner.work("read", "ssh.0")
    runner.work("read", "ssh.1")
    assert asked == [True, False]
