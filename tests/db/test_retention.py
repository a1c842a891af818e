"""What is old goes in its order; the audit trail, decisions, and what something open needs never do."""

from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest
from django.db import connection
from django.test.utils import CaptureQueriesContext

from deploy.values import Keep
from fleet.mta.steps import Plan
from jobs.clock import db_now
from jobs.errors import Clash
from jobs.lifecycle import retention
from jobs.lifecycle.approval import approve
from jobs.lifecycle.followup import undo
from jobs.models import (
    AuditEvent,
    Block,
    Job,
    JobEvent,
    Message,
    QuarantineItem,
    Run,
    Thinned,
    WorkerLiveness,
)
from jobs.worker import liveness
from tests.db.fleet import Cast, ask, changed, message, work

DAY = 86_400
HOLD = {"match": "from:*@bulk.example"}


@pytest.fixture(autouse=True)
def keep(settings: Any) -> None:
    settings.ENV = replace(settings.ENV, keep=Keep(jobs=30 * DAY, details=10 * DAY, events=2 * DAY, answers=DAY))


def done(people: Cast, operation: str, count: int = 3, total: int = 1000) -> Job:
    """A job on mx1/postfix that has changed so many messages of so many, unless somebody has to agree."""
    messages = [message(n) for n in range(count)]
    people.engine.plans["mx1/postfix"] = Plan(selected=tuple(messages), queue_total=total)
    places = {m.queue_id: f"/q/{m.queue_id}" for m in messages} if operation == "queue.purge" else {}
    people.engine.results["mx1/postfix"] = changed(messages, places=places)
    return work(ask(people.alice, operation, params=HOLD))


def after(days: float) -> None:
    """A round, so many days after all that has ended so far."""
    Job.objects.exclude(finished_at=None).update(finished_at=db_now() - timedelta(days=days))
    retention.apply()


def left(job: Job) -> tuple[bool, int, int, bool]:
    """Whether the job is there, how many events and messages of it, and whether its run's commands are."""
    run = Run.objects.filter(job=job).first()
    events, messages = JobEvent.objects.filter(job=job).count(), Message.objects.filter(run__job=job).count()
    return Job.objects.filter(pk=job.pk).exists(), min(events, 1), messages, bool(run and run.commands)


def test_events_go_first_then_details_then_the_job_and_never_the_audit_trail(people: Cast) -> None:
    job = done(people, "queue.release")
    recorded = AuditEvent.objects.filter(job=job.pk).count()
    after(1.9)
    assert left(job) == (True, 1, 3, True)
    after(2.1)
    assert left(job) == (True, 0, 3, True)
    after(10.1)
    assert left(job) == (True, 0, 0, False)
    run = job.runs.get()
    assert (run.state, run.plan, run.result, run.before, run.after) == ("succeeded", None, None, None, None)
    after(29.9)
    assert left(job)[0]
    after(30.1)
    assert not left(job)[0]
    assert AuditEvent.objects.filter(job=job.pk).count() == recorded > 0


def test_what_was_counted_is_told_when_the_rows_are_gone(people: Cast) -> None:
    job = done(people, "queue.release")
    after(10.1)
    job.refresh_from_db()
    assert (job.thinned, job.totals) == (Thinned.DETAILS, {"done": 3, "instances": 1})


def test_an_open_job_is_never_touched_however_old_it_is(people: Cast) -> None:
    messages = tuple(message(n) for n in range(30))
    people.engine.plans["mx1/postfix"] = Plan(selected=messages, queue_total=30)
    job = work(ask(people.alice, "queue.purge", params=HOLD))
    assert job.state == "awaiting_approval"
    Job.objects.update(created_at=db_now() - timedelta(days=400))
    retention.apply()
    assert left(job)[:3] == (True, 1, 30)


def test_messages_in_quarantine_keep_their_job_whole_until_they_are_there_no_longer(people: Cast) -> None:
    job = done(people, "queue.purge")
    after(400)
    assert left(job) == (True, 0, 3, True)
    assert QuarantineItem.objects.count() == 3
    QuarantineItem.objects.update(state="expired")
    after(400)
    assert not left(job)[0]
    assert not QuarantineItem.objects.exists()


def test_messages_that_we_hold_are_known_as_ours_for_ever(people: Cast) -> None:
    job = done(people, "queue.hold")
    job.runs.get().messages.filter(queue_id=message(0).queue_id).update(is_held_by_us=False)
    after(400)
    assert left(job) == (True, 0, 2, False)
    assert undo(people.alice, job, "release what is left").state == "planning"


def test_an_undo_under_way_keeps_what_it_undoes(people: Cast) -> None:
    job = done(people, "queue.release")
    follow = undo(people.alice, job, "hold them again")
    after(400)
    assert left(job)[2:] == (3, True)
    assert work(follow).state == "succeeded"
    after(400)
    assert left(job)[2:] == (0, False)


def test_an_old_release_cannot_be_undone_and_says_why(people: Cast) -> None:
    job = done(people, "queue.release")
    after(10.1)
    with pytest.raises(Clash, match="on record no longer"):
        undo(people.alice, job, "too late")


def test_an_outcome_that_nobody_knows_stays_with_its_messages(people: Cast) -> None:
    job = done(people, "queue.release")
    job.runs.update(state="unknown", reconcile_at=None)
    after(400)
    assert left(job)[2:] == (3, True)


def test_the_jobs_of_a_block_stay_while_the_block_does(people: Cast) -> None:
    job = work(ask(people.alice, "sender.block", params={"pattern": "a@bulk.example"}))
    after(400)
    assert left(job)[0]
    assert Block.objects.get().job == job


def test_a_job_on_which_somebody_decided_stays_with_the_decision(people: Cast) -> None:
    job = done(people, "queue.release", 30, total=40)
    approve(people.bob, job, job.digest, "seen")
    assert work(job).state == "succeeded"
    after(400)
    assert left(job) == (True, 0, 0, False)
    assert job.approvals.count() == 1


def test_no_statement_deletes_what_the_database_refuses_to_delete(people: Cast) -> None:
    done(people, "queue.release")
    with CaptureQueriesContext(
        connection,
    ) as asked:
        after(400)
    deletes = [query["sql"] for query in asked.captured_queries if query["sql"].startswith("DELETE")]
    assert any("jobs_job" in sql for sql in deletes)
    assert not [sql for sql in deletes if "approval" in sql or "audit" in sql]


def test_a_round_deletes_few_rows_with_one_statement(people: Cast, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(retention, "ROWS", 2)
    monkeypatch.setattr(retention, "JOBS", 1)
    jobs = [done(people, "queue.release", 5) for _ in range(3)]
    with CaptureQueriesContext(connection) as asked:
        after(10.1)
    sizes = [query["sql"].count(",") + 1 for query in asked if query["sql"].startswith('DELETE FROM "jobs_message"')]
    assert sizes == [2, 2, 1] * 3
    assert [left(job)[2] for job in jobs] == [0, 0, 0]


def test_what_is_not_done_in_its_time_is_done_in_a_later_round(people: Cast, monkeypatch: pytest.MonkeyPatch) -> None:
    job = done(people, "queue.release")
    monkeypatch.setattr(retention, "BUDGET", 0.0)
    after(400)
    assert left(job) == (True, 1, 3, True)
    monkeypatch.undo()
    retention.apply()
    assert Job.objects.filter(pk=job.pk).exists() is False


def test_beats_of_workers_that_are_long_gone_go(people: Cast) -> None:
    liveness.renew("old", "ssh.0")
    WorkerLiveness.objects.update(at=db_now() - timedelta(days=2))
    liveness.renew("new", "ssh.0")
    retention.apply()
    assert [row.name for row in WorkerLiveness.objects.all()] == ["new"]
