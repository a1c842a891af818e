"""A restore from a backup: the service comes up paused, repeats nothing, and goes on when an administrator says so."""

import sqlite3
import subprocess
from collections.abc import Callable, Sequence
from contextlib import closing
from datetime import timedelta
from pathlib import Path

import pytest
from django.core.management import CommandError, call_command
from django.db import connection

from fleet.mta.errors import Unreachable
from fleet.mta.records import Fingerprint, MessageState
from fleet.mta.steps import Plan
from jobs import tasks
from jobs.audit import marks
from jobs.clock import db_now
from jobs.errors import Clash, Unavailable
from jobs.lifecycle import approval, cancel, resume, sweep
from jobs.models import AuditEvent, Block, BlockInstance, Job, Pause, QuarantineItem, Run
from jobs.restore import pause, watch
from jobs.worker import runner
from jobs.worker.leases import Lease
from tests.db.fleet import Cast, ask, changed, claimed, message, work
from tests.services import postgres_program

pytestmark = pytest.mark.django_db(transaction=True)

MESSAGES = [message(1), message(2)]
MANY = [message(number) for number in range(101)]
"""More than are purged without an approval."""
QUEUES = ("ssh.0", "ssh.1")


def backup(directory: Path) -> Callable[[], None]:
    """Back the database up, as docs/operating.md tells. Returns what restores it."""
    copy = directory / "backup"
    name = str(connection.settings_dict["NAME"])
    if connection.vendor == "sqlite":
        _copy(name, copy)
        return lambda: _copy(copy, name)
    there = ["-h", str(connection.settings_dict["HOST"]), "-U", str(connection.settings_dict["USER"])]
    _run("pg_dump", *there, "-Fc", "-f", str(copy), name)
    return lambda: _run("pg_restore", *there, "--clean", "--if-exists", "-d", name, str(copy))


def _copy(one: Path | str, other: Path | str) -> None:
    """What `.backup` and `.restore` of sqlite3(1) do."""
    connection.close()
    with closing(sqlite3.connect(one)) as source, closing(sqlite3.connect(other)) as target:
        source.backup(target)


def _run(name: str, *arguments: str) -> None:
    connection.close()
    done = subprocess.run([postgres_program(name), *arguments], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def all_that_may_happen() -> None:
    """Everything that worker, scheduler and control worker do by themselves."""
    for queue in QUEUES:
        for lane in ("change", "read", "look"):
            runner.work(lane, queue)
    sweep.sweep()
    tasks.housekeep()
    for queue in QUEUES:
        runner.work("look", queue)


def purge(people: Cast, instance: str, messages: Sequence[Fingerprint] = MESSAGES) -> Job:
    people.engine.plans[instance] = Plan(selected=tuple(messages), queue_total=10 * len(messages))
    return ask(people.alice, "queue.purge", {"instances": [instance]}, params={"match": "from:*@bulk.example"})


def planned(people: Cast, *instances: str) -> list[Job]:
    """Purges that are planned and queued, and that no worker has taken."""
    jobs = [purge(people, instance) for instance in instances]
    for job in jobs:
        claim = claimed(job)
        assert claim is not None
        runner._carry_out(claim, Lease(claim.job.pk, {}, until=float("inf")))
    assert [state_of(job) for job in jobs] == ["queued"] * len(jobs)
    return jobs


@pytest.fixture
def restored(people: Cast, tmp_path: Path) -> dict[str, Job]:
    """After the backup one purge was carried out and another one not; then the backup was restored.

    A block was cut off before it.
    """
    people.engine.results["mx2/postfix"] = Unreachable("no route")
    work(ask(people.alice, "sender.block", {"instances": ["mx2/postfix"]}, params={"pattern": "a@bulk.example"}))
    jobs = dict(zip(("done", "not done"), planned(people, "mx1/postfix", "mx2/postfix"), strict=True))
    jobs["reading"] = ask(people.alice, "queue.list")
    jobs["to be planned"] = purge(people, "mx1/postfixEXT")
    assert watch.check()
    restore = backup(tmp_path)
    places = {each.queue_id: f"/quarantine/{each.queue_id}" for each in MESSAGES}
    people.engine.results["mx1/postfix"] = changed(MESSAGES, places=places)
    assert work(jobs["done"]).state == "succeeded"
    restore()
    people.engine.results["mx2/postfix"] = changed(MESSAGES, MessageState.LEFT)
    people.engine.steps.clear()
    return {name: Job.objects.get(pk=job.pk) for name, job in jobs.items()}


def state_of(job: Job) -> str:
    job.refresh_from_db()
    return job.state


def let_time_pass() -> None:
    """More than any command may take on a host."""
    past = db_now() - timedelta(seconds=200)
    Run.objects.filter(state="unknown").update(unknown_at=past, reconcile_at=db_now())


def test_after_a_restore_nothing_is_sent_again_and_what_was_sent_is_read_back(restored: dict[str, Job]) -> None:
    assert state_of(restored["done"]) == "queued", "the backup knows nothing of it"
    all_that_may_happen()
    assert pause.is_on()
    assert state_of(restored["done"]) == "succeeded", "the host told what had been done"
    assert QuarantineItem.objects.filter(job=restored["done"]).count() == 2
    assert state_of(restored["not done"]) == "running"
    let_time_pass()
    all_that_may_happen()
    assert state_of(restored["not done"]) == "failed"
    assert state_of(restored["reading"]) == "queued"


def test_after_a_restore_a_change_without_a_plan_does_not_select_anew(people: Cast, restored: dict[str, Job]) -> None:
    all_that_may_happen()
    job = restored["to be planned"]
    assert state_of(job) == "failed"
    assert "may have been carried out since" in job.error["detail"]
    assert [run.state for run in job.runs.all()] == ["cancelled"]


@pytest.fixture
def undecided(people: Cast, tmp_path: Path) -> list[Job]:
    """Two purges that awaited approval in the backup. After it they were approved, and the first was carried out."""
    jobs = [purge(people, instance, MANY) for instance in ("mx1/postfix", "mx2/postfix")]
    for job in jobs:
        assert work(job).state == "awaiting_approval"
    assert watch.check()
    restore = backup(tmp_path)
    people.engine.results["mx1/postfix"] = changed(MANY, places={each.queue_id: "/there" for each in MANY})
    for job in jobs:
        approval.approve(people.bob, job, job.digest)
    assert work(jobs[0]).state == "succeeded"
    restore()
    people.engine.results["mx2/postfix"] = changed(MANY, MessageState.LEFT)
    people.engine.steps.clear()
    return jobs


def test_what_awaited_approval_before_a_restore_is_read_back_when_it_is_approved(
    people: Cast, undecided: list[Job]
) -> None:
    all_that_may_happen()
    assert [state_of(job) for job in undecided] == ["awaiting_approval"] * 2
    for job in undecided:
        approval.approve(people.bob, job, job.digest)
    all_that_may_happen()
    let_time_pass()
    all_that_may_happen()
    assert [state_of(job) for job in undecided] == ["succeeded", "failed"]
    assert QuarantineItem.objects.filter(job=undecided[0]).count() == len(MANY)
    assert "queue_purge" not in people.engine.steps


def test_what_nobody_decided_before_the_pause_ended_has_to_be_asked_for_again(
    people: Cast, undecided: list[Job]
) -> None:
    all_that_may_happen()
    call_command("audit_acknowledge_gap", reason="restored")
    call_command("resume", reason="compared with the hosts")
    for job in undecided:
        assert state_of(job) == "failed"
        assert "may have been approved and carried out since" in job.error["detail"]
        with pytest.raises(Clash, match="the job is failed"):
            approval.approve(people.bob, job, job.digest)
    all_that_may_happen()
    assert "queue_purge" not in people.engine.steps


def test_while_paused_hosts_are_read_back_and_nothing_else(people: Cast, restored: dict[str, Job]) -> None:
    for _ in range(3):
        all_that_may_happen()
    assert set(people.engine.steps) == {"read_back"}


def test_while_paused_nothing_expires_is_erased_or_caught_up(people: Cast, restored: dict[str, Job]) -> None:
    all_that_may_happen()
    past = db_now() - timedelta(hours=1)
    QuarantineItem.objects.update(expires_at=past)
    Block.objects.update(expires_at=past)
    BlockInstance.objects.update(next_try_at=past, attempt=None)
    Job.objects.filter(pk=restored["reading"].pk).update(expires_at=past)
    before = Job.objects.count()
    all_that_may_happen()
    assert Job.objects.count() == before
    assert state_of(restored["reading"]) == "queued"
    assert Block.objects.get().is_wanted
    assert set(people.engine.steps) == {"read_back"}


def test_while_paused_no_job_is_taken_and_waiting_ones_can_be_cancelled(people: Cast, restored: dict[str, Job]) -> None:
    all_that_may_happen()
    with pytest.raises(Unavailable, match="paused") as caught:
        ask(people.alice, "queue.list")
    assert caught.value.code == "paused"
    cancel.cancel(people.alice, restored["reading"])
    assert state_of(restored["reading"]) == "cancelled"


def test_what_was_found_is_told(restored: dict[str, Job], capsys: pytest.CaptureFixture[str]) -> None:
    all_that_may_happen()
    found = Pause.objects.get().found
    assert found["jobs"] == {"planning": 1, "queued": 3, "running": 1}
    assert (found["runs_waiting"], found["runs_dispatched"]) == (2, 1)
    assert (found["blocks_wanted"], found["blocks_behind"]) == (1, 1)
    entry = AuditEvent.objects.get(action="service.paused")
    assert entry.data["found"] == found
    assert any("chain acme" in each for each in entry.data["lost"])
    call_command("resume")
    said = capsys.readouterr().out
    assert "3 queued" in said
    assert "chain acme: entry" in said


def test_the_gap_is_acknowledged_before_the_service_goes_on(people: Cast, restored: dict[str, Job]) -> None:
    all_that_may_happen()
    with pytest.raises(CommandError, match="acknowledge the gap first"):
        call_command("resume", reason="looks fine")
    with pytest.raises(CommandError, match=r"chain acme: entry .* acknowledge the gap"):
        call_command("audit_verify")
    call_command("audit_acknowledge_gap", reason="restored from the backup of 12:00")
    call_command("resume", reason="compared with the hosts")
    assert not watch.is_paused()
    entry = AuditEvent.objects.get(action="service.resumed")
    assert entry.data["reason"] == "compared with the hosts"
    all_that_may_happen()
    assert state_of(restored["reading"]) == "succeeded"
    assert "queue_purge" not in people.engine.steps
    call_command("audit_verify")


def test_a_restore_under_a_running_service_is_noticed_before_the_next_claim(people: Cast, tmp_path: Path) -> None:
    (job,) = planned(people, "mx1/postfix")
    restore = backup(tmp_path)
    people.engine.results["mx1/postfix"] = changed(MESSAGES)
    assert work(job).state == "succeeded"
    people.engine.steps.clear()
    restore()
    assert work(job).state == "queued"
    assert people.engine.steps == []
    assert pause.is_on()


def test_an_intent_is_remembered_before_anything_is_sent(people: Cast) -> None:
    seen: list[bool] = []

    def at_the_host(place: str, phase: str) -> None:
        if phase == "applied":
            entry = AuditEvent.objects.get(action="run.dispatched")
            known = marks.read() or {}
            seen.append(known[entry.chain].seq >= entry.seq)

    people.engine.before = at_the_host
    work(*planned(people, "mx1/postfix"))
    assert seen == [True]


def test_only_a_paused_service_is_let_go_and_with_a_reason(people: Cast) -> None:
    job = purge(people, "mx1/postfix", MANY)
    assert work(job).state == "awaiting_approval"
    with pytest.raises(Clash, match="not paused"):
        resume.end(None, "why not")
    assert state_of(job) == "awaiting_approval"
    with pytest.raises(CommandError, match="say why"):
        call_command("resume", reason=" ")


def test_an_older_backup_of_a_paused_service_pauses_again(restored: dict[str, Job], tmp_path: Path) -> None:
    restore = backup(tmp_path)
    all_that_may_happen()
    assert pause.is_on()
    restore()
    assert not pause.is_on(), "the backup knows of no pause"
    assert watch.is_paused()
