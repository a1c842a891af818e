"""One duty that fails keeps no other one from being done."""

from datetime import timedelta
from typing import Any

import pytest
from django.db import OperationalError

from deploy.celery import app
from jobs import tasks
from jobs.clock import db_now
from jobs.lifecycle import sweep
from jobs.models import Block, Job
from jobs.worker import runner
from tests.db.fleet import Cast, ask, work


def failing(*_: Any) -> Any:
    raise RuntimeError("this duty always fails")


def cut_off(*_: Any) -> Any:
    raise OperationalError("canceling statement due to statement timeout")


FINDERS = ("_of_unknown", "_of_behind", "orphans.queues")
DUTIES = ("reconcile.lose", "expire_jobs", "wake_again", "expire_blocks", "extend_blocks", *FINDERS)


@pytest.mark.parametrize("broken", DUTIES)
@pytest.mark.parametrize("how", [failing, cut_off])
def test_each_duty_of_a_sweep_is_done_though_another_one_fails(
    db: None, monkeypatch: pytest.MonkeyPatch, wakeups: list[Any], broken: str, how: Any
) -> None:
    did: set[str] = set()

    def duty(name: str) -> Any:
        return lambda now: did.add(name) or {f"ssh.{name}"}  # type: ignore[func-returns-value]

    for name in DUTIES:
        monkeypatch.setattr(f"jobs.lifecycle.sweep.{name}", how if name == broken else duty(name))
    sweep.sweep()
    assert did == set(DUTIES) - {broken}
    assert wakeups == [(f"ssh.{name}", "look") for name in sorted({*FINDERS} - {broken})]


def test_a_job_that_cannot_expire_keeps_no_other_one_from_it(people: Cast, monkeypatch: pytest.MonkeyPatch) -> None:
    jobs = [ask(people.alice, "queue.list") for _ in range(3)]
    Job.objects.update(expires_at=db_now() - timedelta(seconds=1))
    stop = sweep.stop
    monkeypatch.setattr(sweep, "stop", lambda job, state: failing() if job.pk == jobs[0].pk else stop(job, state))
    sweep.expire_jobs(db_now())
    assert [Job.objects.get(pk=job.pk).state for job in jobs] == ["queued", "expired", "expired"]


def test_a_block_that_cannot_be_extended_or_ended_keeps_no_other_one_from_it(
    people: Cast, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("a", "b"):
        work(ask(people.alice, "sender.block", params={"pattern": f"{name}@bulk.example", "for": "1h"}))
    extended, resolve = [], sweep.resolve
    first = Block.objects.order_by("pk")[0]
    monkeypatch.setattr(
        sweep,
        "resolve",
        lambda target, *_, **__: extended.append(target) or (failing() if len(extended) == 1 else None),
    )
    sweep.extend_blocks(db_now())
    assert len(extended) == 2
    monkeypatch.setattr(sweep, "resolve", resolve)
    record = sweep.transition.record
    monkeypatch.setattr(
        sweep.transition, "record", lambda job, *more: failing() if job == first.job else record(job, *more)
    )
    sweep.expire_blocks(db_now() + timedelta(hours=2))
    assert list(Block.objects.order_by("pk").values_list("is_wanted", flat=True)) == [True, False]


@pytest.mark.parametrize("broken", ["sweeping.expire_quarantine", "retention.apply", "enroll", "trail.checkpoint"])
def test_each_duty_of_a_minute_is_done_though_another_one_fails(
    db: None, monkeypatch: pytest.MonkeyPatch, broken: str
) -> None:
    did: list[str] = []
    names = ["sweeping.expire_quarantine", "retention.apply", "enroll", "trail.checkpoint"]
    for name in names:
        monkeypatch.setattr(f"jobs.tasks.{name}", failing if name == broken else lambda name=name: did.append(name))
    tasks.housekeep()
    assert did == [name for name in names if name != broken]


@pytest.mark.parametrize("broken", ["read_back", "catch_up", "orphans.inspect"])
def test_a_worker_that_cannot_look_for_one_thing_looks_for_the_others(
    db: None, monkeypatch: pytest.MonkeyPatch, broken: str
) -> None:
    did: list[str] = []
    names = ["read_back", "catch_up", "orphans.inspect"]
    for name in names:
        monkeypatch.setattr(
            f"jobs.worker.runner.{name}", failing if name == broken else lambda *_, name=name: did.append(name)
        )
    assert runner.check_hosts("ssh.0") is False
    assert did == [name for name in names if name != broken]


def test_whatever_the_scheduler_asks_for_is_a_task_that_workers_know() -> None:
    app.loader.import_default_modules()
    assert {entry["task"] for entry in app.conf.beat_schedule.values()} <= set(app.tasks)
