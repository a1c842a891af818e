"""Hostile interleavings of the engine: wishes, cancels, late reports, places in line."""

from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest
from django.db import InterfaceError, connection
from django.test.utils import CaptureQueriesContext

from fleet.mta.errors import LeaseLost, OutcomeUnknown, Unreachable
from fleet.mta.types import Ended, Plan, Result
from jobs import leases, runner, tasks
from jobs.clock import db_now
from jobs.models import Block, BlockInstance, HostLease, Job, Run
from jobs.services import bell, blocks, claim, reconcile, sweep
from jobs.services.again import retry, undo
from jobs.services.cancel import cancel
from jobs.services.record import Report, record
from jobs.services.unlock import unlock
from jobs.state import RunState
from tests.db.fleet import APPLIED, PLANNED, Cast, ask, changed, claimed, message, work
from tests.db.test_sweep import SENDER, block, busy, catch_up, states

HOLD = {"match": "from:*@bulk.example"}
ACME = {"customers": ["acme"]}


def free() -> None:
    """The hosts that others have are free again."""
    HostLease.objects.update(job=None)
    Job.objects.filter(operation="queue.hold").update(state="succeeded", finished_at=db_now())
    Run.objects.filter(job__operation="queue.hold").update(state="succeeded")


def lines_to_come() -> set[str]:
    """The instances that the catch-up would look at, sooner or later."""
    rows = BlockInstance.objects.filter(next_try_at__isnull=False, state__in=("pending", "removing", "failed"))
    return {str(row.instance) for row in rows}


def test_a_job_that_is_cancelled_while_it_is_planned_changes_nothing(people: Cast) -> None:
    people.engine.plans["mx1/postfix"] = Plan(selected=(message(1),), queue_total=10)

    def stop(place: str, phase: str) -> None:
        if phase == PLANNED:
            cancel(people.alice, Job.objects.get())

    people.engine.before = stop
    job = work(ask(people.alice, "queue.hold", params=HOLD))
    assert ("mx1/postfix", APPLIED) not in people.engine.asked
    assert (job.state, job.runs.get().state, job.ready_at) == ("cancelled", "cancelled", None)


def test_a_block_that_is_cancelled_while_it_is_planned_is_never_wanted(people: Cast) -> None:
    people.engine.before = lambda place, phase: (
        cancel(people.alice, Job.objects.get()) if Job.objects.get().cancel_asked_at is None else None
    )
    job = work(ask(people.alice, "sender.block", {"hosts": ["mx2"]}, params=SENDER))
    assert (job.state, Block.objects.exists()) == ("cancelled", False)


def test_what_an_unblock_that_is_cancelled_halfway_left_on_hosts_is_caught_up(people: Cast) -> None:
    block(people)
    job = busy(people, "sender.unblock")
    HostLease.objects.filter(host__name="mx2").update(job=None)
    Run.objects.filter(job__operation="queue.hold", host__name="mx2").update(state="succeeded")
    job = work(job)
    assert {run.host.name: run.state for run in job.runs.all()} == {"mx1": "pending", "mx2": "succeeded"}
    cancel(people.alice, job)
    assert not Block.objects.get().is_wanted
    assert lines_to_come() == {"mx1/postfix", "mx1/postfixEXT"}


def test_a_block_that_is_cancelled_halfway_does_not_come_to_the_other_hosts_after_all(people: Cast) -> None:
    job = busy(people, "sender.block")
    HostLease.objects.filter(host__name="mx2").update(job=None)
    Run.objects.filter(job__operation="queue.hold", host__name="mx2").update(state="succeeded")
    job = work(job)
    cancel(people.alice, job)
    assert states() == {"mx2/postfix": "applied"}
    free()
    catch_up()
    assert states() == {"mx2/postfix": "applied"}
    work(retry(people.alice, job))
    assert Block.objects.get().target == ACME, "a retry of the rest makes it whole again"
    assert set(states().values()) == {"applied"}
    assert len(states()) == 3


def stop_before_it_is_sent(people: Cast, monkeypatch: pytest.MonkeyPatch, job: Job) -> Job:
    """Cancel when the worker has claimed the runs and nothing was sent yet."""
    genuine = runner._carry_out

    def carry_out(claimed: claim.Claim, lease: leases.Lease) -> None:
        if claim.applies(claimed.job):
            cancel(people.alice, job)
        genuine(claimed, lease)

    monkeypatch.setattr(runner, "_carry_out", carry_out)
    job = work(job)
    monkeypatch.setattr(runner, "_carry_out", genuine)
    return job


def test_a_block_that_is_cancelled_right_before_it_is_sent_is_not_wanted(
    people: Cast, monkeypatch: pytest.MonkeyPatch
) -> None:
    job = stop_before_it_is_sent(
        people, monkeypatch, ask(people.alice, "sender.block", {"hosts": ["mx2"]}, params=SENDER)
    )
    assert (job.state, Block.objects.get().is_wanted, states()) == ("cancelled", False, {})


def test_an_unblock_that_is_cancelled_right_before_it_is_sent_leaves_the_block_wanted(
    people: Cast, monkeypatch: pytest.MonkeyPatch
) -> None:
    work(ask(people.alice, "sender.block", {"hosts": ["mx2"]}, params=SENDER))
    job = stop_before_it_is_sent(
        people, monkeypatch, ask(people.alice, "sender.unblock", {"hosts": ["mx2"]}, params=SENDER)
    )
    assert (job.state, Block.objects.get().is_wanted) == ("cancelled", True)
    catch_up()
    assert states() == {"mx2/postfix": "applied"}


def test_an_undone_unblock_that_is_cancelled_in_line_leaves_the_sender_unblocked(people: Cast) -> None:
    block(people)
    gone = work(ask(people.alice, "sender.unblock", ACME, params=SENDER))
    back = undo(people.alice, gone, "right sender after all")
    for host in people.acme.hosts.all():
        other = ask(people.dana, "queue.hold", {"hosts": [host.name]}, params=HOLD)
        HostLease.objects.update_or_create(host=host, defaults={"job": other})
        other.runs.update(state="running", is_planning=False)
    back = work(back)
    assert (back.state, Block.objects.get().is_wanted) == ("queued", True)
    cancel(people.alice, back)
    assert not Block.objects.get().is_wanted
    free()
    catch_up()
    assert states() == {}


def test_a_retry_of_a_block_that_is_cancelled_in_line_leaves_the_rest_to_the_catch_up(people: Cast) -> None:
    people.engine.results["mx2/postfix"] = Unreachable("no route to host")
    people.engine.mutates = False
    job = block(people)
    people.engine.results.clear()
    other = ask(people.dana, "queue.hold", {"hosts": ["mx2"]}, params=HOLD)
    HostLease.objects.update_or_create(host=people.acme.hosts.get(name="mx2"), defaults={"job": other})
    other.runs.update(state="running", is_planning=False)
    again = work(retry(people.alice, job))
    assert again.state == "queued"
    cancel(people.alice, again)
    assert Block.objects.get().is_wanted
    assert lines_to_come() == {"mx2/postfix"}


def test_a_line_of_an_expired_block_goes_though_one_that_wants_it_too_was_cancelled_in_line(people: Cast) -> None:
    block(people)
    Block.objects.update(expires_at=db_now())
    sweep.expire_blocks(db_now())
    fresh = busy(people, "sender.block")
    for queue in ("ssh.0", "ssh.1"):
        runner.catch_up(queue)
    cancel(people.alice, fresh)
    free()
    catch_up()
    assert states() == {}
    assert Job.objects.get(operation="sender.unblock", channel="schedule").state == "succeeded"


def test_a_line_whose_unblock_was_overtaken_goes_though_what_overtook_it_is_cancelled(people: Cast) -> None:
    block(people)
    job = busy(people, "sender.unblock")
    fresh = work(ask(people.alice, "sender.block", ACME, params=SENDER))
    assert fresh.state == "queued"
    for run in job.runs.select_related("job"):
        run.state, run.result = RunState.UNCHANGED, {"overtaken": True}
        blocks.settle([run], db_now(), db_now())
    cancel(people.alice, fresh)
    assert set(states().values()) == {"removing"}
    assert lines_to_come() == {"mx1/postfix", "mx1/postfixEXT", "mx2/postfix"}


@pytest.mark.parametrize("by_hand", [False, True], ids=["last look", "unlocked"])
@pytest.mark.parametrize("operation", ["sender.block", "sender.unblock"])
def test_a_wish_whose_outcome_stays_unknown_is_caught_up(people: Cast, operation: str, by_hand: bool) -> None:
    target = {"hosts": ["mx2"]}
    if operation == "sender.unblock":
        work(ask(people.alice, "sender.block", target, params=SENDER))
    people.engine.results["mx2/postfix"] = OutcomeUnknown("the connection ended")
    job = work(ask(people.alice, operation, target, params=SENDER))
    assert job.runs.get().state == "unknown"
    if by_hand:
        unlock(people.dana, people.acme.hosts.get(name="mx2"), "looked at by hand")
    else:
        for _ in reconcile.AFTER:
            Run.objects.filter(job=job).update(reconcile_at=db_now())
            runner.read_back(bell.queue_of(job.runs.get()))
    job.refresh_from_db()
    assert job.state == "failed"
    assert lines_to_come() == {"mx2/postfix"}
    people.engine.results.clear()
    catch_up()
    assert states() == ({"mx2/postfix": "applied"} if operation == "sender.block" else {})


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
    (run,) = reconcile.due(db_now(), bell.queue_of(job.runs.get()))
    Run.objects.filter(pk=run.pk).update(fence=run.fence + 1)
    now = db_now()
    reconcile.settle(run.job, Report(run, changed([message(1)]), None, [], True, now, now))
    assert job.runs.get().state == "unknown"


def test_what_was_overtaken_says_nothing_about_a_block_that_was_asked_for_meanwhile(
    people: Cast, monkeypatch: pytest.MonkeyPatch
) -> None:
    job = busy(people, "sender.block")
    Block.objects.update(is_wanted=False)
    genuine = runner._store

    def store(one: Job, reports: Any) -> None:
        Block.objects.update(is_wanted=True)
        genuine(one, reports)

    monkeypatch.setattr(runner, "_store", store)
    free()
    work(job)
    assert set(states().values()) == {"pending"}


def test_the_catch_up_brings_a_block_as_it_is_wanted_after_the_hosts_were_asked(
    people: Cast, monkeypatch: pytest.MonkeyPatch
) -> None:
    people.engine.results["mx2/postfix"] = Unreachable("no route to host")
    people.engine.mutates = False
    block(people)
    people.engine.results.clear()
    genuine = runner._answering

    def answering(hosts: Any) -> set[int]:
        if hosts:
            Block.objects.update(code=551)
        return genuine(hosts)

    monkeypatch.setattr(runner, "_answering", answering)
    catch_up()
    assert Job.objects.get(channel="schedule").params["code"] == 551


def test_two_rounds_at_once_make_one_attempt(people: Cast, monkeypatch: pytest.MonkeyPatch) -> None:
    people.engine.results["mx2/postfix"] = Unreachable("no route to host")
    people.engine.mutates = False
    block(people)
    people.engine.results.clear()
    BlockInstance.objects.filter(next_try_at__isnull=False).update(next_try_at=db_now())
    now = db_now()
    queue = sweep.queue_of_row(BlockInstance.objects.get(state="pending"))
    first, second = sweep.behind(now, queue), sweep.behind(now, queue)
    monkeypatch.setattr(sweep, "behind", lambda now, queue: first)
    runner.catch_up(queue)
    monkeypatch.setattr(sweep, "behind", lambda now, queue: second)
    runner.catch_up(queue)
    assert Job.objects.filter(channel="schedule").count() == 1


def test_who_waits_behind_a_job_is_rung_for_when_that_is_cancelled(
    people: Cast, rings: list[Any], django_capture_on_commit_callbacks: Any
) -> None:
    first = ask(people.alice, "queue.hold", params=HOLD)
    second = ask(people.alice, "queue.hold", params=HOLD)
    rings.clear()
    with django_capture_on_commit_callbacks(execute=True):
        cancel(people.alice, first)
    assert (bell.queue_of(second.runs.get()), "change") in rings


@pytest.mark.parametrize("operation", ["queue.list", "queue.hold"])
def test_what_a_lost_worker_had_is_rung_for_at_once(
    people: Cast, rings: list[Any], operation: str, django_capture_on_commit_callbacks: Any
) -> None:
    params = {"params": HOLD} if operation == "queue.hold" else {}
    job = ask(people.alice, operation, **params)
    assert claimed(job)
    Run.objects.update(lease_until=db_now() - timedelta(seconds=1))
    rings.clear()
    with django_capture_on_commit_callbacks(execute=True):
        reconcile.lose(db_now())
    assert set(rings) == {(bell.queue_of(job.runs.get()), bell.lane_of(job.is_changing))}


def test_the_keeper_lives_on_whatever_the_driver_says(monkeypatch: pytest.MonkeyPatch) -> None:
    keeper, said = leases.Keeper(), []

    def look() -> None:
        said.append(1)
        if len(said) == 1:
            raise InterfaceError("connection already closed")
        raise SystemExit

    monkeypatch.setattr(leases, "LOOK", 0)
    monkeypatch.setattr(leases.connection, "close", lambda: None)
    monkeypatch.setattr(keeper, "look", look)
    keeper._leases.add(None)  # type: ignore[arg-type]
    with pytest.raises(SystemExit):
        keeper._keep()
    assert len(said) == 2


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
    queue = bell.queue_of(job.runs.get())
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


def test_a_job_that_was_queued_before_wishes_were_booked_books_it_when_it_begins(people: Cast) -> None:
    job = busy(people, "sender.block")
    Block.objects.all().delete()
    Job.objects.filter(pk=job.pk).update(ready_at=None)
    free()
    job = work(job)
    assert (job.state, set(states().values())) == ("succeeded", {"applied"})
