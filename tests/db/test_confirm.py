"""Plan, show, do: nobody is asked, and nothing goes on, before the requester has confirmed the frozen plan."""

from datetime import timedelta
from typing import Any

import pytest
from django.db import IntegrityError, transaction

from fleet.mta.errors import Unreachable
from fleet.mta.steps import Plan
from jobs.actor import Actor
from jobs.clock import db_now
from jobs.errors import Clash, Forbidden, Invalid, ServiceError
from jobs.lifecycle import approval, sweep
from jobs.lifecycle.approval import approve, confirm, reject
from jobs.lifecycle.cancel import cancel
from jobs.lifecycle.followup import retry, undo
from jobs.models import AuditEvent, Block, Job, JobEvent, Role
from tests.db.fleet import APPLIED, PLANNED, Cast, ask, changed, message, person, work
from tests.db.test_sweep import SENDER

MATCH = {"match": "from:*@bulk.example"}


def purge(people: Cast, count: int = 2, **fields: Any) -> Job:
    """One that its requester wants to see first; planned."""
    messages = [message(n) for n in range(count)]
    people.engine.plans["mx1/postfix"] = Plan(selected=tuple(messages), queue_total=1000)
    people.engine.results["mx1/postfix"] = changed(messages, places={m.queue_id: "/q" for m in messages})
    return work(ask(people.alice, "queue.purge", params=MATCH, confirm=True, **fields))


def refused(kind: type[ServiceError], code: str, act: Any, *args: Any) -> None:
    with pytest.raises(kind) as caught:
        act(*args)
    assert caught.value.code == code


def test_what_no_rule_asks_about_waits_for_its_requester_and_then_runs(people: Cast) -> None:
    job = work(purge(people))
    assert (job.state, job.approvals_needed, job.is_confirmed) == ("awaiting_approval", 0, False)
    assert people.engine.asked == [("mx1/postfix", PLANNED)]
    seen = job.digest
    job = work(confirm(people.alice, job, seen))
    assert (job.state, job.digest, people.engine.asked[-1]) == ("succeeded", seen, ("mx1/postfix", APPLIED))
    entry = AuditEvent.objects.get(action="job.confirmed")
    assert (entry.actor, entry.data) == ("alice", {"digest": seen})
    assert AuditEvent.objects.get(action="job.submitted").data["confirm"] is True


def test_rules_ask_as_ever_once_it_is_confirmed_and_nobody_decides_before(people: Cast) -> None:
    job = purge(people, 101)
    refused(Clash, "not_confirmed", approve, people.bob, job, job.digest)
    refused(Clash, "not_confirmed", reject, people.bob, job, job.digest, "no")
    assert not job.approvals.exists()
    deadline, told = job.expires_at, JobEvent.objects.filter(job=job).count()
    job = confirm(people.alice, job, job.digest)
    assert (job.state, job.is_confirmed, job.expires_at) == ("awaiting_approval", True, deadline)
    assert JobEvent.objects.filter(job=job).count() == told + 1, "who follows the job learns of it"
    refused(Forbidden, "self_approval", approve, people.alice, job, job.digest)
    approve(people.bob, job, job.digest)
    assert work(job).state == "succeeded"


def test_only_who_requested_it_confirms_and_only_while_he_may_request_it(people: Cast) -> None:
    job = purge(people)
    colleague = person("carol", "operator", people.acme)
    for other in (people.bob, colleague, people.dana):
        refused(Forbidden, "forbidden", confirm, other, job, job.digest)
    narrow = Actor(people.alice.account, scopes=frozenset({"jobs:read"}))
    refused(Forbidden, "forbidden", confirm, narrow, job, job.digest)
    Role.objects.filter(account=people.alice.account).update(role="viewer")
    refused(Forbidden, "forbidden", confirm, Actor(people.alice.account), job, job.digest)
    assert Job.objects.get().confirmed_at is None


def test_another_plan_than_the_one_that_was_seen_is_not_confirmed(people: Cast) -> None:
    job = purge(people)
    refused(Clash, "plan_changed", confirm, people.alice, job, "sha256:" + "0" * 64)
    assert work(job).state == "awaiting_approval"


def test_a_plan_is_confirmed_once(people: Cast) -> None:
    job = purge(people, 101)
    confirm(people.alice, job, job.digest)
    refused(Clash, "not_awaiting_confirmation", confirm, people.alice, job, job.digest)
    assert AuditEvent.objects.filter(action="job.confirmed").count() == 1


def test_what_nobody_wanted_to_see_first_awaits_no_confirmation(people: Cast) -> None:
    people.engine.plans["mx1/postfix"] = Plan(selected=tuple(message(n) for n in range(101)), queue_total=1000)
    job = work(ask(people.alice, "queue.purge", params=MATCH))
    refused(Clash, "not_awaiting_confirmation", confirm, people.alice, job, job.digest)
    assert work(job).state == "awaiting_approval"


def test_what_is_not_confirmed_in_time_expires_and_is_never_done(people: Cast) -> None:
    job = purge(people, approval_ttl=60)
    assert job.expires_at == job.frozen_at + timedelta(seconds=60)
    Job.objects.filter(pk=job.pk).update(expires_at=db_now() - timedelta(seconds=1))
    refused(Clash, "expired", confirm, people.alice, job, job.digest)
    sweep.expire_jobs(db_now())
    refused(Clash, "expired", confirm, people.alice, job, job.digest)
    assert work(job).state == "expired"
    assert people.engine.asked == [("mx1/postfix", PLANNED)]


def test_what_is_confirmed_in_the_last_moment_does_not_expire_with_the_deadline_that_it_had(people: Cast) -> None:
    job = purge(people)
    late = job.expires_at + timedelta(seconds=1)
    confirm(people.alice, job, job.digest)
    Job.objects.filter(pk=job.pk).update(expires_at=late + timedelta(minutes=30))
    sweep._expire_job(job.pk, late)
    assert Job.objects.get().state == "queued"


def test_a_plan_that_is_not_what_was_wanted_is_withdrawn(people: Cast) -> None:
    job = purge(people)
    cancel(people.alice, job)
    refused(Clash, "not_awaiting_confirmation", confirm, people.alice, job, job.digest)
    assert work(job).state == "cancelled"


def test_who_had_a_hand_in_the_token_that_confirmed_does_not_decide(people: Cast) -> None:
    job = purge(people, 101)
    confirm(Actor(people.alice.account, minted_by=("bob",)), job, job.digest)
    refused(Forbidden, "self_approval", approve, people.bob, job, job.digest)


def test_the_database_itself_lets_nothing_begin_that_is_not_confirmed(people: Cast) -> None:
    job = purge(people)
    with pytest.raises(IntegrityError), transaction.atomic():
        Job.objects.filter(pk=job.pk).update(state="queued")


def test_a_service_that_dies_between_the_plan_and_the_confirmation_has_lost_nothing(
    people: Cast, wakeups: list[Any]
) -> None:
    job = purge(people)
    wakeups.clear()
    sweep.wake_again(db_now() + timedelta(hours=1))
    assert (work(job).state, wakeups, people.engine.asked) == ("awaiting_approval", [], [("mx1/postfix", PLANNED)])
    assert work(confirm(people.alice, job, job.digest)).state == "succeeded"


def test_a_confirmation_that_breaks_off_is_none(people: Cast, monkeypatch: pytest.MonkeyPatch) -> None:
    job = purge(people)
    with monkeypatch.context() as broken:
        broken.setattr(approval, "queue", lambda *_: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            confirm(people.alice, job, job.digest)
    assert Job.objects.get().confirmed_at is None
    assert not AuditEvent.objects.filter(action="job.confirmed").exists()
    assert work(confirm(people.alice, job, job.digest)).state == "succeeded"


def test_a_block_is_not_wanted_before_it_is_confirmed(people: Cast) -> None:
    people.engine.plans["mx2/postfix"] = Unreachable("no route")
    both = {"customers": ["acme"]}
    job = work(ask(people.alice, "sender.block", both, params=SENDER, confirm=True))
    assert not Block.objects.exists()
    work(confirm(people.alice, job, job.digest))
    rows = Block.objects.get().instances.select_related("instance__host")
    assert {str(row.instance): row.state for row in rows} == {
        "mx1/postfix": "applied",
        "mx1/postfixEXT": "applied",
        "mx2/postfix": "pending",
    }


def test_a_block_whose_hosts_were_all_down_leaves_no_wish_that_nobody_confirmed(people: Cast) -> None:
    people.engine.plans["mx1/postfix"] = Unreachable("no route")
    assert work(ask(people.alice, "sender.block", params=SENDER, confirm=True)).state == "failed"
    assert not Block.objects.exists()
    assert work(ask(people.alice, "sender.block", params=SENDER)).state == "failed"
    assert Block.objects.get().is_wanted


def test_what_would_change_nothing_ends_at_once(people: Cast) -> None:
    assert work(ask(people.alice, "queue.hold", params=MATCH, confirm=True)).state == "succeeded"


def test_an_undo_and_a_retry_are_confirmed_too(people: Cast) -> None:
    job = purge(people, group="newsletter", ticket="OPS-1")
    work(confirm(people.alice, job, job.digest))
    back = work(undo(people.alice, job, "it was wanted", confirm=True))
    assert (back.state, back.group) == ("awaiting_approval", "newsletter")
    assert work(confirm(people.alice, back, back.digest)).state == "succeeded"

    people.engine.plans["mx1/postfix"] = Unreachable("no route")
    failed = work(ask(people.alice, "queue.purge", params=MATCH, group="newsletter"))
    people.engine.plans["mx1/postfix"] = Plan(selected=(message(1),), queue_total=1000)
    again = work(retry(people.alice, failed, confirm=True))
    assert (again.state, again.is_confirmed, again.group) == ("awaiting_approval", False, "newsletter")


@pytest.mark.parametrize(("operation", "fields"), [("queue.list", {}), ("queue.purge", {"dry_run": True})])
def test_there_is_nothing_to_confirm_of_what_changes_nothing(
    people: Cast, operation: str, fields: dict[str, Any]
) -> None:
    params = MATCH if operation == "queue.purge" else {}
    with pytest.raises(Invalid) as caught:
        ask(people.alice, operation, params=params, confirm=True, **fields)
    assert [error.field for error in caught.value.errors] == ["confirm"]
    job = work(ask(people.alice, operation, params=params, **fields))
    with pytest.raises(Invalid):
        retry(people.alice, job, confirm=True)
