"""Blocks of several customers and several people that meet on one pattern: nobody's block becomes or ends another's."""

from datetime import timedelta
from typing import Any

import pytest

from fleet.mta.errors import Unreachable
from fleet.mta.records import Ended, Result
from fleet.mta.steps import Plan
from jobs import selectors
from jobs.clock import db_now
from jobs.errors import Clash, Invalid
from jobs.lifecycle import sweep
from jobs.lifecycle.approval import approve
from jobs.lifecycle.cancel import cancel
from jobs.lifecycle.followup import retry, undo
from jobs.models import Block, BlockInstance, Job, Role
from tests.db.fleet import Cast, add_host, ask, work

SENDER = {"pattern": "newsletter@sillyplace.com"}


def names(block: Block) -> set[str]:
    """The instances that the block is on."""
    return {str(row.instance) for row in block.instances.select_related("instance__host")}


@pytest.mark.parametrize("target", [{"all": True}, {"mta": ["postfix"]}])
def test_two_customers_who_block_the_same_sender_with_the_same_words_have_two_blocks(
    people: Cast, target: dict[str, Any]
) -> None:
    work(ask(people.alice, "sender.block", target, params=SENDER))
    work(ask(people.charlie, "sender.block", target, params=SENDER))
    (of_acme,) = selectors.visible_blocks(people.alice)
    (of_other,) = selectors.visible_blocks(people.charlie)
    assert names(of_acme) == {"mx1/postfix", "mx1/postfixEXT", "mx2/postfix"}
    assert names(of_other) == {"mx9/postfix"}


def test_one_customer_does_not_end_a_block_that_covers_others_too(people: Cast) -> None:
    work(ask(people.dana, "sender.block", {"all": True}, params=SENDER))
    with pytest.raises(Invalid) as caught:
        ask(people.alice, "sender.unblock", {"all": True}, params=SENDER)
    assert caught.value.code == "scope_mismatch"
    assert "mx9" not in str(caught.value.errors), "the names of others' hosts are not told"
    assert Block.objects.get().is_wanted


def test_undoing_an_own_block_leaves_a_later_and_wider_one_of_somebody_else(people: Cast) -> None:
    mine = work(ask(people.alice, "sender.block", {"hosts": ["mx2"]}, params=SENDER))
    work(ask(people.dana, "sender.block", {"all": True}, params=SENDER))
    with pytest.raises(Clash) as caught:
        undo(people.alice, mine, "wrong sender")
    assert caught.value.code == "not_undoable"
    assert Block.objects.filter(is_wanted=True).count() == 2


def test_a_retry_of_one_customer_s_part_keeps_the_block_that_of_both(people: Cast) -> None:
    people.engine.results["mx9/postfix"] = Unreachable("no route to host")
    people.engine.mutates = False
    job = work(ask(people.dana, "sender.block", {"all": True}, params=SENDER))
    people.engine.results.clear()
    work(retry(people.dana, job))
    assert {customer.slug for customer in Block.objects.get().customers.all()} == {"acme", "other"}
    assert not selectors.visible_blocks(people.charlie)


def wired_block(people: Cast) -> Job:
    """A block that waits for an approval."""
    people.engine.plans["mx1/postfix"] = Plan(wiring=True)
    return work(ask(people.alice, "sender.block", {"customers": ["acme"]}, params=SENDER))


def test_a_block_whose_approver_lost_the_role_before_the_start_is_never_wanted(people: Cast) -> None:
    job = wired_block(people)
    approve(people.bob, job, job.digest)
    Role.objects.filter(account=people.bob.account).delete()
    assert work(job).state == "failed"
    assert not Block.objects.filter(is_wanted=True).exists()


def test_a_block_that_is_cancelled_before_it_begins_reaches_no_host_that_is_added_later(people: Cast) -> None:
    job = wired_block(people)
    approve(people.bob, job, job.digest)
    cancel(people.alice, job)
    add_host(people.acme, "mx3", "postfix")
    sweep.extend_blocks(db_now())
    assert not BlockInstance.objects.exists()


def test_an_unblock_that_expires_before_it_begins_leaves_the_block_wanted(people: Cast) -> None:
    work(ask(people.alice, "sender.block", {"customers": ["acme"]}, params=SENDER))
    people.engine.plans["mx1/postfix"] = Plan(wiring=True)
    job = work(ask(people.alice, "sender.unblock", {"customers": ["acme"]}, params=SENDER))
    job = approve(people.bob, job, job.digest)
    Job.objects.filter(pk=job.pk).update(expires_at=db_now())
    sweep.expire_jobs(db_now())
    assert Block.objects.get().is_wanted


def test_an_undone_unblock_of_a_line_that_no_block_wanted_is_refused_at_once(people: Cast) -> None:
    people.engine.results["mx2/postfix"] = Result(Ended.SUCCEEDED)
    job = work(ask(people.alice, "sender.unblock", {"hosts": ["mx2"]}, params=SENDER))
    assert job.state == "succeeded"
    with pytest.raises(Clash) as caught:
        undo(people.alice, job, "right sender after all")
    assert caught.value.code == "not_undoable"


def test_the_end_of_a_short_block_leaves_a_wider_one_of_the_same_sender(people: Cast) -> None:
    work(ask(people.alice, "sender.block", {"hosts": ["mx2"]}, params={**SENDER, "for": "1h"}))
    work(ask(people.dana, "sender.block", {"all": True}, params=SENDER))
    sweep.expire_blocks(db_now() + timedelta(hours=2))
    BlockInstance.objects.update(next_try_at=db_now())
    for job in sweep.catch_up(row for queue in ("ssh.0", "ssh.1") for row in sweep.behind(db_now(), queue)):
        work(job)
    (left,) = Block.objects.filter(is_wanted=True)
    assert names(left) == {"mx1/postfix", "mx1/postfixEXT", "mx2/postfix", "mx9/postfix"}
    assert not Job.objects.filter(operation="sender.unblock").exists()
