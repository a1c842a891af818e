"""Workers that vanish and outcomes that nobody knows: read back, never repeated blindly, never a false success."""

from datetime import timedelta

import pytest

from fleet.mta.errors import InDelivery, OutcomeUnknown, UnparsedOutput
from fleet.mta.types import Ended, MessageState, Plan, Result
from jobs import runner
from jobs.clock import db_now
from jobs.models import HostLease, Job, QuarantineItem, Run
from jobs.services import bell, reconcile
from jobs.services.claim import claim
from jobs.state import RunState
from tests.db.fleet import Cast, ask, changed, message, work

MESSAGES = [message(1), message(2)]


def unknown_purge(people: Cast) -> Job:
    """A purge of two messages whose connection was lost in the middle."""
    people.engine.plans["mx1/postfix"] = Plan(selected=tuple(MESSAGES), queue_total=100)
    people.engine.results["mx1/postfix"] = OutcomeUnknown("the connection ended")
    return work(ask(people.alice, "queue.purge", params={"match": "from:*@bulk.example"}))


def look(job: Job) -> Job:
    """Let the worker read back what is due."""
    for run in job.runs.all():
        runner.read_back(bell.queue_of(run))
    job.refresh_from_db()
    return job


def later(job: Job, seconds: int) -> None:
    """Let time pass for the unknown runs."""
    for run in job.runs.filter(state=RunState.UNKNOWN):
        past = timedelta(seconds=seconds)
        Run.objects.filter(pk=run.pk).update(
            dispatched_at=run.dispatched_at - past, unknown_at=run.unknown_at - past, reconcile_at=db_now()
        )


def test_reading_back_proves_a_purge_that_was_cut_off(people: Cast) -> None:
    job = unknown_purge(people)
    people.engine.results["mx1/postfix"] = changed(MESSAGES, places={m.queue_id: "/q" for m in MESSAGES})
    job = look(job)
    assert (job.state, job.runs.get().state) == ("succeeded", "succeeded")
    assert QuarantineItem.objects.filter(job=job).count() == 2


def test_what_is_left_is_not_said_while_the_command_may_still_run(people: Cast) -> None:
    job = unknown_purge(people)
    people.engine.results["mx1/postfix"] = changed(MESSAGES, MessageState.LEFT)
    assert look(job).state == "running"
    later(job, 130)
    job = look(job)
    assert (job.state, job.runs.get().state, job.runs.get().result["left"]) == ("failed", "failed", 2)


def test_an_outcome_that_cannot_be_read_back_stays_unknown_and_the_job_is_no_success(people: Cast) -> None:
    job = unknown_purge(people)
    people.engine.results["mx1/postfix"] = UnparsedOutput("cut off")
    for _ in reconcile.AFTER:
        assert look(job).state == "running" or job.state == "failed"
        later(job, 1)
    assert (look(job).state, job.runs.get().state) == ("failed", "unknown")


def test_an_unknown_run_keeps_its_host_until_it_is_settled(people: Cast) -> None:
    job = unknown_purge(people)
    assert HostLease.objects.get(host__name="mx1").job == job
    people.engine.results["mx1/postfix"] = changed(MESSAGES)
    look(job)
    assert HostLease.objects.get(host__name="mx1").job is None


def lose_worker(job: Job) -> None:
    """The worker that has the job's runs is killed: its lease ends."""
    job.runs.update(lease_until=db_now() - timedelta(seconds=1))
    reconcile.lose(db_now())
    job.refresh_from_db()


def test_a_worker_lost_while_reading_is_replaced(people: Cast) -> None:
    job = ask(people.alice, "queue.list")
    assert claim(job, bell.queue_of(job.runs.get()))
    lose_worker(job)
    assert (job.runs.get().state, work(job).state) == ("pending", "succeeded")


def test_a_reading_run_that_kills_its_workers_is_given_up_after_three(people: Cast) -> None:
    job = ask(people.alice, "queue.list")
    for _ in range(3):
        assert claim(job, bell.queue_of(job.runs.get()))
        lose_worker(job)
    assert (job.state, job.runs.get().state) == ("failed", "failed")


def test_a_worker_lost_after_dispatch_makes_the_outcome_unknown(people: Cast) -> None:
    people.engine.plans["mx1/postfix"] = Plan(selected=tuple(MESSAGES), queue_total=100)
    job = ask(people.alice, "queue.purge", params={"match": "from:*@bulk.example"})
    people.engine.before = lambda place, phase: claim_and_die(job) if phase == "applied" else None
    with pytest.raises(ConnectionResetError):
        work(job)
    people.engine.before = lambda place, phase: None
    lose_worker(job)
    assert job.runs.get().state == "unknown"
    asked = len(people.engine.asked)
    work(job)
    assert len(people.engine.asked) == asked, "an unknown run must not be carried out again"


def claim_and_die(job: Job) -> None:
    raise ConnectionResetError("killed")


def test_a_late_worker_does_not_overwrite_what_the_sweep_decided(people: Cast) -> None:
    people.engine.plans["mx1/postfix"] = Plan(selected=tuple(MESSAGES), queue_total=100)
    people.engine.results["mx1/postfix"] = changed(MESSAGES)
    job = ask(people.alice, "queue.purge", params={"match": "from:*@bulk.example"})
    people.engine.before = lambda place, phase: lose_worker(job) if phase == "applied" else None
    assert work(job).runs.get().state == "unknown"


def test_messages_that_were_being_delivered_are_reported_after_reading_back(people: Cast) -> None:
    job = unknown_purge(people)
    result = changed(MESSAGES, MessageState.IN_DELIVERY)
    people.engine.results["mx1/postfix"] = Result(Ended.FAILED, result.data, result.messages, error=InDelivery("2"))
    later(job, 130)
    run = look(job).runs.get()
    assert (run.state, run.error["code"]) == ("failed", "in_delivery")
