"""What a hostile host or message says is stored on every database, and never stops the job that asked."""

from typing import Any

import pytest

from fleet.mta.errors import RemoteError
from fleet.mta.records import Ended, Fingerprint, Result
from fleet.mta.steps import Plan
from jobs.worker import runner
from tests.db.fleet import Cast, ask, changed, work


@pytest.fixture(autouse=True)
def _no_patience(monkeypatch: pytest.MonkeyPatch) -> None:
    """What cannot be stored fails at once here, in place of after ten minutes of trying."""
    monkeypatch.setattr(runner, "PATIENCE", ())


NASTY = "a\x00b\ud800c\udcffd\x1b[2Je"


def test_a_plan_with_nasty_texts_is_stored(people: Cast) -> None:
    nasty = Fingerprint("3F5DD30C44F", 1_795_172_380.0, NASTY, 722, "deferred", (NASTY,), NASTY)
    people.engine.plans["mx1/postfix"] = Plan((nasty,), 10, notes=(NASTY,))
    people.engine.results["mx1/postfix"] = changed([nasty], notes=[NASTY])
    assert work(ask(people.alice, "queue.hold", params={"match": "from:*@bulk.example"})).state == "succeeded"


@pytest.mark.parametrize(
    "answer",
    [
        Result(Ended.SUCCEEDED, data={"entries": [{"subject": NASTY, NASTY: 1}]}, before=NASTY, after=[NASTY]),
        Result(Ended.FAILED, data={}, error=RemoteError(NASTY, hint=NASTY, said=NASTY)),
        RemoteError(NASTY, hint=NASTY, said=NASTY),
    ],
)
def test_a_result_with_nasty_texts_is_stored(people: Cast, answer: Any) -> None:
    people.engine.results["mx1/postfix"] = answer
    people.engine.mutates = False
    job = work(ask(people.alice, "queue.list"))
    assert job.finished_at is not None
