"""How often params are parsed: by the request, and by each process that works at the stored job once."""

from collections.abc import Iterator
from typing import Any

import pytest

from fleet.mta.errors import OutcomeUnknown
from fleet.mta.params import parse
from fleet.mta.steps import Plan
from jobs import queues
from jobs.lifecycle.approval import approve
from jobs.lifecycle.followup import undo
from jobs.models import Job, Run
from jobs.operation import requested
from jobs.worker import runner
from tests.db.fleet import Cast, ask, changed, message, work

BOTH = {"instances": ["mx1/postfix", "mx1/postfixEXT"]}
MESSAGES = [message(n) for n in range(60)]


@pytest.fixture
def parsed(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[str]]:
    """The operations whose params were parsed, in their order."""
    found: list[str] = []
    read = parse._read

    def count(spec: Any, params: dict[str, Any]) -> Any:
        found.append(spec.name)
        return read(spec, params)

    monkeypatch.setattr(parse, "_read", count)
    requested.cache_clear()
    yield found
    requested.cache_clear()


def large(people: Cast) -> None:
    for place in BOTH["instances"]:
        people.engine.plans[place] = Plan(selected=tuple(MESSAGES), queue_total=100, bytes=722)
        people.engine.results[place] = changed(MESSAGES)


def test_a_purge_that_is_planned_approved_and_carried_out_is_parsed_once(people: Cast, parsed: list[str]) -> None:
    large(people)
    job = ask(people.alice, "queue.purge", BOTH, params={"match": "from:*@bulk.example"})
    assert parsed == ["queue.purge"]
    job = work(job)
    approve(people.bob, job, job.digest)
    assert work(job).state == "succeeded"
    assert parsed == ["queue.purge"] * 2


def test_reading_back_what_is_unknown_parses_nothing_anew(people: Cast, parsed: list[str]) -> None:
    large(people)
    people.engine.results["mx1/postfix"] = OutcomeUnknown("the connection ended")
    job = work(ask(people.alice, "queue.hold", BOTH, params={"match": "from:*@bulk.example"}))
    approve(people.bob, job, job.digest)
    assert work(job).runs.filter(state="unknown").count() == 1
    people.engine.results["mx1/postfix"] = changed(MESSAGES)
    runner.read_back(queues.queue_of(job.runs.all()[0]))
    assert set(job.runs.values_list("state", flat=True)) == {"succeeded"}
    assert parsed == ["queue.hold"] * 2


def test_a_block_and_its_undo_are_parsed_once_on_however_many_instances(people: Cast, parsed: list[str]) -> None:
    job = work(ask(people.alice, "sender.block", BOTH, params={"pattern": "a@bulk.example"}))
    assert job.state == "succeeded"
    undone = work(undo(people.alice, job, "it was wanted"))
    assert (undone.operation, undone.state) == ("sender.unblock", "succeeded")
    assert parsed == ["sender.block"] * 2


def test_a_stored_job_is_parsed_once_however_often_it_is_read_from_the_database(
    people: Cast, parsed: list[str]
) -> None:
    job = ask(people.alice, "queue.list", BOTH)
    values = [requested(Job.objects.get(pk=job.pk)), requested(Run.objects.filter(job=job)[0].job), requested(job)]
    assert all(value is values[0] for value in values)
    assert parsed == ["queue.list"] * 2
