"""Wishes in hostile interleavings: what is said of a block is what its hosts come to."""

from typing import Any

import pytest

from fleet.mta.errors import OutcomeUnknown, Unreachable
from fleet.mta.steps import Plan
from jobs import blocklist, queues
from jobs.clock import db_now
from jobs.lifecycle import claim, reconcile, sweep
from jobs.lifecycle.cancel import cancel
from jobs.lifecycle.followup import retry, undo
from jobs.lifecycle.submit import queue_of_host
from jobs.lifecycle.unlock import unlock
from jobs.models import Block, BlockInstance, HostLease, Job, Run
from jobs.rules.state import RunState
from jobs.worker import leases, runner
from tests.db.fleet import APPLIED, PLANNED, Cast, ask, message, work
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
        blocklist.settle([run], db_now(), db_now())
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
            runner.read_back(queues.queue_of(job.runs.get()))
    job.refresh_from_db()
    assert job.state == "failed"
    assert lines_to_come() == {"mx2/postfix"}
    people.engine.results.clear()
    catch_up()
    assert states() == ({"mx2/postfix": "applied"} if operation == "sender.block" else {})


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
    host = BlockInstance.objects.get(state="pending").instance.host
    queue = queue_of_host(host.name, host.site)
    first, second = sweep.behind(now, queue), sweep.behind(now, queue)
    monkeypatch.setattr(sweep, "behind", lambda now, queue: first)
    runner.catch_up(queue)
    monkeypatch.setattr(sweep, "behind", lambda now, queue: second)
    runner.catch_up(queue)
    assert Job.objects.filter(channel="schedule").count() == 1


def test_a_job_that_was_queued_before_wishes_were_booked_books_it_when_it_begins(people: Cast) -> None:
    job = busy(people, "sender.block")
    Block.objects.all().delete()
    Job.objects.filter(pk=job.pk).update(ready_at=None)
    free()
    job = work(job)
    assert (job.state, set(states().values())) == ("succeeded", {"applied"})
