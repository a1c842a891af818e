"""What happens though nobody asks: ringing again, expiry, blocks that catch up."""

from datetime import timedelta
from typing import Any

import pytest

from fleet.mta.errors import Unreachable
from fleet.mta.types import Ended, Plan, Result
from jobs import runner
from jobs.clock import db_now
from jobs.errors import Invalid
from jobs.models import Block, BlockInstance, Job, QuarantineItem
from jobs.services import bell, sweep
from jobs.services.again import undo
from jobs.services.blocks import want
from jobs.services.decide import approve
from tests.db.fleet import Cast, add_host, ask, changed, message, work

SENDER = {"pattern": "newsletter@sillyplace.com"}


def block(people: Cast, **params: Any) -> Job:
    return work(ask(people.alice, "sender.block", {"customers": ["acme"]}, params={**SENDER, **params}))


def states() -> dict[str, str]:
    """{instance: state} of all blocks."""
    return {str(row.instance): row.state for row in BlockInstance.objects.select_related("instance__host")}


def catch_up() -> None:
    """All that is due now, on every worker, and the jobs that come of it."""
    BlockInstance.objects.filter(next_try_at__isnull=False).update(next_try_at=db_now())
    sweep.extend_blocks(db_now())
    for queue in ("ssh.0", "ssh.1"):
        runner.catch_up(queue)
    for job in Job.objects.filter(channel="schedule", finished_at=None):
        work(job)


def test_a_job_that_nobody_took_is_rung_for_again(people: Cast, rings: list[Any]) -> None:
    job = ask(people.alice, "queue.list")
    Job.objects.update(created_at=db_now() - timedelta(seconds=6))
    rings.clear()
    sweep.ring_again(db_now())
    assert [job_id for _, job_id in rings] == [str(job.pk)]


def test_nobody_deciding_in_time_expires_the_job(people: Cast) -> None:
    messages = tuple(message(n) for n in range(101))
    people.engine.plans["mx1/postfix"] = Plan(selected=messages, queue_total=1000)
    job = work(ask(people.alice, "queue.purge", params={"match": "from:*@bulk.example"}))
    sweep.expire_jobs(db_now() + timedelta(hours=2))
    job.refresh_from_db()
    assert (job.state, job.runs.get().state) == ("expired", "cancelled")


def test_an_approved_job_that_nobody_begins_expires(people: Cast) -> None:
    messages = tuple(message(n) for n in range(101))
    people.engine.plans["mx1/postfix"] = Plan(selected=messages, queue_total=1000)
    job = work(ask(people.alice, "queue.purge", params={"match": "from:*@bulk.example"}))
    job = approve(people.bob, job, job.digest)
    sweep.expire_jobs(db_now() + timedelta(minutes=31))
    job.refresh_from_db()
    assert job.state == "expired"


def test_a_block_is_wanted_centrally_and_applied_everywhere(people: Cast) -> None:
    job = block(people)
    assert job.state == "succeeded"
    assert set(states().values()) == {"applied"}
    assert Block.objects.get().job == job


def test_a_host_that_was_down_catches_up_by_a_job_of_the_schedule(people: Cast) -> None:
    people.engine.results["mx2/postfix"] = Unreachable("no route to host")
    people.engine.mutates = False
    job = block(people)
    assert (job.state, states()["mx2/postfix"]) == ("partly_failed", "pending")
    people.engine.results["mx2"] = Unreachable("no route to host")
    catch_up()
    assert not Job.objects.filter(channel="schedule").exists(), "no job while the host does not answer"
    people.engine.results.clear()
    catch_up()
    job.refresh_from_db()
    assert (job.state, states()["mx2/postfix"]) == ("partly_failed", "applied")
    assert Job.objects.get(channel="schedule").state == "succeeded"


def test_a_host_that_was_down_while_the_block_was_planned_catches_up_too(people: Cast) -> None:
    people.engine.plans["mx1/postfix"] = Plan(wiring=True)
    people.engine.plans["mx2/postfix"] = Unreachable("no route to host")
    job = block(people)
    assert job.state == "awaiting_approval"
    approve(people.bob, job, job.digest, "seen")
    job = work(job)
    assert (job.state, states()["mx2/postfix"]) == ("partly_failed", "pending")
    people.engine.plans.clear()
    catch_up()
    assert states()["mx2/postfix"] == "applied"


def test_an_instance_that_joins_the_target_later_gets_the_block(people: Cast) -> None:
    block(people)
    add_host(people.acme, "mx3", "postfix")
    catch_up()
    assert states()["mx3/postfix"] == "applied"


def test_an_expired_block_goes_away_everywhere(people: Cast) -> None:
    block(people, **{"for": "1h"})
    sweep.expire_blocks(db_now() + timedelta(hours=2))
    assert set(states().values()) == {"removing"}
    catch_up()
    assert states() == {}
    assert not Block.objects.get().is_wanted


def test_unblocking_ends_the_block(people: Cast) -> None:
    block(people)
    job = work(ask(people.alice, "sender.unblock", {"customers": ["acme"]}, params=SENDER))
    assert (job.state, states(), Block.objects.get().is_wanted) == ("succeeded", {}, False)


def test_half_a_block_cannot_be_unblocked(people: Cast) -> None:
    block(people)
    with pytest.raises(Invalid) as caught:
        ask(people.alice, "sender.unblock", {"hosts": ["mx2"]}, params=SENDER)
    assert caught.value.code == "scope_mismatch"


def test_an_undone_block_is_no_longer_wanted_and_an_undone_unblock_is_again(people: Cast) -> None:
    job = block(people, code=551)
    gone = work(undo(people.alice, job, "wrong sender"))
    assert (gone.operation, gone.state, states()) == ("sender.unblock", "succeeded", {})
    back = work(undo(people.alice, gone, "right sender after all"))
    assert (back.operation, back.state) == ("sender.block", "succeeded")
    assert Block.objects.filter(is_wanted=True, code=551).count() == 1


def test_a_line_that_somebody_removed_by_hand_is_drift(people: Cast) -> None:
    block(people)
    people.engine.results["mx2/postfix"] = Result(Ended.SUCCEEDED, data={"ours": [], "others": []})
    work(ask(people.alice, "block.list", {"hosts": ["mx2"]}))
    assert states()["mx2/postfix"] == "drifted"


def test_a_rejected_block_is_never_wanted(people: Cast) -> None:
    people.engine.plans["mx1/postfix"] = Plan(wiring=True)
    job = block(people)
    assert job.state == "awaiting_approval"
    assert not Block.objects.exists()


def test_quarantined_copies_are_erased_when_their_time_is_over(people: Cast) -> None:
    messages = (message(1),)
    people.engine.plans["mx1/postfix"] = Plan(selected=messages, queue_total=100)
    people.engine.results["mx1/postfix"] = changed(messages, places={messages[0].queue_id: "/q"})
    work(ask(people.alice, "queue.purge", params={"match": "from:*@bulk.example", "keep": "1h"}))
    QuarantineItem.objects.update(expires_at=db_now() - timedelta(seconds=1))
    people.engine.results["mx1/postfix"] = changed(messages)
    for job in sweep.expire_quarantine():
        assert work(job).state == "succeeded"
    assert QuarantineItem.objects.get().state == "expired"
    assert sweep.expire_quarantine() == []


def test_the_queue_of_a_host_is_the_same_for_every_job(people: Cast) -> None:
    first, second = (ask(people.alice, "queue.list", {"hosts": ["mx2"]}) for _ in range(2))
    assert bell.queue_of(first.runs.get()) == bell.queue_of(second.runs.get())


def test_a_block_of_hosts_that_are_all_down_is_wanted_and_caught_up(people: Cast) -> None:
    people.engine.plans["mx2/postfix"] = Unreachable("no route to host")
    people.engine.mutates = False
    job = work(ask(people.alice, "sender.block", {"hosts": ["mx2"]}, params=SENDER))
    assert (job.state, states()) == ("failed", {"mx2/postfix": "pending"})
    people.engine.plans.clear()
    catch_up()
    assert states() == {"mx2/postfix": "applied"}


def test_a_block_that_somebody_must_agree_to_is_not_wanted_while_its_hosts_are_down(people: Cast) -> None:
    people.engine.plans["mx2/postfix"] = Unreachable("no route to host")
    work(ask(people.alice, "sender.block", {"hosts": ["mx2"]}, params={"pattern": "sillyplace.com"}))
    assert not Block.objects.exists()


def test_a_block_that_others_want_is_applied_again_when_an_unblock_took_its_line(people: Cast) -> None:
    block(people)
    job = ask(people.alice, "sender.unblock", {"customers": ["acme"]}, params=SENDER)
    people.engine.before = lambda place, phase: wider(people) if phase == "planned" else None
    assert work(job).state == "succeeded"
    people.engine.before = lambda place, phase: None
    assert states() == dict.fromkeys(("mx1/postfix", "mx1/postfixEXT", "mx2/postfix", "mx9/postfix"), "pending")


def wider(people: Cast) -> None:
    """While the unblock is being planned somebody blocks the sender for both customers."""
    if not people.other.blocks.exists():
        both = ask(people.dana, "sender.block", {"all": True}, params=SENDER)
        want(both, db_now())
