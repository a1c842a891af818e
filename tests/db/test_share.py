"""Who must agree depends on the share of a queue that a plan catches, and not on how the match looks."""

import pytest

from fleet.mta.steps import Plan
from jobs.lifecycle.approval import approve
from tests.db.fleet import PLANNED, Cast, ask, message, work
from tests.db.test_jobs import purge


@pytest.mark.parametrize(
    ("operation", "match"), [("queue.hold", "size>1"), ("queue.release", "age>1s"), ("queue.flush", "to-domain:*.*")]
)
def test_what_catches_most_of_a_queue_waits_for_a_second_person_however_harmless_its_match_looks(
    people: Cast, operation: str, match: str
) -> None:
    people.engine.plans["mx1/postfix"] = Plan(selected=(message(1),), queue_total=900)
    people.engine.plans["mx2/postfix"] = Plan(selected=tuple(message(n) for n in range(30)), queue_total=40)
    job = work(ask(people.alice, operation, {"hosts": ["mx1", "mx2"]}, params={"match": match}))
    assert (job.state, job.rule) == ("awaiting_approval", "default-large-share")
    assert job.why == f"{operation}: 30 of the 40 messages of mx2/postfix, 75.0%"
    assert people.engine.asked[-1][1] == PLANNED


def test_the_size_of_the_queue_that_was_seen_is_part_of_what_is_agreed_to(people: Cast) -> None:
    job = purge(people, 101)
    approve(people.bob, job, job.digest, "seen")
    run = job.runs.get()
    run.plan["queue_total"] = 10
    run.save()
    job = work(job)
    assert (job.state, job.error["code"]) == ("failed", "conflict")
