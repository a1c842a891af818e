"""What is said of an outcome that nobody knows, and which holds are called ours."""

from datetime import timedelta
from typing import Any

import pytest

from fleet.models import Host
from fleet.mta.errors import OutcomeUnknown
from fleet.mta.records import Ended, MessageState, Result
from fleet.mta.steps import Plan
from jobs.clock import db_now
from jobs.models import Job, Message, Run
from jobs.rules.state import RunState
from jobs.worker import runner
from tests.db.fleet import Cast, add_host, ask, changed, message, work

MESSAGES = [message(1), message(2)]
MATCH = {"match": "from:*@bulk.example"}


def unknown(people: Cast, operation: str, target: dict[str, Any] | None = None) -> Job:
    """A changing job whose connections were lost in the middle."""
    for place in ("mx1/postfix", "mx3/postfix"):
        people.engine.plans[place] = Plan(selected=tuple(MESSAGES), queue_total=100)
        people.engine.results[place] = OutcomeUnknown("the connection ended")
    return work(ask(people.alice, operation, target, params=MATCH))


def look() -> None:
    for queue in ("ssh.0", "ssh.1"):
        runner.read_back(queue)


def test_a_command_that_was_sent_long_after_the_dispatch_gets_its_whole_time_too(people: Cast) -> None:
    job = unknown(people, "queue.purge")
    Run.objects.filter(job=job).update(dispatched_at=db_now() - timedelta(seconds=300))
    people.engine.results["mx1/postfix"] = changed(MESSAGES, MessageState.LEFT)
    look()
    assert job.runs.get().state == "unknown", "its last command may have begun a second ago"


def test_what_a_purge_left_in_the_queue_as_it_was_is_no_hold_of_ours(people: Cast) -> None:
    people.engine.plans["mx1/postfix"] = Plan(selected=tuple(MESSAGES), queue_total=100)
    people.engine.results["mx1/postfix"] = changed(MESSAGES, MessageState.LEFT, places={})
    work(ask(people.alice, "queue.purge", params=MATCH))
    assert not Message.objects.filter(is_held_by_us=True).exists()


@pytest.mark.parametrize("operation", ["queue.purge", "queue.bounce", "queue.requeue"])
def test_what_a_change_that_was_cut_off_left_on_hold_is_ours_to_release(people: Cast, operation: str) -> None:
    job = unknown(people, operation)
    Run.objects.filter(job=job).update(unknown_at=db_now() - timedelta(seconds=200))
    said = changed(MESSAGES, MessageState.LEFT, held=[MESSAGES[1].queue_id])
    people.engine.results["mx1/postfix"] = Result(Ended.FAILED, said.data, said.messages)
    look()
    assert job.runs.get().state == "failed"
    assert [row.queue_id for row in Message.objects.filter(is_held_by_us=True)] == [MESSAGES[1].queue_id]


def test_one_run_that_cannot_be_read_back_does_not_keep_the_others_unknown(
    people: Cast, monkeypatch: pytest.MonkeyPatch
) -> None:
    add_host(people.acme, "mx3", "postfix")
    job = unknown(people, "queue.purge", {"instances": ["mx1/postfix", "mx3/postfix"]})
    people.engine.results["mx3/postfix"] = changed(MESSAGES, places={m.queue_id: "/q" for m in MESSAGES})
    genuine = runner.endpoint_for

    def endpoint(host: Host) -> object:
        if host.name == "mx1":
            raise ValueError("cannot be opened")
        return genuine(host)

    monkeypatch.setattr(runner, "endpoint_for", endpoint)
    job.runs.update(slot=0)
    look()
    assert {run.host.name: run.state for run in job.runs.select_related("host")} == {
        "mx1": RunState.UNKNOWN,
        "mx3": RunState.SUCCEEDED,
    }
