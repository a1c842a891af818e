"""Hostile interleavings of the engine: late reports, places in line, lost wakeups, forged messages."""

from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest
from django.db import InterfaceError, connection
from django.test.utils import CaptureQueriesContext

from fleet.mta.errors import LeaseLost, OutcomeUnknown
from fleet.mta.records import Ended, Result
from fleet.mta.steps import Plan
from jobs import queues, tasks
from jobs.clock import db_now
from jobs.lifecycle import claim, reconcile, sweep
from jobs.lifecycle.cancel import cancel
from jobs.lifecycle.record import Report, record
from jobs.lifecycle.unlock import unlock
from jobs.models import HostLease, Job, Run
from jobs.worker import leases, runner
from tests.db.fleet import APPLIED, Cast, ask, changed, claimed, message, work
from tests.db.test_sweep import SENDER, block

HOLD = {"match": "from:*@bulk.example"}


def test_a_run_that_comes_back_of_a_job_that_has_ended_stays_ended(people: Cast) -> None:
    people.engine.plans["mx1/postfix"] = Plan(selected=(message(1),), queue_total=10)
    job = ask(people.alice, "queue.hold", params=HOLD)
    while True:
        found = claimed(job)
        assert found is not None
        if claim.applies(found.job):
            break
        now = db_now()
        record(
            found.job,
            [Report(r, Plan(selected=(message(1),), queue_total=10), None, [], False, now, now) for r in found.runs],
        )
    Run.objects.update(lease_until=db_now() - timedelta(seconds=1))
    reconcile.lose(db_now())
    unlock(people.dana, people.acme.hosts.get(name="mx1"), "looked at by hand")
    now = db_now()
    record(found.job, [Report(r, None, LeaseLost("gone"), [], False, now, now) for r in found.runs])
    job.refresh_from_db()
    assert job.state in ("failed", "cancelled")
    assert job.runs.get().state in ("failed", "cancelled")


def test_a_job_that_has_a_host_goes_on_there_before_one_that_became_ready_earlier(people: Cast) -> None:
    jobs = []
    for after in (1, 2):
        job = ask(people.alice, "queue.hold", {"hosts": ["mx2"]}, params=HOLD)
        job.runs.update(is_planning=False, plan={"counts": {"messages": 1}})
        for state in ("queued", "running"):
            Job.objects.filter(pk=job.pk).update(state=state, ready_at=db_now() + timedelta(seconds=after))
        jobs.append(job)
    early, late = jobs
    HostLease.objects.create(host=people.acme.hosts.get(name="mx2"), job=late)
    found = claimed(early)
    assert found is not None, "neither goes on for ever"
    assert found.job.pk == late.pk


def test_a_read_back_of_an_older_claim_does_not_touch_a_newer_one(people: Cast) -> None:
    people.engine.plans["mx1/postfix"] = Plan(selected=(message(1),), queue_total=10)
    people.engine.results["mx1/postfix"] = OutcomeUnknown("the connection ended")
    job = work(ask(people.alice, "queue.hold", params=HOLD))
    (run,) = reconcile.due(db_now(), queues.queue_of(job.runs.get()))
    Run.objects.filter(pk=run.pk).update(fence=run.fence + 1)
    now = db_now()
    reconcile.settle(run.job, Report(run, changed([message(1)]), None, [], True, now, now))
    assert job.runs.get().state == "unknown"


def test_who_waits_behind_a_job_is_rung_for_when_that_is_cancelled(
    people: Cast, wakeups: list[Any], django_capture_on_commit_callbacks: Any
) -> None:
    first = ask(people.alice, "queue.hold", params=HOLD)
    second = ask(people.alice, "queue.hold", params=HOLD)
    wakeups.clear()
    with django_capture_on_commit_callbacks(execute=True):
        cancel(people.alice, first)
    assert (queues.queue_of(second.runs.get()), "change") in wakeups


@pytest.mark.parametrize("operation", ["queue.list", "queue.hold"])
def test_what_a_lost_worker_had_is_rung_for_at_once(
    people: Cast, wakeups: list[Any], operation: str, django_capture_on_commit_callbacks: Any
) -> None:
    params = {"params": HOLD} if operation == "queue.hold" else {}
    job = ask(people.alice, operation, **params)
    assert claimed(job)
    Run.objects.update(lease_until=db_now() - timedelta(seconds=1))
    wakeups.clear()
    with django_capture_on_commit_callbacks(execute=True):
        reconcile.lose(db_now())
    assert set(wakeups) == {(queues.queue_of(job.runs.get()), queues.lane_of(job.is_changing))}


def test_the_keeper_lives_on_whatever_the_driver_says(monkeypatch: pytest.MonkeyPatch) -> None:
    keeper, calls = leases.Keeper(), []

    def note_cancelled() -> None:
        calls.append(1)
        if len(calls) == 1:
            raise InterfaceError("connection already closed")
        raise SystemExit

    monkeypatch.setattr(leases, "POLL", 0)
    monkeypatch.setattr(leases.connection, "close", lambda: None)
    monkeypatch.setattr(keeper, "note_cancelled", note_cancelled)
    keeper._leases.add(None)  # type: ignore[arg-type]
    with pytest.raises(SystemExit):
        keeper._keep()
    assert len(calls) == 2


@pytest.mark.parametrize("odd", [object(), b"x"], ids=["object", "bytes"])
def test_what_no_column_takes_fails_its_own_run_whatever_it_raises(people: Cast, odd: Any) -> None:
    people.engine.results["mx1/postfix"] = Result(Ended.SUCCEEDED, {"total": odd})
    people.engine.mutates = False
    genuine = people.engine.outcomes
    people.engine.outcomes = lambda requests, cancelled: iter(  # type: ignore[method-assign]
        [[outcome for some in genuine(requests, cancelled) for outcome in some]]
    )
    job = work(ask(people.alice, "queue.list", {"hosts": ["mx1"]}))
    assert {str(run.instance): run.state for run in job.runs.all()} == {
        "mx1/postfix": "failed",
        "mx1/postfixEXT": "succeeded",
    }


def test_a_plan_with_a_number_that_no_column_takes_fails_its_own_run(people: Cast) -> None:
    people.engine.plans["mx1/postfix"] = Plan(selected=(replace(message(1), size=2**70),), queue_total=10)
    people.engine.plans["mx1/postfixEXT"] = Plan(selected=(message(2),), queue_total=10)
    genuine = people.engine.outcomes
    people.engine.outcomes = lambda requests, cancelled: iter(  # type: ignore[method-assign]
        [[outcome for some in genuine(requests, cancelled) for outcome in some]]
    )
    job = work(ask(people.alice, "queue.hold", {"hosts": ["mx1"]}, params=HOLD))
    assert {str(run.instance): run.state for run in job.runs.all()} == {
        "mx1/postfix": "failed",
        "mx1/postfixEXT": "succeeded",
    }


@pytest.mark.parametrize("lane", ["change", "read", "look"])
@pytest.mark.parametrize(
    "queue",
    [
        "ssh.x",
        "control",
        "ssh.../0",
        "",
        "ssh.",
        "ssh." + "9" * 30,
        "ssh.-1",
        "ssh.1.5",
        "ssh.\0.0",
        "ssh.²",
        "s" * 100000,
    ],
)
def test_a_forged_queue_is_nobodys(people: Cast, lane: str, queue: str) -> None:
    ask(people.alice, "queue.list")
    runner.work(lane, queue)
    assert people.engine.asked == []


def test_a_message_that_names_another_worker_s_queue_is_dropped(people: Cast) -> None:
    job = ask(people.alice, "queue.list")
    queue = queues.queue_of(job.runs.get())
    tasks.work.app.amqp.queues.select(["control"])
    try:
        tasks.work("read", queue)
        assert people.engine.asked == []
        tasks.work.app.amqp.queues.select([queue])
        tasks.work("read", queue)
        assert people.engine.asked == [("mx1/postfix", APPLIED)]
    finally:
        tasks.work.app.amqp.queues._consume_from = None


def test_who_waited_long_for_the_turn_to_claim_has_a_whole_lease(people: Cast, monkeypatch: pytest.MonkeyPatch) -> None:
    now = [1000.0]
    monkeypatch.setattr(leases, "clock", lambda: now[0])
    held = []

    class Turn:
        def __enter__(self) -> None:
            now[0] += 40

        def __exit__(self, *_: object) -> None:
            pass

    genuine = runner._carry_out

    def carry_out(claimed: claim.Claim, lease: leases.Lease) -> None:
        held.extend(lease.holds(run.pk) for run in claimed.runs)
        genuine(claimed, lease)

    monkeypatch.setattr(runner, "_carry_out", carry_out)
    monkeypatch.setattr(runner.LANES["read"], "claiming", Turn())
    work(ask(people.alice, "queue.list"))
    assert held == [True]


@pytest.mark.parametrize("act", ["expire", "unlock"])
def test_the_chain_is_locked_before_the_rows_of_blocks(people: Cast, act: str) -> None:
    """As recording does, or the two would wait for each other."""
    if act == "expire":
        block(people, **{"for": "1h"})
    else:
        people.engine.results["mx2/postfix"] = OutcomeUnknown("the connection ended")
        work(ask(people.alice, "sender.block", {"hosts": ["mx2"]}, params=SENDER))
    with CaptureQueriesContext(connection) as queries:
        if act == "expire":
            sweep.expire_blocks(db_now() + timedelta(hours=2))
        else:
            unlock(people.dana, people.acme.hosts.get(name="mx2"), "looked at by hand")
    said = [query["sql"] for query in queries]
    chain = next(n for n, sql in enumerate(said) if "jobs_auditchain" in sql)
    assert chain < next(n for n, sql in enumerate(said) if sql.startswith('UPDATE "jobs_block'))
