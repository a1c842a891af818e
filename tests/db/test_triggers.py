"""What the database itself refuses, whatever the code above it does."""

from collections.abc import Callable
from typing import Any

import pytest
from django.core.management import call_command
from django.db import IntegrityError, connection, transaction
from django.db.models import Model
from django.utils import timezone

from fleet.models import Credential, Customer, Host
from jobs.audit.trail import Entry, append, checkpoint
from jobs.models import Account, Approval, AuditCheckpoint, AuditEvent, Job, Run
from jobs.rules.state import JobState, may_follow
from jobs.triggers import APPEND_ONLY, triggers

pytestmark = pytest.mark.django_db


@pytest.fixture
def alice() -> Account:
    return Account.objects.create_user("alice")


@pytest.fixture
def bob() -> Account:
    return Account.objects.create_user("bob")


def new_job(requester: Account, state: str = JobState.AWAITING_APPROVAL) -> Job:
    now = timezone.now()
    return Job.objects.create(
        operation="queue.purge",
        target={},
        params={},
        state=state,
        requested_by=requester,
        digest="sha256:1",
        created_at=now,
        finished_at=now if state in JobState.final() else None,
    )


def decided(job: Job, person: Account, requester: Account | None = None, digest: str = "sha256:1") -> Approval:
    requester = requester or job.requested_by
    return Approval.objects.create(
        job=job, digest=digest, requested_by=requester, person=person, decision="approved", at=timezone.now()
    )


def refused(act: Callable[[], Any]) -> str:
    """The database's words for its refusal; what was done before goes on."""
    with pytest.raises(IntegrityError) as caught, transaction.atomic():
        act()
    return str(caught.value)


def test_after_all_migrations_every_trigger_is_there() -> None:
    query = {
        "sqlite": "SELECT name FROM sqlite_master WHERE type = 'trigger'",
        "postgresql": "SELECT tgname FROM pg_trigger WHERE NOT tgisinternal",
    }
    with connection.cursor() as cursor:
        cursor.execute(query[connection.vendor])
        assert {row[0] for row in cursor.fetchall()} == {trigger.name for trigger in triggers(connection.vendor)}


@pytest.fixture
def recorded(alice: Account, bob: Account) -> dict[str, Model]:
    append(Entry("acme", "x.done", None))
    checkpoint()
    decided(new_job(alice), bob)
    connection.check_constraints()  # PostgreSQL truncates no table that waits for deferred checks
    return {model._meta.db_table: model._default_manager.get() for model in (AuditEvent, AuditCheckpoint, Approval)}


@pytest.mark.parametrize("table", APPEND_ONLY)
def test_what_is_recorded_cannot_be_changed(recorded: dict[str, Model], table: str) -> None:
    manager = type(recorded[table])._default_manager
    for column in [column.attname for column in recorded[table]._meta.fields]:
        value = getattr(recorded[table], column)
        assert "append only" in refused(lambda column=column, value=value: manager.update(**{column: value}))


@pytest.mark.parametrize("table", APPEND_ONLY)
def test_what_is_recorded_cannot_be_deleted(recorded: dict[str, Model], table: str) -> None:
    assert "append only" in refused(recorded[table].delete)
    if connection.vendor == "postgresql":
        assert "append only" in refused(lambda: connection.cursor().execute(f"TRUNCATE {table} CASCADE"))
    assert type(recorded[table])._default_manager.count() == 1


def test_a_job_with_a_decision_cannot_be_deleted(recorded: dict[str, Model]) -> None:
    assert "'Approval.job'" in refused(Job.objects.get().delete)


@pytest.mark.parametrize("old", list(JobState))
def test_a_job_moves_in_the_database_exactly_as_the_table_of_states_allows(alice: Account, old: JobState) -> None:
    for new in set(JobState) - {old}:
        job = new_job(alice, old)
        finished_at = timezone.now() if new in JobState.final() else None
        rows = Job.objects.filter(pk=job.pk)
        if may_follow(old, new):
            assert rows.update(state=new, finished_at=finished_at) == 1
        else:
            assert "a job may not" in refused(
                lambda rows=rows, new=new, at=finished_at: rows.update(state=new, finished_at=at)
            )


def test_a_job_may_be_saved_without_a_move(alice: Account) -> None:
    job = new_job(alice, JobState.SUCCEEDED)
    job.save()


def test_a_requester_cannot_approve_their_own_job(alice: Account) -> None:
    assert "approval_never_by_requester" in refused(lambda: decided(new_job(alice), alice))


def test_a_requester_cannot_approve_their_own_job_under_another_requester_s_name(alice: Account, bob: Account) -> None:
    job = new_job(alice)
    assert refused(lambda: decided(job, alice, requester=bob))


def test_nobody_approves_a_plan_that_the_job_does_not_have(alice: Account, bob: Account) -> None:
    job = new_job(alice)
    assert refused(lambda: decided(job, bob, digest="sha256:2"))


def test_a_person_decides_once_on_a_plan(alice: Account, bob: Account) -> None:
    job = new_job(alice)
    decided(job, bob)
    assert refused(lambda: decided(job, bob))


def test_a_run_is_attempted_at_most_three_times(alice: Account) -> None:
    customer = Customer.objects.create(slug="acme", name="Acme")
    key = Credential.objects.create(customer=customer, name="main", private_key="sealed", public_key="")
    host = Host.objects.create(name="mx1", customer=customer, address="192.0.2.1", username="ops", credential=key)
    run = Run.objects.create(job=new_job(alice), host=host, attempts=3)
    assert "run_attempts_bounded" in refused(lambda: Run.objects.filter(pk=run.pk).update(attempts=4))


@pytest.mark.django_db(transaction=True)
@pytest.mark.parametrize("time", ["first", "second"])
def test_transactional_tests_leave_nothing_recorded_behind(time: str) -> None:
    assert not AuditEvent.objects.exists(), time
    with transaction.atomic():
        append(Entry("acme", "x.done", None))
    assert "append only" in refused(AuditEvent.objects.all().delete)


@pytest.mark.django_db(transaction=True)
def test_the_migration_can_be_taken_back_and_made_again() -> None:
    with transaction.atomic():
        append(Entry("acme", "x.done", None))
    call_command("migrate", "jobs", "0001", verbosity=0)
    try:
        assert AuditEvent.objects.update(actor="mallory") == 1
    finally:
        call_command("migrate", verbosity=0)
    assert "append only" in refused(lambda: AuditEvent.objects.update(actor="mallory"))
