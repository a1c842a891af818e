"""What happens to a job is told once it is committed, and telling it never harms it."""

from typing import Any
from uuid import UUID

import pytest
from django.db import transaction

from jobs import news
from jobs.lifecycle import transition
from jobs.lifecycle.cancel import cancel
from jobs.models import Job, JobEvent
from jobs.rules.state import JobState
from tests.db.fleet import Cast, ask, work


@pytest.fixture
def told(monkeypatch: pytest.MonkeyPatch) -> list[UUID]:
    found: list[UUID] = []
    monkeypatch.setattr(news, "publish", found.append)
    return found


def test_each_step_of_a_job_is_told_after_its_commit(
    people: Cast, told: list[UUID], django_capture_on_commit_callbacks: Any
) -> None:
    for step in (lambda job: work(job), lambda job: cancel(people.alice, job)):
        with django_capture_on_commit_callbacks(execute=True):
            job = ask(people.alice, "queue.list")
            assert not told
        assert set(told) == {job.pk}
        told.clear()
        events = JobEvent.objects.count()
        with django_capture_on_commit_callbacks(execute=True):
            step(job)
            assert JobEvent.objects.count() > events
            assert not told
        assert set(told) == {job.pk}
        told.clear()


def test_what_was_rolled_back_is_not_told(people: Cast, told: list[UUID], transactional_db: None) -> None:
    job = ask(people.alice, "queue.list")
    told.clear()
    with transaction.atomic():
        assert transition.move(job, JobState.RUNNING)
        transaction.set_rollback(True)
    assert told == []


def test_news_that_cannot_be_told_leave_the_work_done(
    people: Cast, monkeypatch: pytest.MonkeyPatch, django_capture_on_commit_callbacks: Any
) -> None:
    def fail(job: UUID) -> None:
        raise MemoryError

    monkeypatch.setattr(news, "publish", fail)
    job = ask(people.alice, "queue.list")
    with django_capture_on_commit_callbacks(execute=True):
        work(job)
    assert Job.objects.get().state == "succeeded"
