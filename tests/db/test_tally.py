"""Counts only grow: with each end by one, by no retention less, and equal ones become one row."""

from datetime import timedelta
from typing import Any

from django.db import connection, transaction
from django.db.models import F, Sum
from django.test.utils import CaptureQueriesContext

from fleet.mta.errors import Unreachable
from fleet.mta.steps import Plan
from jobs import tasks
from jobs.clock import db_now
from jobs.lifecycle import reconcile, retention, tally
from jobs.lifecycle.cancel import cancel
from jobs.lifecycle.followup import undo
from jobs.models import Job, JobState, QuarantineItem, Tally
from tests.db.fleet import Cast, ask, changed, message, work
from tests.db.test_reconcile import later, look, unknown_purge


def counted() -> dict[tuple[str, ...], int]:
    """{(kind, operation, end): how many}"""
    rows = Tally.objects.order_by().values_list("kind", "operation", "end").annotate(Sum("count"))
    return {tuple(key): count for *key, count in rows}


def test_each_end_of_a_job_is_counted_and_its_work_timed_from_its_begin(people: Cast) -> None:
    work(ask(people.alice, "queue.list"))
    slow = ask(people.alice, "queue.list")
    people.engine.before = lambda place, phase: _begun_earlier(slow, 100)
    work(slow)
    cancel(people.alice, ask(people.alice, "queue.list"))
    assert counted() == {("job", "queue.list", "succeeded"): 2, ("job", "queue.list", "cancelled"): 1}
    rows = Tally.objects.order_by("pk").values_list("within", flat=True)
    assert list(rows) == ["1", "120", ""]
    assert 100 <= sum(Tally.objects.values_list("seconds", flat=True)) < 120


def _begun_earlier(job: Job, seconds: int) -> None:
    Job.objects.filter(pk=job.pk).update(started_at=F("started_at") - timedelta(seconds=seconds))


def test_what_runs_failed_with_is_counted_by_code(people: Cast) -> None:
    people.engine.results["mx1/postfix"] = Unreachable("no route")
    work(ask(people.alice, "queue.list", {"customers": ["acme"]}))
    assert counted()[("run_error", "", "unreachable")] == 1


def test_each_failed_look_at_an_unknown_run_is_counted_too(people: Cast) -> None:
    job = unknown_purge(people)
    counts = counted()
    people.engine.results["mx1/postfix"] = Unreachable("no route")
    for number, seconds in enumerate(reconcile.AFTER, 1):
        later(job, seconds)
        look(job)
        assert counted()[("run_error", "", "unreachable")] == number
    assert job.runs.get().state == "unknown"
    assert counted().keys() - counts.keys() == {("run_error", "", "unreachable"), ("job", "queue.purge", "failed")}


def test_a_message_that_leaves_quarantine_is_counted_once(people: Cast) -> None:
    messages = [message(n) for n in range(3)]
    people.engine.plans["mx1/postfix"] = Plan(selected=tuple(messages), queue_total=1000)
    people.engine.results["mx1/postfix"] = changed(messages, places={m.queue_id: "/q" for m in messages})
    job = work(ask(people.alice, "queue.purge", params={"match": "from:*@bulk.example"}))
    assert QuarantineItem.objects.filter(job=job, state="kept").count() == 3
    people.engine.results["mx1/postfix"] = changed(messages)
    work(undo(people.alice, job, "no newsletters"))
    assert counted()[("quarantine", "", "restored")] == 3


def test_an_end_that_is_rolled_back_is_not_counted(people: Cast) -> None:
    job = ask(people.alice, "queue.list")
    with transaction.atomic():
        cancel(people.alice, job)
        transaction.set_rollback(True)
    assert counted() == {}


def test_what_retention_forgets_stays_counted(people: Cast) -> None:
    job = work(ask(people.alice, "queue.list"))
    for _ in range(3):
        Job.objects.update(finished_at=db_now() - timedelta(days=4000))
        retention.apply()
    assert not Job.objects.filter(pk=job.pk).exists()
    assert counted() == {("job", "queue.list", "succeeded"): 1}


def test_equal_rows_become_one_and_the_sums_stay(db: None) -> None:
    job = Job(operation="queue.list", started_at=db_now() - timedelta(seconds=3))
    for _ in range(3):
        tally.job_ended(job, JobState.SUCCEEDED, db_now())
    tally.job_ended(job, JobState.FAILED, db_now())
    tally.runs_failed(["timeout", "timeout", "conflict"])
    before, seconds = counted(), Tally.objects.aggregate(all=Sum("seconds"))["all"]
    tally.fold()
    assert counted() == before
    assert Tally.objects.count() == len(before) == 4
    assert abs(Tally.objects.aggregate(all=Sum("seconds"))["all"] - seconds) < 1e-6
    with CaptureQueriesContext(connection) as asked:
        tally.fold()
    assert not [query for query in asked.captured_queries if query["sql"].startswith(("DELETE", "INSERT"))]


def test_equal_rows_become_one_each_minute(db: None) -> None:
    for _ in range(2):
        tally.runs_failed(["timeout"])
    tasks.housekeep()
    assert list(Tally.objects.values_list("count", flat=True)) == [2]


def test_the_bound_of_a_time_is_the_least_that_it_does_not_exceed(db: None) -> None:
    now = db_now()
    for seconds in (0.0, 1.0, 1.5, 3600.0, 3600.5):
        tally.job_ended(Job(operation="queue.list", started_at=now - timedelta(seconds=seconds)), JobState.FAILED, now)
    rows: Any = Tally.objects.order_by("pk").values_list("within", flat=True)
    assert list(rows) == ["1", "1", "2", "3600", "+Inf"]
