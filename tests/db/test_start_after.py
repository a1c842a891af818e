"""What is put off begins at its time and not before, and keeps nobody waiting until then."""

from datetime import datetime, timedelta
from typing import Any

import pytest
from django.db.models import DateTimeField, Value

from fleet.mta.errors import Unreachable
from fleet.mta.steps import Plan
from jobs import queues
from jobs.clock import db_now
from jobs.errors import Invalid
from jobs.lifecycle import claim, resume, sweep
from jobs.lifecycle.approval import approve
from jobs.lifecycle.cancel import cancel
from jobs.models import AuditEvent, Block, Job
from jobs.restore import pause
from tests.db.fleet import APPLIED, PLANNED, Cast, ask, changed, claimed, message, work
from tests.db.test_sweep import SENDER

HOLD = {"match": "from:*@bulk.example"}
DAY = timedelta(days=1)


@pytest.fixture
def tomorrow() -> datetime:
    return db_now() + DAY


def come(monkeypatch: pytest.MonkeyPatch, moment: datetime) -> None:
    """For claims it is that time now."""
    monkeypatch.setattr(claim, "Now", lambda: Value(moment, output_field=DateTimeField()))


def hold(people: Cast, **fields: Any) -> Job:
    people.engine.plans["mx1/postfix"] = Plan(selected=(message(1),), queue_total=1000)
    people.engine.results["mx1/postfix"] = changed([message(1)])
    return work(ask(people.alice, "queue.hold", params=HOLD, **fields))


def test_it_is_planned_at_once_and_begins_at_its_time(
    people: Cast, tomorrow: datetime, monkeypatch: pytest.MonkeyPatch
) -> None:
    job = hold(people, start_after=tomorrow)
    assert (job.state, people.engine.asked) == ("queued", [("mx1/postfix", PLANNED)])
    assert job.expires_at == tomorrow + timedelta(seconds=job.execution_ttl)
    come(monkeypatch, tomorrow - timedelta(seconds=1))
    assert claimed(job) is None
    come(monkeypatch, tomorrow)
    assert (work(job).state, people.engine.asked[-1]) == ("succeeded", ("mx1/postfix", APPLIED))
    assert Job.objects.get().ready_at is not None
    told = AuditEvent.objects.get(action="job.submitted").data["start_after"]
    assert datetime.fromisoformat(told) == tomorrow


def test_people_may_agree_before_its_time(people: Cast, tomorrow: datetime, monkeypatch: pytest.MonkeyPatch) -> None:
    messages = [message(n) for n in range(101)]
    people.engine.plans["mx1/postfix"] = Plan(selected=tuple(messages), queue_total=1000)
    people.engine.results["mx1/postfix"] = changed(messages)
    job = work(ask(people.alice, "queue.bounce", params=HOLD, start_after=tomorrow))
    assert job.expires_at < tomorrow, "their clock is their own"
    approve(people.bob, job, job.digest)
    job = work(job)
    assert (job.state, job.expires_at) == ("queued", tomorrow + timedelta(seconds=job.execution_ttl))
    come(monkeypatch, tomorrow)
    assert work(job).state == "succeeded"


def test_who_agrees_after_its_time_lets_it_begin_at_once(people: Cast, monkeypatch: pytest.MonkeyPatch) -> None:
    messages = [message(n) for n in range(101)]
    people.engine.plans["mx1/postfix"] = Plan(selected=tuple(messages), queue_total=1000)
    soon = db_now() + timedelta(minutes=1)
    job = work(ask(people.alice, "queue.bounce", params=HOLD, start_after=soon))
    monkeypatch.setattr("jobs.lifecycle.planning.db_now", lambda: soon + timedelta(minutes=5))
    job = approve(people.bob, job, job.digest)
    assert (job.state, job.ready_at) == ("queued", soon + timedelta(minutes=5))
    assert job.expires_at == job.ready_at + timedelta(seconds=job.execution_ttl)


def test_it_keeps_no_other_job_from_its_host(people: Cast, tomorrow: datetime) -> None:
    later = hold(people, start_after=tomorrow)
    assert (hold(people).state, work(later).state) == ("succeeded", "queued")


def test_a_reading_job_is_put_off_too(
    people: Cast, tomorrow: datetime, monkeypatch: pytest.MonkeyPatch, wakeups: list[Any],
    django_capture_on_commit_callbacks: Any,
) -> None:  # fmt: skip
    with django_capture_on_commit_callbacks(execute=True):
        job = work(ask(people.alice, "queue.list", start_after=tomorrow))
    assert (job.state, wakeups) == ("queued", [])
    sweep.wake_again(tomorrow - timedelta(seconds=1))
    assert wakeups == []
    sweep.wake_again(tomorrow)
    assert wakeups == [(queues.queue_of(job.runs.get()), "read")]
    come(monkeypatch, tomorrow)
    assert work(job).state == "succeeded"


def test_its_time_is_told_by_the_databases_own_clock(people: Cast, tomorrow: datetime) -> None:
    job = ask(people.alice, "queue.list", start_after=tomorrow)
    Job.objects.filter(pk=job.pk).update(start_after=db_now() + timedelta(minutes=1))
    assert claimed(job) is None
    Job.objects.filter(pk=job.pk).update(start_after=db_now().replace(microsecond=0) - timedelta(seconds=1))
    assert work(job).state == "succeeded"


def test_workers_are_woken_at_its_time(people: Cast, tomorrow: datetime, wakeups: list[Any]) -> None:
    job = hold(people, start_after=tomorrow)
    wakeups.clear()
    sweep.wake_again(tomorrow - timedelta(seconds=1))
    assert wakeups == []
    sweep.wake_again(tomorrow)
    assert wakeups == [(queues.queue_of(job.runs.get()), "change")]


def test_a_block_is_wanted_from_its_time_on_and_lasts_as_long_as_was_asked_for(
    people: Cast, tomorrow: datetime, monkeypatch: pytest.MonkeyPatch
) -> None:
    people.engine.plans["mx2/postfix"] = Unreachable("no route")
    hour = {**SENDER, "for": "1h"}
    job = work(ask(people.alice, "sender.block", {"customers": ["acme"]}, params=hour, start_after=tomorrow))
    sweep.sweep()
    assert (job.state, Block.objects.exists()) == ("queued", False)
    come(monkeypatch, tomorrow)
    assert work(job).state == "partly_failed"
    block = Block.objects.get()
    assert (block.is_wanted, block.expires_at) == (True, tomorrow + timedelta(hours=1))
    rows = block.instances.select_related("instance__host")
    assert {str(row.instance): row.state for row in rows}["mx2/postfix"] == "pending"


def test_a_block_of_hosts_that_were_all_down_is_not_wanted_before_its_time(people: Cast, tomorrow: datetime) -> None:
    people.engine.plans["mx1/postfix"] = Unreachable("no route")
    assert work(ask(people.alice, "sender.block", params=SENDER, start_after=tomorrow)).state == "failed"
    assert not Block.objects.exists()


def test_a_block_that_would_end_before_it_begins_is_refused(people: Cast, tomorrow: datetime) -> None:
    ends = {**SENDER, "expires_at": (tomorrow - timedelta(hours=1)).isoformat()}
    with pytest.raises(Invalid) as caught:
        ask(people.alice, "sender.block", params=ends, start_after=tomorrow)
    assert [error.field for error in caught.value.errors] == ["params.expires_at"]


def test_it_is_cancelled_before_its_time(people: Cast, tomorrow: datetime, monkeypatch: pytest.MonkeyPatch) -> None:
    job = work(ask(people.alice, "sender.block", params=SENDER, start_after=tomorrow))
    cancel(people.alice, job)
    come(monkeypatch, tomorrow)
    assert (work(job).state, Block.objects.exists()) == ("cancelled", False)


def test_it_expires_when_it_was_not_begun_in_time_after_its_time(people: Cast, tomorrow: datetime) -> None:
    job = hold(people, start_after=tomorrow)
    over = tomorrow + timedelta(seconds=job.execution_ttl)
    sweep.expire_jobs(over - timedelta(seconds=1))
    assert work(job).state == "queued"
    sweep.expire_jobs(over)
    assert work(job).state == "expired"


def test_after_a_restore_what_had_not_come_to_its_time_is_in_no_doubt(people: Cast, tomorrow: datetime) -> None:
    later, now = hold(people, start_after=tomorrow), ask(people.alice, "queue.hold", params=HOLD)
    Job.objects.filter(pk=now.pk).update(state="queued", ready_at=db_now(), frozen_at=db_now())
    now.runs.update(is_planning=False)
    pause.begin("restored")
    resume.doubt()
    assert (later.runs.get().state, now.runs.get().state) == ("pending", "unknown")
    assert Job.objects.get(pk=later.pk).state == "queued"


@pytest.mark.parametrize("change", ["role", "host"])
def test_a_reading_job_is_not_begun_for_who_may_ask_no_more_nor_on_a_host_that_is_off(
    people: Cast, tomorrow: datetime, monkeypatch: pytest.MonkeyPatch, change: str
) -> None:
    job = ask(people.alice, "message.show", params={"queue_id": message(1).queue_id}, start_after=tomorrow)
    if change == "role":
        people.alice.account.roles.update(role="viewer")
    else:
        people.acme.hosts.update(enabled=False)
    come(monkeypatch, tomorrow)
    assert (work(job).state, people.engine.asked) == ("failed", [])


@pytest.mark.parametrize("ahead", [timedelta(0), -DAY, timedelta(days=7, minutes=1)])
def test_a_time_that_is_over_or_too_far_away_is_refused(people: Cast, ahead: timedelta) -> None:
    with pytest.raises(Invalid) as caught:
        ask(people.alice, "queue.hold", params=HOLD, start_after=db_now() + ahead)
    assert [(error.field, error.code) for error in caught.value.errors] == [("start_after", "out_of_range")]


def test_a_dry_run_is_not_put_off(people: Cast, tomorrow: datetime) -> None:
    with pytest.raises(Invalid) as caught:
        ask(people.alice, "queue.hold", params=HOLD, start_after=tomorrow, dry_run=True)
    assert [error.field for error in caught.value.errors] == ["start_after"]
