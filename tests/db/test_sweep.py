"""What happens though nobody asks: waking again, expiry, blocks that catch up."""

from datetime import timedelta
from importlib import import_module
from typing import Any

import pytest
from django.apps import apps

from fleet.models import Host
from fleet.mta.errors import Conflict, Unreachable, Unsupported
from fleet.mta.records import Ended, Result
from fleet.mta.steps import Plan
from jobs import queues
from jobs.blocklist import want
from jobs.clock import db_now
from jobs.errors import Invalid
from jobs.lifecycle import sweep
from jobs.lifecycle.approval import approve
from jobs.lifecycle.cancel import cancel
from jobs.lifecycle.followup import undo
from jobs.models import AuditEvent, Block, BlockInstance, HostLease, Job, QuarantineItem
from jobs.worker import runner
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


@pytest.mark.parametrize("error", [Unreachable("no route"), Conflict("another tool has the file")])
def test_a_dry_run_that_comes_to_nothing_says_nothing_about_the_block_that_is_there(people: Cast, error: Any) -> None:
    block(people)
    before = list(BlockInstance.objects.values())
    people.engine.plans["mx1/postfix"] = error
    work(ask(people.alice, "sender.block", {"customers": ["acme"]}, params=SENDER, dry_run=True))
    assert list(BlockInstance.objects.values()) == before


def test_workers_are_woken_again_for_a_job_that_nobody_took(people: Cast, wakeups: list[Any]) -> None:
    job = ask(people.alice, "queue.list")
    wakeups.clear()
    now = db_now()
    sweep.wake_again(now)
    assert wakeups == [], "the first wakeup is not late yet"
    sweep.wake_again(now + timedelta(seconds=6))
    assert wakeups == [(queues.queue_of(job.runs.get()), "read")]


def test_for_many_jobs_that_wait_a_queue_is_woken_once_and_ever_less_often(people: Cast, wakeups: list[Any]) -> None:
    for _ in range(50):
        ask(people.alice, "queue.list")
    wakeups.clear()
    begun = db_now()
    Job.objects.update(wake_at=begun + timedelta(seconds=5))
    for second in range(0, 600, 2):
        sweep.wake_again(begun + timedelta(seconds=second))
    assert 8 <= len(wakeups) <= 10, "after some 5, 15, 35, 75 s, and then all two minutes"


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


def test_catching_up_is_on_record_as_done_for_who_asked_for_the_block_or_for_its_end(people: Cast) -> None:
    people.engine.results["mx2/postfix"] = Unreachable("no route to host")
    people.engine.mutates = False
    block(people)
    people.engine.results.clear()
    catch_up()
    people.engine.results["mx2/postfix"] = Unreachable("no route to host")
    work(ask(people.dana, "sender.unblock", {"customers": ["acme"]}, params=SENDER))
    people.engine.results.clear()
    catch_up()
    assert states() == {}
    entries = AuditEvent.objects.filter(action="job.submitted", channel="schedule").order_by("id")
    assert list(entries.values_list("actor", "on_behalf_of")) == [("mxfleet", "alice"), ("mxfleet", "dana")]


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


HIS = "/list line 3 is the administrator's, not ours, and stays: 'newsletter@sillyplace.com'"


def refused_by_hand(people: Cast) -> BlockInstance:
    """Blocked where a line of the administrator refuses the sender already."""
    people.engine.results["mx2/postfix"] = Result(Ended.UNCHANGED, data={"notes": [HIS]})
    people.engine.mutates = False
    work(ask(people.alice, "sender.block", {"hosts": ["mx2"]}, params=SENDER))
    row = BlockInstance.objects.get()
    assert (row.state, row.detail) == ("applied", HIS)
    return row


def test_what_the_administrator_refuses_is_applied_and_looked_at_again_until_our_line_is_there(people: Cast) -> None:
    row = refused_by_hand(people)
    for _ in range(2):
        assert row.next_try_at is not None
        assert (row.next_try_at - row.changed_at).total_seconds() == 3600
        catch_up()
        row.refresh_from_db()
        assert (row.state, row.detail) == ("applied", HIS)
    del people.engine.results["mx2/postfix"]  # he has taken it away
    catch_up()
    row.refresh_from_db()
    assert (row.state, row.detail, row.next_try_at) == ("applied", "", None)


@pytest.mark.parametrize("pattern", ["newsletter@sillyplace.com", "newsletter@SillyPlace.com"])
def test_what_he_refused_before_the_upgrade_is_looked_at_each_hour_after_it(people: Cast, pattern: str) -> None:
    work(ask(people.alice, "sender.block", {"hosts": ["mx1"]}, params={"pattern": pattern}))
    people.engine.results["mx2/postfix"] = Result(Ended.UNCHANGED)  # the older version did not name his line
    people.engine.mutates = False
    work(ask(people.alice, "sender.block", {"hosts": ["mx2"]}, params={"pattern": pattern}))
    assert BlockInstance.objects.filter(state="applied", next_try_at=None).count() == 3
    import_module("jobs.migrations.0011_look_at_blocks_again").look_again(apps, None)
    row = BlockInstance.objects.get(next_try_at__isnull=False)
    people.engine.results["mx2/postfix"] = Result(Ended.UNCHANGED, data={"notes": [HIS]})
    catch_up()
    row.refresh_from_db()
    assert row.next_try_at is not None
    assert (str(row.instance), row.state, row.detail) == ("mx2/postfix", "applied", HIS)
    assert (row.next_try_at - row.changed_at).total_seconds() == 3600


def test_a_block_that_was_wanted_again_by_an_undo_is_looked_at_after_the_upgrade_too(people: Cast) -> None:
    work(ask(people.alice, "sender.block", {"hosts": ["mx2"]}, params=SENDER))
    freed = work(undo(people.alice, Job.objects.get(), "a mistake"))
    people.engine.results["mx2/postfix"] = Result(Ended.UNCHANGED)
    people.engine.mutates = False
    back = work(undo(people.alice, freed, "wanted after all"))
    assert (back.params, back.runs.get().state) == ({}, "unchanged")
    import_module("jobs.migrations.0011_look_at_blocks_again").look_again(apps, None)
    assert BlockInstance.objects.get().next_try_at is not None


def test_a_line_of_the_administrator_is_no_drift_of_ours(people: Cast) -> None:
    refused_by_hand(people)
    people.engine.results["mx2/postfix"] = Result(Ended.SUCCEEDED, data={"ours": [], "others": []})
    work(ask(people.alice, "block.list", {"hosts": ["mx2"]}))
    assert states() == {"mx2/postfix": "applied"}


def test_an_unblock_leaves_the_administrators_line_and_ends_the_wish(people: Cast) -> None:
    refused_by_hand(people)
    job = work(ask(people.alice, "sender.unblock", {"hosts": ["mx2"]}, params=SENDER))
    assert (job.runs.get().state, job.runs.get().result["notes"]) == ("unchanged", [HIS])
    assert (states(), Block.objects.get().is_wanted) == ({}, False)
    catch_up()
    assert not Job.objects.filter(channel="schedule").exists()


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
    assert queues.queue_of(first.runs.get()) == queues.queue_of(second.runs.get())


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


def test_an_unblock_leaves_the_line_that_a_block_asked_for_meanwhile_needs(people: Cast) -> None:
    block(people)
    job = ask(people.alice, "sender.unblock", {"customers": ["acme"]}, params=SENDER)
    people.engine.before = lambda place, phase: wider(people) if phase == "planned" else None
    assert work(job).state == "succeeded"
    assert {run.state for run in job.runs.all()} == {"unchanged"}
    assert Block.objects.filter(is_wanted=True).count() == 1


def wider(people: Cast) -> None:
    """While the unblock is being planned somebody blocks the sender for both customers."""
    if not people.other.blocks.exists():
        both = ask(people.dana, "sender.block", {"all": True}, params=SENDER)
        want(both, db_now())


def test_an_unblock_of_hosts_that_are_down_is_wanted_and_caught_up(people: Cast) -> None:
    block(people)
    people.engine.plans["mx2/postfix"] = Unreachable("no route to host")
    people.engine.mutates = False
    work(ask(people.alice, "sender.unblock", {"customers": ["acme"]}, params=SENDER))
    assert states() == {"mx2/postfix": "removing"}
    people.engine.plans.clear()
    catch_up()
    assert states() == {}


def test_an_unblock_is_wanted_though_all_its_hosts_are_down(people: Cast) -> None:
    work(ask(people.alice, "sender.block", {"hosts": ["mx2"]}, params=SENDER))
    people.engine.plans["mx2/postfix"] = Unreachable("no route to host")
    people.engine.mutates = False
    job = work(ask(people.alice, "sender.unblock", {"hosts": ["mx2"]}, params=SENDER))
    assert (job.state, Block.objects.get().is_wanted, states()) == ("failed", False, {"mx2/postfix": "removing"})
    people.engine.plans.clear()
    catch_up()
    assert states() == {}


def test_what_fails_on_a_host_is_seen_and_tried_again_with_growing_pauses(people: Cast) -> None:
    people.engine.results["mx2/postfix"] = Conflict("the file is a link")
    people.engine.mutates = False
    work(ask(people.alice, "sender.block", {"hosts": ["mx2"]}, params=SENDER))
    pauses = []
    for _ in range(3):
        row = BlockInstance.objects.get()
        assert (row.state, row.detail) == ("failed", "the file is a link")
        pauses.append(round((row.next_try_at - row.changed_at).total_seconds()))
        BlockInstance.objects.update(next_try_at=db_now())
        catch_up()
    assert pauses == [60, 300, 1800]


def test_an_instance_has_one_open_attempt_to_catch_up(people: Cast) -> None:
    people.engine.results["mx2/postfix"] = Unreachable("no route to host")
    people.engine.mutates = False
    work(ask(people.alice, "sender.block", {"hosts": ["mx2"]}, params=SENDER))
    for _ in range(3):
        BlockInstance.objects.update(next_try_at=db_now())
        for queue in ("ssh.0", "ssh.1"):
            runner.catch_up(queue)
    assert Job.objects.filter(channel="schedule").count() == 1


def test_where_a_block_is_unsupported_it_ends_there_and_its_unblock_is_no_failure(people: Cast) -> None:
    people.engine.plans["mx2/postfix"] = Unsupported("no access map")
    work(ask(people.alice, "sender.block", {"customers": ["acme"]}, params=SENDER))
    assert states()["mx2/postfix"] == "unsupported"
    job = work(ask(people.alice, "sender.unblock", {"customers": ["acme"]}, params=SENDER))
    assert (job.state, states()) == ("succeeded", {})


def test_a_block_that_is_cancelled_once_it_is_ready_is_not_wanted_any_more(people: Cast) -> None:
    job = ready_block(people)
    assert Block.objects.get().is_wanted
    cancel(people.alice, job)
    job.refresh_from_db()
    assert (job.state, Block.objects.get().is_wanted, states()) == ("cancelled", False, {})


def test_an_unblock_that_is_not_begun_in_time_leaves_the_block_wanted(people: Cast) -> None:
    block(people)
    job = busy(people, "sender.unblock")
    assert not Block.objects.get().is_wanted
    sweep.expire_jobs(db_now() + timedelta(minutes=31))
    job.refresh_from_db()
    assert (job.state, Block.objects.get().is_wanted) == ("expired", True)
    assert set(states().values()) == {"pending"}


def ready_block(people: Cast) -> Job:
    return busy(people, "sender.block")


def busy(people: Cast, operation: str) -> Job:
    """A job that is ready and waits, since another one has the hosts."""
    for host in Host.objects.all():
        other = ask(people.dana, "queue.hold", {"hosts": [host.name]}, params={"match": "from:x@y.example"})
        HostLease.objects.update_or_create(host=host, defaults={"job": other})
        other.runs.update(state="running", is_planning=False)
    job = work(ask(people.alice, operation, {"customers": ["acme"]}, params=SENDER))
    assert job.state == "queued"
    return job
