"""A job's life: planned, decided, run, recorded, undone."""

from datetime import timedelta
from functools import partial
from importlib import import_module
from typing import Any

import pytest
from django.apps import apps
from django.utils import timezone

from fleet.mta.errors import ConnectionLost, InDelivery, LeaseLost, OutcomeUnknown, TooMany, Unreachable
from fleet.mta.records import Ended, Fingerprint, MessageState, Result
from fleet.mta.steps import Plan
from jobs.errors import Clash, Forbidden, Invalid
from jobs.lifecycle import effects
from jobs.lifecycle.approval import approve, reject
from jobs.lifecycle.cancel import cancel
from jobs.lifecycle.followup import retry, undo
from jobs.models import AuditEvent, HostLease, Job, Message, QuarantineItem, Run
from jobs.rules.document import digest_of_document
from jobs.rules.policy import Rule
from tests.db.fleet import APPLIED, PLANNED, Cast, ask, changed, message, person, work

HOLD = {"match": "from:*@bulk.example"}


def purge(people: Cast, count: int, mode: str = "quarantine") -> Job:
    """A purge of `count` messages of mx1/postfix that the workers have planned."""
    messages = [message(n) for n in range(count)]
    people.engine.plans["mx1/postfix"] = Plan(selected=tuple(messages), queue_total=1000, bytes=722 * count)
    places = {m.queue_id: f"/var/spool/postfix/q/{m.queue_id}" for m in messages} if mode == "quarantine" else {}
    people.engine.results["mx1/postfix"] = changed(messages, places=places)
    return work(ask(people.alice, "queue.purge", params={**HOLD, "mode": mode}))


def test_a_reading_job_keeps_the_result_and_the_commands_of_each_run(people: Cast) -> None:
    data = {"entries": [{"queue_id": "3F5DD30C44F", "arrival_time": 1_795_172_380}], "taken_at": 1_795_172_390.5}
    people.engine.results["mx1/postfix"] = Result(Ended.SUCCEEDED, data=data)
    job = work(ask(people.alice, "queue.list"))
    run = job.runs.get()
    assert (job.state, run.state) == ("succeeded", "succeeded")
    assert run.result == {
        "entries": [{"queue_id": "3F5DD30C44F", "arrival_time": "2026-11-20T10:59:40Z"}],
        "taken_at": "2026-11-20T10:59:50.500000Z",
    }
    assert run.commands == [{"argv": ["true"], "exit_status": 0, "duration_ms": 3, "stderr_tail": ""}]


def test_a_small_hold_is_planned_and_then_done_without_anybody(people: Cast) -> None:
    messages = [message(1), message(2)]
    people.engine.plans["mx1/postfix"] = Plan(selected=tuple(messages), queue_total=10)
    people.engine.results["mx1/postfix"] = changed(messages)
    job = work(ask(people.alice, "queue.hold", params=HOLD))
    assert job.state == "succeeded"
    assert people.engine.asked == [("mx1/postfix", PLANNED), ("mx1/postfix", APPLIED)]
    assert Message.objects.filter(is_held_by_us=True).count() == 2


def test_a_dry_run_ends_with_its_plan_and_sends_no_changing_command(people: Cast) -> None:
    people.engine.plans["mx1/postfix"] = Plan(selected=(message(1),), queue_total=1)
    job = work(ask(people.alice, "queue.purge", params=HOLD, dry_run=True))
    assert (job.state, job.planned_messages) == ("planned", 1)
    assert people.engine.asked == [("mx1/postfix", PLANNED)]


def test_a_run_of_a_dry_run_ends_planned_and_is_told_so(people: Cast) -> None:
    people.engine.plans["mx2/postfix"] = Unreachable("no route to host")
    job = work(ask(people.alice, "queue.purge", {"hosts": ["mx1", "mx2"]}, params=HOLD, dry_run=True))
    ends = {str(run.instance): (run.state, run.finished_at is not None) for run in job.runs.all()}
    assert ends == {
        "mx1/postfix": ("planned", True),
        "mx1/postfixEXT": ("planned", True),
        "mx2/postfix": ("unreachable", True),
    }
    assert {event.data["state"] for event in job.events.filter(kind="run")} == {"planned", "unreachable"}


def test_migrating_ends_the_runs_that_older_dry_runs_left_pending(people: Cast) -> None:
    people.engine.plans["mx1/postfix"] = Plan(selected=(message(1),), queue_total=1)
    dry = work(ask(people.alice, "queue.purge", params=HOLD, dry_run=True))
    waiting = ask(people.alice, "queue.purge", params=HOLD, dry_run=True)
    Run.objects.update(state="pending", finished_at=None)
    import_module("jobs.migrations.0005_planned_runs_and_beats").end_dry_runs(apps, None)
    assert (dry.runs.get().state, dry.runs.get().finished_at) == ("planned", dry.finished_at)
    assert waiting.runs.get().state == "pending"


def test_a_plan_without_messages_is_unchanged(people: Cast) -> None:
    job = work(ask(people.alice, "queue.hold", params=HOLD))
    assert (job.state, job.runs.get().state) == ("succeeded", "unchanged")


def test_one_queue_over_its_limit_stops_the_job_everywhere(people: Cast) -> None:
    people.engine.plans["mx1/postfix"] = TooMany("11 messages match, max_messages is 10")
    people.engine.plans["mx2/postfix"] = Plan(selected=(message(1),), queue_total=20)
    people.engine.mutates = False
    job = work(ask(people.alice, "queue.hold", {"instances": ["mx1/postfix", "mx2/postfix"]}, params=HOLD))
    assert (job.state, job.error["code"]) == ("failed", "too_many")
    assert {str(run.instance): run.state for run in job.runs.all()} == {
        "mx1/postfix": "failed",
        "mx2/postfix": "cancelled",
    }
    assert not [phase for _, phase in people.engine.asked if phase == APPLIED]


def test_a_large_purge_waits_for_a_second_person_and_then_runs(people: Cast) -> None:
    job = purge(people, 101)
    assert (job.state, job.approvals_needed) == ("awaiting_approval", 1)
    approve(people.bob, job, job.digest, "seen")
    job = work(job)
    assert job.state == "succeeded"
    assert QuarantineItem.objects.filter(job=job, state="kept").count() == 101


def test_a_requester_cannot_approve_their_own_job(people: Cast) -> None:
    job = purge(people, 101)
    with pytest.raises(Forbidden) as caught:
        approve(people.alice, job, job.digest)
    assert caught.value.code == "self_approval"


def test_an_admin_cannot_approve_their_own_job_either(people: Cast) -> None:
    people.alice = people.dana
    job = purge(people, 101)
    with pytest.raises(Forbidden) as caught:
        approve(people.dana, job, job.digest)
    assert caught.value.code == "self_approval"


def test_an_integration_cannot_decide(people: Cast) -> None:
    job = purge(people, 101)
    robot = person("robot", "approver", people.acme, kind="service")
    with pytest.raises(Forbidden):
        approve(robot, job, job.digest)


def test_an_approver_of_another_customer_cannot_decide(people: Cast) -> None:
    job = purge(people, 101)
    with pytest.raises(Forbidden):
        approve(person("eve", "approver", people.other), job, job.digest)


@pytest.fixture
def reserved_for_admins(monkeypatch: pytest.MonkeyPatch) -> None:
    rule = Rule("admins-only", ("queue.purge",), approvals=1, role="admin")
    monkeypatch.setattr("jobs.lifecycle.planning.DEFAULT_RULES", (rule,))


@pytest.mark.usefixtures("reserved_for_admins")
def test_who_has_not_the_role_that_the_rule_names_decides_neither_way(people: Cast) -> None:
    job = purge(people, 1)
    assert (job.state, job.approval_role) == ("awaiting_approval", "admin")
    for decide in (approve, partial(reject, comment="no")):
        with pytest.raises(Forbidden):
            decide(people.bob, job, job.digest)
    approve(people.dana, job, job.digest)
    assert work(job).state == "succeeded"


@pytest.mark.usefixtures("reserved_for_admins")
def test_an_approver_who_has_less_than_the_rule_names_by_the_start_does_not_count(people: Cast) -> None:
    job = purge(people, 1)
    approve(people.dana, job, job.digest)
    people.dana.account.roles.update(role="approver")
    assert work(job).state == "failed"


def test_an_approval_of_another_digest_is_refused(people: Cast) -> None:
    job = purge(people, 101)
    with pytest.raises(Clash) as caught:
        approve(people.bob, job, "sha256:0")
    assert caught.value.code == "plan_changed"


def test_nobody_decides_twice(people: Cast) -> None:
    job = purge(people, 101)
    reject(people.bob, job, job.digest, "too many")
    with pytest.raises(Clash) as caught:
        approve(people.bob, job, job.digest)
    assert caught.value.code == "already_decided"


def test_one_rejection_with_a_comment_ends_the_job(people: Cast) -> None:
    job = purge(people, 101)
    with pytest.raises(Invalid):
        reject(people.bob, job, job.digest, " ")
    job = reject(people.bob, job, job.digest, "too many")
    assert job.state == "rejected"
    assert {run.state for run in job.runs.all()} == {"cancelled"}
    with pytest.raises(Clash):
        approve(people.dana, job, job.digest)


def test_a_plan_that_was_changed_behind_the_approver_is_not_run(people: Cast) -> None:
    job = purge(people, 101)
    approve(people.bob, job, job.digest)
    Message.objects.filter(run__job=job).update(size=1)
    job = work(job)
    assert (job.state, job.error["code"]) == ("failed", "conflict")
    assert ("mx1/postfix", APPLIED) not in people.engine.asked


def test_an_approver_who_lost_the_role_before_the_start_does_not_count(people: Cast) -> None:
    job = purge(people, 101)
    approve(people.bob, job, job.digest)
    people.bob.account.roles.all().delete()
    assert work(job).state == "failed"


def test_a_requester_who_lost_the_role_before_the_start_changes_nothing(people: Cast) -> None:
    job = purge(people, 101)
    approve(people.bob, job, job.digest)
    people.alice.account.roles.all().delete()
    assert work(job).state == "failed"


def test_the_intent_is_on_record_before_the_first_changing_command(people: Cast) -> None:
    seen: list[int] = []

    def look(place: str, phase: str) -> None:
        if phase == APPLIED:
            seen.append(AuditEvent.objects.filter(action="run.dispatched").count())
            assert Run.objects.filter(dispatched_at__isnull=False).count() == 1

    people.engine.before = look
    purge(people, 3)
    assert seen == [1]


def test_a_host_that_is_off_is_unreachable_and_the_others_succeed(people: Cast) -> None:
    people.engine.results["mx2/postfix"] = Unreachable("no route to host")
    people.engine.mutates = False
    job = work(ask(people.alice, "queue.list", {"customers": ["acme"]}))
    assert job.state == "partly_failed"
    run = job.runs.get(host__name="mx2")
    assert (run.state, run.error["code"], run.host.status) == ("unreachable", "unreachable", "unreachable")


def test_a_connection_lost_while_reading_is_a_failure_and_the_host_is_not_called_unreachable(people: Cast) -> None:
    people.engine.results["mx2/postfix"] = ConnectionLost("the connection ended")
    people.engine.mutates = False
    job = work(ask(people.alice, "queue.list", {"instances": ["mx2/postfix"]}))
    run = job.runs.get()
    assert (run.state, run.error["code"], run.host.status) == ("failed", "connection_lost", "new")
    assert run.host.last_seen_at is None


def test_a_lost_lease_ends_the_run_and_says_nothing_about_the_host(people: Cast) -> None:
    people.engine.plans["mx1/postfix"] = Plan(selected=(message(1),), queue_total=1)
    people.engine.results["mx1/postfix"] = LeaseLost("taken away")
    people.engine.mutates = False
    run = work(ask(people.alice, "queue.hold", params=HOLD)).runs.get()
    assert (run.state, run.error["code"], run.dispatched_at) == ("failed", "lease_lost", None)
    assert run.host.status == "ok"


def test_messages_in_delivery_are_told_and_never_claimed(people: Cast) -> None:
    messages = [message(1)]
    people.engine.plans["mx1/postfix"] = Plan(selected=tuple(messages), queue_total=1)
    result = changed(messages, MessageState.IN_DELIVERY)
    people.engine.results["mx1/postfix"] = Result(
        Ended.FAILED, result.data, result.messages, error=InDelivery("1 message is being delivered")
    )
    job = work(ask(people.alice, "queue.purge", params=HOLD))
    run = job.runs.get()
    assert (job.state, run.error["code"], run.result["in_delivery"]) == ("failed", "in_delivery", 1)


def test_an_unknown_outcome_keeps_the_job_running(people: Cast) -> None:
    people.engine.plans["mx1/postfix"] = Plan(selected=(message(1),), queue_total=1)
    people.engine.results["mx1/postfix"] = OutcomeUnknown("the connection ended")
    job = work(ask(people.alice, "queue.purge", params=HOLD))
    assert (job.state, job.runs.get().state) == ("running", "unknown")


def test_an_undone_purge_restores_and_cannot_be_undone_twice(people: Cast) -> None:
    job = purge(people, 3)
    people.engine.results["mx1/postfix"] = changed([message(n) for n in range(3)])
    back = work(undo(people.alice, job, "it was the right newsletter"))
    assert (back.operation, back.state, back.approvals_needed) == ("quarantine.restore", "succeeded", 0)
    assert set(QuarantineItem.objects.values_list("state", flat=True)) == {"restored"}
    with pytest.raises(Clash):
        undo(people.alice, job, "again")


@pytest.mark.parametrize(
    ("operation", "params"),
    [("queue.flush", {"match": "ALL"}), ("queue.bounce", HOLD), ("queue.requeue", HOLD)],
)
def test_what_cannot_be_put_back_is_not_undoable(people: Cast, operation: str, params: dict[str, str]) -> None:
    people.engine.plans["mx1/postfix"] = Plan(selected=(message(1),), queue_total=100)
    job = ask(people.alice, operation, params=params)
    with pytest.raises(Clash) as caught:
        undo(people.alice, work(job), "please")
    assert caught.value.code == "not_undoable"


def test_a_delete_cannot_be_undone(people: Cast) -> None:
    job = purge(people, 3, mode="delete")
    approve(people.bob, job, job.digest)
    with pytest.raises(Clash):
        undo(people.alice, work(job), "please")


def test_undoing_a_hold_releases_only_what_it_had_held(people: Cast) -> None:
    messages = [message(1), message(2)]
    people.engine.plans["mx1/postfix"] = Plan(selected=tuple(messages), queue_total=10)
    people.engine.results["mx1/postfix"] = changed(messages[:1])
    job = work(ask(people.alice, "queue.hold", params=HOLD))
    people.engine.plans["mx1/postfix"] = Plan(selected=tuple(messages[:1]), queue_total=10)
    back = work(undo(people.alice, job, "enough"))
    assert (back.operation, back.state) == ("queue.release", "succeeded")
    assert [m.queue_id for m in Message.objects.filter(run__job=back)] == [messages[0].queue_id]
    assert not Message.objects.filter(is_held_by_us=True).exists()


def hold(people: Cast, *messages: Fingerprint) -> Job:
    people.engine.plans["mx1/postfix"] = Plan(selected=messages, queue_total=100)
    people.engine.results["mx1/postfix"] = changed(messages)
    return work(ask(people.alice, "queue.hold", params=HOLD))


def held_by_us() -> list[str]:
    return list(Message.objects.filter(is_held_by_us=True).values_list("queue_id", flat=True).order_by("queue_id"))


@pytest.mark.parametrize("is_planning", [True, False])
def test_what_others_released_is_no_hold_of_ours_once_a_queue_was_listed(people: Cast, is_planning: bool) -> None:
    one, two, of_mx2 = message(1), message(2), message(3)
    hold(people, one, two)
    people.engine.plans["mx2/postfix"] = Plan(selected=(of_mx2,), queue_total=100)
    people.engine.results["mx2/postfix"] = changed([of_mx2])
    work(ask(people.alice, "queue.hold", {"instances": ["mx2/postfix"]}, params=HOLD))
    seen = Plan(selected=(message(4),), queue_total=100, freed=(one, of_mx2))
    (people.engine.plans if is_planning else people.engine.found)["mx1/postfix"] = seen
    people.engine.results["mx1/postfix"] = changed([message(4)])
    work(ask(people.alice, "queue.purge", params=HOLD, dry_run=is_planning))
    assert held_by_us() == [two.queue_id, of_mx2.queue_id], "the other instance's message was not looked at"


def test_a_hold_that_was_made_after_the_queue_was_listed_stays_ours(people: Cast) -> None:
    hold(people, message(1))
    runs = Run.objects.all()
    effects.freed(runs.get(), [message(1)], runs.get().finished_at - timedelta(seconds=1))
    assert held_by_us() == [message(1).queue_id]


def test_a_held_message_in_our_quarantine_stays_a_hold_of_ours_for_its_way_back(people: Cast) -> None:
    hold(people, message(1))
    people.engine.results["mx1/postfix"] = changed([message(1)], places={message(1).queue_id: "/there"})
    work(ask(people.alice, "queue.purge", params=HOLD))
    people.engine.plans["mx1/postfix"] = Plan(queue_total=1, freed=(message(1),))
    work(ask(people.alice, "queue.purge", params=HOLD, dry_run=True))
    assert held_by_us() == [message(1).queue_id]


@pytest.mark.parametrize(("planned", "found"), [("deferred", "hold"), ("hold", "deferred"), ("hold", "hold")])
def test_what_others_held_or_released_since_the_plan_goes_back_so(planned: str, found: str, people: Cast) -> None:
    people.engine.plans["mx1/postfix"] = Plan(selected=(message(1, planned), message(2)), queue_total=10)
    people.engine.found["mx1/postfix"] = Plan(selected=(message(1, found), message(2)), queue_total=10)
    people.engine.results["mx1/postfix"] = changed(
        [message(1), message(2)], places={message(n).queue_id: "/there" for n in (1, 2)}
    )
    job = work(ask(people.alice, "queue.purge", params=HOLD))
    states = dict(QuarantineItem.objects.filter(job=job).values_list("queue_id", "native_state"))
    assert states == {message(1).queue_id: found, message(2).queue_id: "deferred"}


def listed(message: Fingerprint, state: str = "deferred") -> dict[str, Any]:
    """As queue.list shows it."""
    same = ("queue_id", "arrival_time", "sender", "size")
    return {"state": state, **{name: getattr(message, name) for name in same}}


def look(people: Cast, *entries: dict[str, Any]) -> list[str]:
    """What is a hold of ours once queue.list has shown these."""
    people.engine.results["mx1/postfix"] = Result(Ended.SUCCEEDED, data={"entries": list(entries)})
    assert work(ask(people.alice, "queue.list")).state == "succeeded"
    return held_by_us()


def test_what_others_released_is_no_hold_of_ours_once_it_was_listed(people: Cast) -> None:
    one, two, three, four = (message(n) for n in range(1, 5))
    every = [each.queue_id for each in (one, two, three, four)]
    hold(people, one, two, three, four)
    of_others = {**listed(one), "arrival_time": one.arrival_time + 1}
    assert look(people, of_others) == every, "another message has its ID by now"
    with_few_fields = {"queue_id": two.queue_id, "state": "deferred"}
    assert look(people, with_few_fields, {"queue_id": three.queue_id}) == every, "who knows which these are"
    assert look(people, listed(one), listed(two, "hold"), listed(four, "active")) == [two.queue_id, three.queue_id]


def test_a_listing_during_a_change_of_the_host_tells_nothing_of_our_holds(people: Cast) -> None:
    hold(people, message(1))
    lease = HostLease.objects.get(host__name="mx1")
    HostLease.objects.filter(pk=lease.pk).update(job=Job.objects.get())
    assert look(people, listed(message(1))) == [message(1).queue_id]
    HostLease.objects.filter(pk=lease.pk).update(job=None)
    Run.objects.filter(job__is_changing=True).update(finished_at=timezone.now() + timedelta(minutes=1))
    assert look(people, listed(message(1))) == [message(1).queue_id]


def test_a_plan_says_what_had_changed_in_the_queue_when_it_was_carried_out(people: Cast) -> None:
    people.engine.plans["mx1/postfix"] = Plan(selected=(message(1), message(2)), queue_total=100, gone=1)
    people.engine.found["mx1/postfix"] = Plan(gone=1, new=7)
    people.engine.results["mx1/postfix"] = changed([message(1)])
    job = work(ask(people.alice, "queue.hold", params=HOLD))
    (row,) = job.runs.all()
    assert row.plan["drift"] == {"gone": 2, "new": 7}
    assert row.plan["counts"]["messages"] == 2
    assert job.digest == digest_of_document(job.frozen_plan.document)


def test_a_cancelled_job_stops_what_has_not_begun(people: Cast) -> None:
    job = purge(people, 101)
    assert len(cancel(people.alice, job)["cancelled"]) == 1
    job.refresh_from_db()
    assert job.state == "cancelled"
    with pytest.raises(Clash):
        cancel(people.alice, job)


def test_only_the_requester_or_an_admin_cancels(people: Cast) -> None:
    job = purge(people, 101)
    with pytest.raises(Forbidden):
        cancel(people.bob, job)
    cancel(people.dana, job)


def test_a_retry_takes_only_the_runs_that_failed(people: Cast) -> None:
    people.engine.results["mx2/postfix"] = Unreachable("no route to host")
    people.engine.mutates = False
    job = work(ask(people.alice, "queue.list", {"customers": ["acme"]}))
    del people.engine.results["mx2/postfix"]
    again = work(retry(people.alice, job))
    assert (again.state, [str(run.instance) for run in again.runs.all()]) == ("succeeded", ["mx2/postfix"])
    with pytest.raises(Clash):
        retry(people.alice, again)


def test_a_doubled_or_forged_message_finds_nothing_to_do(people: Cast) -> None:
    from fleet.ids import uuid7
    from jobs.worker import runner

    job = work(ask(people.alice, "queue.list"))
    asked = list(people.engine.asked)
    work(job)
    runner.work(str(uuid7()), "ssh.0")
    assert people.engine.asked == asked


def test_a_second_changing_job_waits_for_the_host(people: Cast) -> None:
    people.engine.plans["mx1/postfix"] = Plan(selected=(message(1),), queue_total=10)
    people.engine.results["mx1/postfix"] = OutcomeUnknown("the connection ended")
    first = work(ask(people.alice, "queue.hold", params=HOLD))
    second = work(ask(people.alice, "queue.hold", params=HOLD))
    assert (first.state, second.state, second.runs.get().state) == ("running", "queued", "pending")


def test_a_changed_host_is_tried_again_though_it_was_paused(people: Cast) -> None:
    work(ask(people.alice, "queue.list"))
    work(ask(people.alice, "queue.list"))
    assert people.engine.were_reset == []
    people.acme.hosts.get(name="mx1").save()
    work(ask(people.alice, "queue.list"))
    assert people.engine.were_reset == ["mx1"]
