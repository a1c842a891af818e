"""Look again: how the queues differ from a frozen plan. It changes neither."""

from typing import Any

import pytest

from fleet.mta.errors import TooMany, Unreachable
from fleet.mta.records import Fingerprint
from fleet.mta.steps import Diff, Plan
from jobs import selectors
from jobs.clock import db_now
from jobs.errors import Clash, Forbidden, NotFound, ServiceError
from jobs.lifecycle import drift, retention
from jobs.lifecycle.approval import approve, confirm
from jobs.lifecycle.cancel import cancel
from jobs.lifecycle.followup import retry, undo
from jobs.models import AuditEvent, BlockInstance, FrozenPlan, Job, Message, Thinned
from tests.db.fleet import APPLIED, PLANNED, Cast, ask, changed, claimed, message, person, work
from tests.db.test_jobs import purge
from tests.db.test_sweep import SENDER

HOSTS = {"hosts": ["mx1", "mx2"]}
MATCH = {"match": "from:*@bulk.example"}


def finds(people: Cast, *messages: Fingerprint, place: str = "mx1/postfix", **fields: Any) -> None:
    people.engine.plans[place] = Plan(selected=messages, queue_total=1000, **fields)


def look(people: Cast, job: Job) -> Job:
    return work(drift.look(people.bob, job))


def refused(kind: type[ServiceError], code: str, act: Any, *args: Any) -> None:
    with pytest.raises(kind) as caught:
        act(*args)
    assert caught.value.code == code


def test_what_is_gone_and_what_is_new_is_told_per_instance_and_the_plan_stays(people: Cast) -> None:
    job = purge(people, 101)
    before = Message.objects.count(), job.digest, job.runs.get().plan
    other = Fingerprint(message(7).queue_id, 1.0, "x@bulk.example", 5)
    finds(people, *(message(n) for n in range(3, 105) if n != 7), other)
    look_again = look(people, job)
    run = look_again.runs.get()
    assert (look_again.state, run.state, run.plan) == ("succeeded", "succeeded", None)
    assert {name: run.result[name] for name in ("planned", "gone", "new", "changed", "files_changed")} == {
        "planned": 101, "gone": 3, "new": 4, "changed": 1, "files_changed": False,
    }  # fmt: skip
    (changed_now,) = run.result["samples"]["changed"]
    assert (changed_now["sender"], changed_now["arrival_time"]) == ("x@bulk.example", "1970-01-01T00:00:01Z")
    assert len(run.commands) == 1
    job.refresh_from_db()
    assert (Message.objects.count(), job.digest, job.runs.get().plan) == before
    assert people.engine.asked == [("mx1/postfix", PLANNED), ("mx1/postfix", PLANNED)]
    approve(people.bob, job, job.digest)
    assert work(job).state == "succeeded"


def test_it_is_on_record_who_looked_at_which_plan(people: Cast) -> None:
    job = purge(people, 101)
    look_again = look(people, job)
    entry = AuditEvent.objects.get(job=look_again.pk, action="job.submitted")
    assert (entry.actor, entry.data["drift_of"], entry.data["dry_run"]) == ("bob", str(job.pk), True)
    assert (look_again.operation, look_again.ticket, look_again.drift_of) == ("queue.purge", job.ticket, job)


def test_who_may_read_queues_may_look_and_nobody_else(people: Cast) -> None:
    job = purge(people, 101)
    viewer = person("erin", "viewer", people.acme)
    assert drift.look(viewer, job).drift_of == job
    refused(Forbidden, "forbidden", drift.look, people.charlie, job)


def test_hosts_that_do_not_answer_and_queues_over_the_limit_are_named_beside_the_others(people: Cast) -> None:
    messages = tuple(message(n) for n in range(101))
    for place in ("mx1/postfix", "mx1/postfixEXT", "mx2/postfix"):
        finds(people, *messages, place=place)
    job = work(ask(people.alice, "queue.purge", HOSTS, params=MATCH))
    people.engine.plans["mx1/postfixEXT"] = TooMany("9000 messages match", matched=9000, limit=10)
    people.engine.plans["mx2/postfix"] = Unreachable("no route")
    look_again = look(people, job)
    states = {str(run.instance): run.state for run in look_again.runs.select_related("instance__host")}
    assert states == {"mx1/postfix": "succeeded", "mx1/postfixEXT": "failed", "mx2/postfix": "unreachable"}
    assert (look_again.state, Job.objects.get(pk=job.pk).state) == ("partly_failed", "awaiting_approval")


def test_a_plan_of_files_is_compared_too_and_no_block_is_touched(people: Cast) -> None:
    work(ask(people.alice, "sender.block", params=SENDER))
    finds(people, diffs=(Diff("/etc/postfix/sender_access", "+a"),))
    job = work(ask(people.alice, "sender.unblock", params=SENDER, confirm=True))
    assert not look(people, job).runs.get().result["files_changed"]
    finds(people, diffs=(Diff("/etc/postfix/sender_access", "+b"),))
    assert look(people, job).runs.get().result["files_changed"]
    people.engine.plans["mx1/postfix"] = Unreachable("no route")
    before = list(BlockInstance.objects.values())
    assert look(people, job).state == "failed"
    assert list(BlockInstance.objects.values()) == before


def test_an_undo_is_looked_at_as_what_it_undoes_would_be_planned_now(people: Cast) -> None:
    finds(people, message(1))
    people.engine.results["mx1/postfix"] = changed([message(1)])
    held = work(ask(people.alice, "queue.hold", params=MATCH))
    back = work(undo(people.alice, held, "it was wanted", confirm=True))
    people.engine.plans["mx1/postfix"] = Plan(gone=1)
    assert look(people, back).runs.get().result["gone"] == 1
    blocked = work(ask(people.alice, "sender.block", params=SENDER))
    free = work(undo(people.alice, blocked, "it was wanted", confirm=True))
    people.engine.plans["mx1/postfix"] = Unreachable("no route")
    assert look(people, free).state == "failed"
    assert work(confirm(people.alice, back, back.digest)).state == "succeeded"
    assert (
        selectors.detailed(list(selectors.with_details(Job.objects.filter(pk=held.pk))))[0].details.undone_by == back.pk
    )


def test_what_only_looked_can_be_neither_undone_nor_retried(people: Cast) -> None:
    job = work(ask(people.alice, "sender.block", params=SENDER, confirm=True))
    look_again = look(people, job)
    refused(Clash, "not_undoable", undo, people.alice, look_again, "no")
    people.engine.plans["mx1/postfix"] = Unreachable("no route")
    refused(Clash, "not_retryable", retry, people.alice, look(people, job))


def test_only_a_plan_that_is_still_to_be_carried_out_is_compared(people: Cast) -> None:
    refused(NotFound, "no_plan", drift.look, people.bob, ask(people.alice, "queue.hold", params=MATCH))
    refused(NotFound, "no_plan", drift.look, people.bob, work(ask(people.alice, "queue.list")))
    finds(people, message(1))
    people.engine.results["mx1/postfix"] = changed([message(1)])
    done = work(ask(people.alice, "queue.hold", {"instances": ["mx1/postfixEXT"]}, params=MATCH))
    refused(NotFound, "no_plan", drift.look, people.bob, done)
    waiting = purge(people, 101)
    people.acme.hosts.filter(name="mx1").update(enabled=False)
    refused(Clash, "conflict", drift.look, people.bob, waiting)
    people.acme.hosts.filter(name="mx1").update(enabled=True)
    approve(people.bob, waiting, waiting.digest)
    refused(Clash, "conflict", drift.look, people.bob, work(waiting))


def test_it_keeps_no_change_from_being_planned(people: Cast) -> None:
    look_again = drift.look(people.bob, purge(people, 101))
    taken = claimed(look_again)
    assert taken is not None
    assert taken.job == look_again
    hold = ask(people.alice, "queue.hold", params=MATCH)
    taken = claimed(hold)
    assert taken is not None
    assert taken.job == hold


def test_it_is_cancelled_like_any_other(people: Cast) -> None:
    look_again = drift.look(people.bob, purge(people, 101))
    cancel(people.bob, look_again)
    assert (work(look_again).state, ("mx1/postfix", APPLIED) in people.engine.asked) == ("cancelled", False)


def test_a_plan_stays_while_it_is_compared(people: Cast) -> None:
    finds(people, message(1))
    job = work(ask(people.alice, "queue.purge", params=MATCH, dry_run=True))
    look_again = drift.look(people.bob, job)
    Job.objects.filter(pk=job.pk).update(thinned=Thinned.EVENTS)
    assert retention._thin(db_now()) == 0
    assert work(look_again).state == "succeeded"
    assert retention._thin(db_now()) == 1
    refused(NotFound, "no_plan", drift.look, people.bob, Job.objects.get(pk=job.pk))
    assert not FrozenPlan.objects.filter(job=job).exists()


def test_a_job_stays_while_one_that_looked_at_its_plan_does(people: Cast) -> None:
    finds(people, message(1))
    job = work(ask(people.alice, "queue.purge", params=MATCH, dry_run=True))
    look_again = look(people, job)
    over = {"thinned": Thinned.DETAILS, "finished_at": db_now()}
    Job.objects.filter(pk=job.pk).update(**over)
    Message.objects.filter(run__job=job).delete()
    assert retention._forget(db_now()) == 0
    Job.objects.filter(pk=look_again.pk).update(**over)
    assert (retention._forget(db_now()), retention._forget(db_now())) == (1, 1)
