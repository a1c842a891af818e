"""Workers that vanish and outcomes that nobody knows: read back, never repeated blindly, never a false success."""

from collections.abc import Sequence
from datetime import timedelta
from queue import SimpleQueue
from typing import Any

import pytest

from api.v1.serializers.jobs import CountsSerializer
from fleet.mta.errors import InDelivery, LeaseLost, OutcomeUnknown, UnparsedOutput
from fleet.mta.records import Ended, MessageState, Result
from fleet.mta.steps import Plan
from fleet.ssh.engine import Outcome, Request
from jobs import queues, selectors
from jobs.clock import db_now
from jobs.lifecycle import hosts, reconcile
from jobs.lifecycle.record import Report
from jobs.models import AuditEvent, HostLease, Job, QuarantineItem, Run
from jobs.rules.state import RunState
from jobs.worker import runner
from jobs.worker.leases import Lease
from tests.db.fleet import Cast, add_host, ask, changed, claimed, message, work

MESSAGES = [message(1), message(2)]


def unknown_purge(people: Cast) -> Job:
    """A purge of two messages whose connection was lost in the middle."""
    people.engine.plans["mx1/postfix"] = Plan(selected=tuple(MESSAGES), queue_total=100)
    people.engine.results["mx1/postfix"] = OutcomeUnknown("the connection ended")
    return work(ask(people.alice, "queue.purge", params={"match": "from:*@bulk.example"}))


def look(job: Job) -> Job:
    """Let the worker read back what is due."""
    for run in job.runs.all():
        runner.read_back(queues.queue_of(run))
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


def test_a_deletion_read_back_counts_what_has_left_the_queue_in_result_audit_and_totals(people: Cast) -> None:
    job = unknown_purge(people)
    later(job, 130)
    people.engine.results["mx1/postfix"] = changed(MESSAGES, MessageState.LEFT_QUEUE)
    job = look(job)
    counts = {"asked": 2, "done": 0, "left_queue": 2, "already_gone": 0, "in_delivery": 0, "left": 0}
    assert (job.state, job.runs.get().result) == ("succeeded", counts)
    assert AuditEvent.objects.filter(job=job.pk, action="run.ended").latest("id").data["counts"] == counts
    row = selectors.detailed([job])[0]
    assert CountsSerializer(row).data == {"runs": {"succeeded": 1}, "messages": 0, "left_queue": 2}


def test_an_instance_whose_host_is_silent_delays_the_look_at_no_other_one_of_its_job(
    people: Cast, monkeypatch: pytest.MonkeyPatch
) -> None:
    both = ["mx1/postfix", "mx1/postfixEXT"]
    for instance in both:
        people.engine.plans[instance] = Plan(selected=tuple(MESSAGES), queue_total=100)
        people.engine.results[instance] = OutcomeUnknown("the connection ended")
    job = work(ask(people.alice, "queue.purge", {"instances": both}, params={"match": "from:*@bulk.example"}))
    people.engine.results.update(dict.fromkeys(both, changed(MESSAGES)))
    silent: list[tuple[SimpleQueue[list[Outcome]], list[Outcome]]] = []
    settled: list[list[str]] = []

    def begin(requests: Sequence[Request[Any]], ready: SimpleQueue[list[Outcome]]) -> None:
        one, *others = [people.engine._outcome(request, bool) for request in requests]
        ready.put([one])
        silent.append((ready, others))

    def settle(job: Job, report: Report) -> None:
        reconcile_settle(job, report)
        settled.append(sorted(job.runs.values_list("state", flat=True)))
        while silent:
            ready, others = silent.pop()
            ready.put(others)

    reconcile_settle = reconcile.settle
    monkeypatch.setattr(people.engine, "begin", begin)
    monkeypatch.setattr(reconcile, "settle", settle)
    runner.read_back(queues.queue_of(job.runs.all()[0]))
    assert settled == [["succeeded", "unknown"], ["succeeded", "succeeded"]]


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
    assert claimed(job)
    lose_worker(job)
    assert (job.runs.get().state, work(job).state) == ("pending", "succeeded")


def test_a_run_that_kills_its_workers_thrice_is_put_aside_and_says_so(people: Cast) -> None:
    job = ask(people.alice, "queue.list")
    for _ in range(3):
        assert claimed(job)
        lose_worker(job)
    assert (job.state, job.runs.get().state) == ("failed", "failed")
    assert job.runs.get().error["detail"].startswith("put aside: 3 workers were lost")


def test_of_those_that_were_with_a_lost_worker_one_at_a_time_is_tried_again(people: Cast) -> None:
    first, second = (ask(people.alice, "queue.list", {"hosts": ["mx2"]}) for _ in range(2))
    fresh = ask(people.alice, "queue.list", {"hosts": ["mx2"]})
    assert claimed(first)
    assert claimed(second)
    for job in (first, second):
        lose_worker(job)
    assert [claimed(first).job.pk for _ in range(2)] == [first.pk, fresh.pk], "the second may have been the cause, too"
    assert claimed(first) is None


def test_a_run_that_kills_its_workers_takes_none_of_its_job_with_it(
    people: Cast, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("jobs.lifecycle.claim.TOGETHER", (500, 2, 1))
    names = ["postfix", *(f"postfix{number}" for number in range(4))]
    add_host(people.acme, "mx7", *names)
    job = ask(people.alice, "queue.list", {"hosts": ["mx7"]})
    culprit = job.runs.get(instance__name="postfix2").pk
    lots = []
    while (claim := claimed(job)) is not None and claim.runs:
        lots.append(len(claim.runs))
        if culprit in {run.pk for run in claim.runs}:
            assert claimed(job) is None, "the next lot waits for this one"
            lose_worker(job)
        else:
            runner._carry_out(claim, Lease(claim.job.pk, {}, until=float("inf")))
    assert lots[0] == 5
    assert 2 in lots
    assert [run.pk for run in job.runs.exclude(state="succeeded")] == [culprit]
    assert job.runs.get(pk=culprit).state == "failed"


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


def late(people: Cast, result: Result | OutcomeUnknown | LeaseLost) -> Job:
    """A purge whose worker lost its lease while the host was at it, and then says what became of it."""
    people.engine.plans["mx1/postfix"] = Plan(selected=tuple(MESSAGES), queue_total=100)
    people.engine.results["mx1/postfix"] = result
    job = ask(people.alice, "queue.purge", params={"match": "from:*@bulk.example"})
    people.engine.before = lambda place, phase: lose_worker(job) if phase == "applied" else None
    return work(job)


def test_a_report_that_comes_too_late_settles_the_run_and_its_messages_are_in_the_quarantine(people: Cast) -> None:
    job = late(people, changed(MESSAGES, places={m.queue_id: "/q" for m in MESSAGES}))
    assert (job.state, job.runs.get().state) == ("succeeded", "succeeded")
    assert QuarantineItem.objects.filter(job=job).count() == 2
    assert HostLease.objects.get(host__name="mx1").job is None


def test_a_late_report_that_knows_nothing_leaves_the_run_unknown(people: Cast) -> None:
    job = late(people, OutcomeUnknown("the connection ended"))
    assert (job.state, job.runs.get().state) == ("running", "unknown")


def test_a_late_report_corrects_what_reading_back_had_missed(people: Cast) -> None:
    people.engine.plans["mx1/postfix"] = Plan(selected=tuple(MESSAGES), queue_total=100)
    job = ask(people.alice, "queue.purge", params={"match": "from:*@bulk.example"})
    whole = changed(MESSAGES, places={m.queue_id: "/q" for m in MESSAGES})

    def read_back_meanwhile(place: str, phase: str) -> None:
        if phase == "applied":
            people.engine.before = lambda place, phase: None
            lose_worker(job)
            people.engine.results["mx1/postfix"] = changed(MESSAGES, MessageState.LEFT)
            later(job, 130)
            look(job)
            assert job.runs.get().state == "failed"
            people.engine.results["mx1/postfix"] = whole

    people.engine.before = read_back_meanwhile
    work(job)
    assert job.runs.get().state == "succeeded"
    assert QuarantineItem.objects.filter(job=job).count() == 2


def test_a_worker_that_finds_its_lease_gone_before_anything_was_sent_leaves_the_run_to_another(people: Cast) -> None:
    people.engine.mutates = False
    people.engine.plans["mx1/postfix"] = Plan(selected=tuple(MESSAGES), queue_total=100)
    people.engine.results["mx1/postfix"] = LeaseLost("the lease is gone")
    job = ask(people.alice, "queue.purge", params={"match": "from:*@bulk.example"})
    begun = []

    def lose_the_first(place: str, phase: str) -> None:
        if phase == "applied":
            begun.append(job.runs.get().dispatched_at)
            if len(begun) == 1:
                lose_worker(job)
            else:
                people.engine.results["mx1/postfix"] = changed(MESSAGES)

    people.engine.before = lose_the_first
    assert work(job).state == "succeeded"
    assert len(begun) == 2
    assert begun[0] < begun[1]


def test_a_plan_of_a_worker_that_was_lost_does_not_touch_the_run_that_another_one_carries_out(people: Cast) -> None:
    people.engine.plans["mx1/postfix"] = Plan(selected=tuple(MESSAGES), queue_total=100)
    job = ask(people.alice, "queue.hold", params={"match": "from:*@bulk.example"})

    def another_one_plans(place: str, phase: str) -> None:
        people.engine.before = lambda place, phase: None
        lose_worker(job)
        assert claimed(job)

    people.engine.before = another_one_plans
    work(job)
    assert (job.runs.get().state, job.runs.get().plan) == ("running", None)


@pytest.mark.parametrize("outcome", [MessageState.ALREADY_GONE, MessageState.LEFT])
def test_nothing_but_a_find_is_believed_while_the_command_may_still_run(people: Cast, outcome: MessageState) -> None:
    job = unknown_purge(people)
    absent = changed(MESSAGES, outcome)
    people.engine.results["mx1/postfix"] = Result(Ended.UNCHANGED, absent.data, absent.messages)
    assert look(job).state == "running"
    later(job, 130)
    assert look(job).runs.get().state == "unchanged"


def test_a_run_that_stays_unknown_after_the_last_look_frees_its_host(people: Cast) -> None:
    job = unknown_purge(people)
    people.engine.results["mx1/postfix"] = UnparsedOutput("cut off")
    for _ in reconcile.AFTER:
        look(job)
        later(job, 1)
    assert (look(job).state, job.runs.get().state) == ("failed", "unknown")
    assert HostLease.objects.get(host__name="mx1").job is None


def test_fences_grow_and_are_never_below_the_clock_of_the_database(people: Cast) -> None:
    people.engine.plans["mx1/postfix"] = Plan(selected=tuple(MESSAGES), queue_total=100)
    people.engine.results["mx1/postfix"] = changed(MESSAGES)
    fences = []
    for _ in range(2):
        begun = hosts.fence_at(db_now())
        run = work(ask(people.alice, "queue.hold", params={"match": "from:*@bulk.example"})).runs.get()
        fences.append(run.fence)
        assert run.fence >= begun
        HostLease.objects.update(fence=0)  # as after a backup was restored
    assert fences[0] < fences[1]


def test_messages_that_were_being_delivered_are_reported_after_reading_back(people: Cast) -> None:
    job = unknown_purge(people)
    result = changed(MESSAGES, MessageState.IN_DELIVERY)
    people.engine.results["mx1/postfix"] = Result(Ended.FAILED, result.data, result.messages, error=InDelivery("2"))
    later(job, 130)
    run = look(job).runs.get()
    assert (run.state, run.error["code"]) == ("failed", "in_delivery")
