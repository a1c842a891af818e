"""Retry, undo and the schedule do no more than what they follow was allowed to do."""

from datetime import timedelta

import pytest

from fleet.models import Host
from fleet.mta.errors import Unreachable
from fleet.mta.steps import Plan
from jobs.clock import db_now
from jobs.errors import Clash, ServiceError
from jobs.lifecycle import sweep
from jobs.lifecycle.approval import approve
from jobs.lifecycle.followup import retry, undo
from jobs.models import BlockInstance, Job, QuarantineItem
from jobs.worker import runner
from tests.db.fleet import APPLIED, PLANNED, Cast, ask, changed, message, work

MATCH = {"match": "from:*@bulk.example"}


def test_a_retry_of_a_dry_run_is_a_dry_run(people: Cast) -> None:
    people.engine.plans["mx1/postfix"] = Plan(selected=(message(1),), queue_total=10)
    people.engine.plans["mx2/postfix"] = Unreachable("no route to host")
    people.engine.mutates = False
    target = {"instances": ["mx1/postfix", "mx2/postfix"]}
    job = work(ask(people.alice, "queue.purge", target, params=MATCH, dry_run=True))
    people.engine.plans["mx2/postfix"] = Plan(selected=(message(2),), queue_total=10)
    again = work(retry(people.alice, job))
    assert (again.dry_run, again.state) == (True, "planned")
    assert {phase for _, phase in people.engine.asked} == {PLANNED}


def purged(people: Cast) -> Job:
    people.engine.plans["mx1/postfix"] = Plan(selected=(message(1),), queue_total=10)
    people.engine.results["mx1/postfix"] = changed([message(1)], places={message(1).queue_id: "/q"})
    return work(ask(people.alice, "queue.purge", params=MATCH))


def test_an_undo_on_a_host_that_is_disabled_is_refused(people: Cast) -> None:
    job = purged(people)
    Host.objects.filter(name="mx1").update(enabled=False)
    with pytest.raises(ServiceError) as caught:
        undo(people.alice, job, "it was wanted")
    assert caught.value.code in ("not_undoable", "not_retryable")


def test_a_retry_on_a_host_that_is_disabled_is_refused(people: Cast) -> None:
    people.engine.plans["mx1/postfix"] = Unreachable("no route to host")
    people.engine.mutates = False
    job = work(ask(people.alice, "queue.purge", params=MATCH))
    Host.objects.filter(name="mx1").update(enabled=False)
    with pytest.raises(ServiceError) as caught:
        retry(people.alice, job)
    assert caught.value.code in ("not_undoable", "not_retryable")


def test_the_schedule_leaves_hosts_alone_that_are_disabled(people: Cast) -> None:
    people.engine.results["mx2/postfix"] = Unreachable("no route to host")
    people.engine.mutates = False
    work(ask(people.alice, "sender.block", {"customers": ["acme"]}, params={"pattern": "x@sillyplace.com"}))
    Host.objects.filter(name="mx2").update(enabled=False)
    BlockInstance.objects.filter(next_try_at__isnull=False).update(next_try_at=db_now())
    assert [sweep.behind(db_now(), queue) for queue in ("ssh.0", "ssh.1")] == [[], []]


def test_nothing_is_erased_on_a_host_that_is_disabled(people: Cast) -> None:
    purged(people)
    Host.objects.filter(name="mx1").update(enabled=False)
    QuarantineItem.objects.update(expires_at=db_now() - timedelta(seconds=1))
    assert sweep.expire_quarantine() == []


def switch_off(name: str) -> None:
    Host.objects.filter(name=name).update(enabled=False)


def test_an_approved_job_does_not_touch_a_host_that_was_disabled_meanwhile(people: Cast) -> None:
    people.engine.plans["mx1/postfix"] = Plan(selected=(message(1),), queue_total=10)
    people.engine.before = lambda place, phase: switch_off("mx1")
    job = work(ask(people.alice, "queue.purge", params=MATCH))
    assert (job.state, ("mx1/postfix", APPLIED) in people.engine.asked) == ("failed", False)


def test_a_host_that_was_pointed_elsewhere_after_the_plan_is_not_changed(people: Cast) -> None:
    messages = tuple(message(n) for n in range(101))
    people.engine.plans["mx1/postfix"] = Plan(selected=messages, queue_total=1000)
    job = work(ask(people.alice, "queue.purge", params=MATCH))
    approve(people.bob, job, job.digest)
    Host.objects.filter(name="mx1").update(address="192.0.2.66")
    job = work(job)
    assert (job.state, ("mx1/postfix", APPLIED) in people.engine.asked) == ("failed", False)


def test_a_retry_whose_params_are_no_longer_right_is_refused_at_once(people: Cast) -> None:
    people.engine.plans["mx1/postfix"] = Unreachable("no route to host")
    people.engine.mutates = False
    soon = (db_now() + timedelta(hours=1)).strftime("%Y-%m-%dT%H:%M:%SZ")
    job = work(ask(people.alice, "sender.block", params={"pattern": "x@sillyplace.com", "expires_at": soon}))
    Job.objects.filter(pk=job.pk).update(params={**job.params, "expires_at": "2020-01-01T00:00:00Z"})
    with pytest.raises(Clash) as caught:
        retry(people.alice, job)
    assert caught.value.code == "not_retryable"


def test_one_credential_that_does_not_open_does_not_stop_the_runs_on_other_hosts(
    people: Cast, monkeypatch: pytest.MonkeyPatch
) -> None:
    genuine = runner.endpoint_for

    def endpoint(host: Host) -> object:
        if host.name == "mx2":
            raise ValueError("cannot be opened")
        return genuine(host)

    monkeypatch.setattr(runner, "endpoint_for", endpoint)
    job = work(ask(people.alice, "queue.list", {"customers": ["acme"]}))
    assert {str(run.instance): run.state for run in job.runs.select_related("instance__host")} == {
        "mx1/postfix": "succeeded",
        "mx1/postfixEXT": "succeeded",
        "mx2/postfix": "failed",
    }
