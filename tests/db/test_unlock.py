"""An administrator frees a host that a job keeps."""

import pytest

from fleet.mta.errors import OutcomeUnknown
from fleet.mta.steps import Plan
from jobs.errors import Clash, Invalid
from jobs.lifecycle.unlock import unlock
from jobs.models import AuditEvent, HostLease, Job
from tests.db.fleet import Cast, ask, changed, message, work

MESSAGES = (message(1), message(2))


def unknown(people: Cast) -> Job:
    people.engine.plans["mx1/postfix"] = Plan(selected=MESSAGES, queue_total=100)
    people.engine.results["mx1/postfix"] = OutcomeUnknown("the connection ended")
    return work(ask(people.alice, "queue.hold", params={"match": "from:*@bulk.example"}))


def test_a_host_that_is_freed_by_hand_takes_the_next_change_and_the_act_is_on_record(people: Cast) -> None:
    job = unknown(people)
    unlock(people.dana, people.acme.hosts.get(name="mx1"), "looked at by hand")
    job.refresh_from_db()
    assert (job.state, job.runs.get().state) == ("failed", "unknown")
    assert HostLease.objects.get().job is None
    event = AuditEvent.objects.get(action="host.unlocked")
    assert (event.actor, event.job, event.data["reason"]) == ("dana", job.pk, "looked at by hand")
    people.engine.results["mx1/postfix"] = changed(MESSAGES)
    assert work(ask(people.alice, "queue.hold", params={"match": "from:*@bulk.example"})).state == "succeeded"


def test_a_host_that_nobody_has_and_one_that_is_at_work_are_not_freed(people: Cast) -> None:
    host = people.acme.hosts.get(name="mx1")
    with pytest.raises(Clash, match="no job has mx1"):
        unlock(people.dana, host, "why not")
    job = unknown(people)
    job.runs.update(state="running")
    with pytest.raises(Clash, match="at work on mx1"):
        unlock(people.dana, host, "why not")
    assert HostLease.objects.get().job == job


def test_nobody_frees_a_host_without_a_reason(people: Cast) -> None:
    unknown(people)
    with pytest.raises(Invalid):
        unlock(people.dana, people.acme.hosts.get(name="mx1"), "  ")
