"""Who is served next, and how much of a worker one of them may have."""

from datetime import timedelta
from typing import Any

import pytest

from fleet.mta.steps import Plan
from fleet.ssh.gate import Lane
from jobs.clock import db_now
from jobs.lanes import LaneThreads
from jobs.lifecycle.approval import approve
from jobs.lifecycle.claim import claim
from jobs.models import HostLease, Job, Run
from jobs.rules.state import RunState
from tests.db.fleet import Cast, add_host, ask, changed, message, work

HOLD = {"match": "from:*@bulk.example"}
SENDER = {"pattern": "newsletter@sillyplace.com"}


@pytest.fixture
def reading() -> LaneThreads:
    return LaneThreads(Lane.READ, 8)


@pytest.fixture
def changing() -> LaneThreads:
    return LaneThreads(Lane.CHANGE, 8)


@pytest.fixture(autouse=True)
def _one_queue(people: Cast, monkeypatch: pytest.MonkeyPatch) -> None:
    """All hosts on one worker."""
    monkeypatch.setattr("jobs.lifecycle.submit.SLOTS", 1)


def taken(lane: LaneThreads) -> Job:
    found = claim(lane, "ssh.0")
    assert found is not None
    return found.job


def test_the_shard_that_comes_second_to_the_start_takes_its_runs_too(people: Cast, reading: LaneThreads) -> None:
    job = ask(people.alice, "queue.list", {"instances": ["mx1/postfix", "mx2/postfix"]})
    job.runs.filter(host__name="mx2").update(slot=1)
    for queue, instance in (("ssh.0", "mx1/postfix"), ("ssh.1", "mx2/postfix")):
        found = claim(reading, queue)
        assert found is not None
        assert [str(run.instance) for run in found.runs] == [instance]


def test_one_customer_s_many_jobs_do_not_keep_another_one_s_few_waiting(people: Cast, reading: LaneThreads) -> None:
    for _ in range(5):
        ask(people.alice, "queue.list")
    theirs = [ask(people.charlie, "queue.list", {"hosts": ["mx9"]}) for _ in range(2)]
    turns = []
    for _ in range(4):
        job = taken(reading)
        turns.append(job.requested_by.username)
        job.runs.update(state=RunState.SUCCEEDED)
        Job.objects.filter(pk=job.pk).update(state="succeeded", finished_at=db_now())
    assert turns == ["alice", "charlie", "alice", "charlie"]
    assert {job.pk for job in theirs} <= set(Job.objects.filter(state="succeeded").values_list("pk", flat=True))


def test_one_caller_has_half_of_a_lane_at_most(people: Cast, reading: LaneThreads) -> None:
    for _ in range(6):
        ask(people.alice, "queue.list")
    theirs = ask(people.charlie, "queue.list", {"hosts": ["mx9"]})
    jobs = [taken(reading) for _ in range(5)]
    assert [job.requested_by.username for job in jobs].count("alice") == 4
    assert theirs.pk in {job.pk for job in jobs}
    assert claim(reading, "ssh.0") is None


def test_one_customer_has_three_quarters_of_a_lane_at_most(people: Cast, reading: LaneThreads) -> None:
    for _ in range(4):
        ask(people.alice, "queue.list")
        ask(people.dana, "queue.list")
    assert [taken(reading) for _ in range(6)]
    assert claim(reading, "ssh.0") is None


def test_readings_leave_the_lane_of_changes_alone(people: Cast, reading: LaneThreads, changing: LaneThreads) -> None:
    for _ in range(8):
        ask(people.alice, "queue.list")
    job = ask(people.alice, "queue.hold", params=HOLD)
    while claim(reading, "ssh.0"):
        pass
    assert taken(changing).pk == job.pk


def ready(people: Cast, operation: str, *, after: int, **fields: Any) -> Job:
    """A planned job that became ready so many seconds after another one."""
    people.engine.plans["mx1/postfix"] = Plan(selected=(message(1),), queue_total=10)
    job = ask(people.alice, operation, **fields)
    Run.objects.filter(job=job).update(is_planning=False, plan={"counts": {"messages": 1}})
    for state in ("queued", "running"):
        Job.objects.filter(pk=job.pk).update(state=state, ready_at=db_now() + timedelta(seconds=after))
    return job


def test_changes_of_one_host_are_carried_out_in_the_order_in_which_they_became_ready(
    people: Cast, changing: Lane
) -> None:
    second = ready(people, "queue.release", after=2, params=HOLD)
    first = ready(people, "queue.hold", after=1, params=HOLD)
    assert taken(changing).pk == first.pk
    assert claim(changing, "ssh.0") is None, "the host is the first one's until its run has ended"
    first.runs.update(state=RunState.SUCCEEDED)
    HostLease.objects.update(job=None)
    assert taken(changing).pk == second.pk


def test_a_change_of_another_host_does_not_wait_for_a_busy_one(people: Cast, changing: LaneThreads) -> None:
    first, second = (ready(people, "queue.hold", after=n, params=HOLD) for n in range(2))
    elsewhere = ready(people, "queue.hold", after=3, target={"hosts": ["mx2"]}, params=HOLD)
    assert [taken(changing).pk, taken(changing).pk] == [first.pk, elsewhere.pk]
    assert second.runs.get().state == "pending"


def test_of_two_changes_of_one_host_the_one_that_was_asked_for_first_is_planned_first(
    people: Cast, changing: Lane
) -> None:
    first, second = (ask(people.alice, "queue.hold", params=HOLD) for _ in range(2))
    assert taken(changing).pk == first.pk
    assert claim(changing, "ssh.0") is None
    first.runs.update(state=RunState.FAILED)
    assert taken(changing).pk == second.pk


def test_the_later_one_of_a_block_and_an_unblock_has_the_last_word(people: Cast) -> None:
    add_host(people.acme, "mx3", "postfix")
    target = {"hosts": ["mx3"]}
    block = ask(people.alice, "sender.block", target, params=SENDER)
    unblock = ask(people.alice, "sender.unblock", target, params=SENDER)
    work(unblock)
    assert {job.state for job in Job.objects.all()} == {"succeeded"}
    assert people.engine.asked.count(("mx3/postfix", "applied")) == 1, "the block was overtaken before it was put there"
    assert not block.blocks.get().is_wanted
    assert not block.blocks.get().instances.exists()


def test_a_block_that_was_ended_before_it_came_to_the_host_is_not_put_there(people: Cast) -> None:
    busy = ask(people.dana, "queue.hold", {"hosts": ["mx2"]}, params=HOLD)
    busy.runs.update(is_planning=False, state=RunState.RUNNING)
    lease = HostLease.objects.create(host=people.acme.hosts.get(name="mx2"), job=busy)
    job = work(ask(people.alice, "sender.block", {"hosts": ["mx2"]}, params=SENDER))
    assert (job.state, job.blocks.get().is_wanted) == ("queued", True)
    job.blocks.update(is_wanted=False)
    lease.job = None
    lease.save()
    run = work(job).runs.get()
    assert (run.state, run.result["notes"]) == ("unchanged", ["the block was ended before it came to this instance"])
    assert ("mx2/postfix", "applied") not in people.engine.asked


def test_an_approved_change_takes_its_place_when_it_is_approved(people: Cast) -> None:
    messages = tuple(message(n) for n in range(101))
    people.engine.plans["mx1/postfix"] = Plan(selected=messages, queue_total=1000)
    people.engine.results["mx1/postfix"] = changed(messages)
    purge = work(ask(people.alice, "queue.purge", params=HOLD))
    assert (purge.state, purge.ready_at) == ("awaiting_approval", None)
    purge = approve(people.bob, purge, purge.digest)
    assert purge.ready_at is not None
