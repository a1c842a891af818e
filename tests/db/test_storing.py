"""One result that no column takes fails its own run, and none of its neighbours."""

import pytest
from django.db import DataError, OperationalError

from fleet.mta.errors import OutcomeUnknown
from fleet.mta.records import Ended, Result
from fleet.mta.steps import Plan
from jobs.lifecycle import reconcile, record
from jobs.lifecycle.record import Report
from jobs.worker import runner
from tests.db.fleet import Cast, ask, changed, message, work
from tests.db.test_reconcile import later, look

MESSAGES = (message(1),)
BIG = {"total": 2**70}


@pytest.fixture
def picky(monkeypatch: pytest.MonkeyPatch) -> None:
    """A database that refuses a number out of its bounds, as PostgreSQL does; SQLite takes it in JSON."""
    genuine = record._fill

    def fill(report: Report, now: object) -> None:
        if isinstance(report.value, Result) and report.value.data == BIG:
            raise DataError("bigint out of range")
        genuine(report, now)  # type: ignore[arg-type]

    monkeypatch.setattr(record, "_fill", fill)


def test_a_result_that_cannot_be_stored_fails_its_own_run_only(people: Cast, picky: None) -> None:
    people.engine.results["mx1/postfix"] = Result(Ended.SUCCEEDED, BIG)
    people.engine.mutates = False
    genuine = people.engine.outcomes
    people.engine.outcomes = lambda requests, cancelled: iter(  # type: ignore[method-assign]
        [[outcome for block in genuine(requests, cancelled) for outcome in block]]
    )
    job = work(ask(people.alice, "queue.list", {"hosts": ["mx1"]}))
    ends = {str(run.instance): (run.state, (run.error or {}).get("code")) for run in job.runs.all()}
    assert ends == {"mx1/postfix": ("failed", "unparsed_output"), "mx1/postfixEXT": ("succeeded", None)}


def test_a_read_back_that_cannot_be_stored_is_a_look_that_settled_nothing(people: Cast, picky: None) -> None:
    people.engine.plans["mx1/postfix"] = Plan(selected=MESSAGES, queue_total=100)
    people.engine.results["mx1/postfix"] = OutcomeUnknown("the connection ended")
    job = work(ask(people.alice, "queue.hold", params={"match": "from:*@bulk.example"}))
    people.engine.results["mx1/postfix"] = Result(Ended.SUCCEEDED, BIG)
    for _ in reconcile.AFTER:
        look(job)
        later(job, 1)
    assert (look(job).state, job.runs.get().state) == ("failed", "unknown")


def test_a_database_that_is_down_is_waited_for(people: Cast, monkeypatch: pytest.MonkeyPatch) -> None:
    genuine, refused = record._fill, []

    def fill(report: Report, now: object) -> None:
        if len(refused) < 2:
            refused.append(report)
            raise OperationalError("the database system is shutting down")
        genuine(report, now)  # type: ignore[arg-type]

    monkeypatch.setattr(record, "_fill", fill)
    monkeypatch.setattr(runner, "PATIENCE", (0, 0, 0))
    monkeypatch.setattr("jobs.worker.runner.connection.close", lambda: None)
    people.engine.plans["mx1/postfix"] = Plan(selected=MESSAGES, queue_total=100)
    people.engine.results["mx1/postfix"] = changed(MESSAGES)
    assert work(ask(people.alice, "queue.hold", params={"match": "from:*@bulk.example"})).state == "succeeded"
    assert len(refused) == 2


def test_a_plan_that_could_not_be_stored_at_once_is_stored_later(people: Cast, monkeypatch: pytest.MonkeyPatch) -> None:
    genuine, refused = record.publish_runs, []

    def publish_runs(*arguments: object) -> None:
        if not refused:
            refused.append(arguments)
            raise OperationalError("the database system is shutting down")
        genuine(*arguments)  # type: ignore[arg-type]

    monkeypatch.setattr(record, "publish_runs", publish_runs)
    monkeypatch.setattr(runner, "PATIENCE", (0, 0))
    monkeypatch.setattr("jobs.worker.runner.connection.close", lambda: None)
    people.engine.plans["mx1/postfix"] = Plan(selected=MESSAGES, queue_total=100)
    people.engine.results["mx1/postfix"] = changed(MESSAGES)
    assert work(ask(people.alice, "queue.hold", params={"match": "from:*@bulk.example"})).state == "succeeded"
