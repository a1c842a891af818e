"""Requests that are repeated (Idempotency-Key), and preferences that nothing comes of; held answers: test_waiting."""

import threading
from dataclasses import replace
from typing import Any

import pytest
from django.db import connection
from django.utils import timezone

from api import idempotency
from api.models import StoredAnswer
from api.tasks import forget_answers
from jobs.models import Job
from jobs.restore import watch
from tests.http.cast import Caller, World, build_world
from tests.http.test_errors import JOB, refused
from tests.http.test_jobs import PURGE

# Idempotency-Key


def test_the_same_key_and_body_give_the_stored_answer(world: World) -> None:
    first = world.alice.post("jobs/", PURGE, Idempotency_Key="k-1")
    Job.objects.update(reason="changed meanwhile")
    second = world.alice.post("jobs/", PURGE, Idempotency_Key="k-1")
    assert Job.objects.count() == 1
    assert second.json() == first.json()
    assert (second.status_code, second.headers["Location"]) == (202, first.headers["Location"])
    assert second.headers["Idempotency-Replayed"] == "true"
    assert "Idempotency-Replayed" not in first.headers


def test_the_order_of_a_bodys_keys_does_not_matter(world: World) -> None:
    world.alice.post("jobs/", PURGE, Idempotency_Key="k-1")
    again = world.alice.post("jobs/", dict(reversed(PURGE.items())), Idempotency_Key="k-1")
    assert again.headers["Idempotency-Replayed"] == "true"


def test_a_key_used_for_another_request_is_422(world: World) -> None:
    job = world.alice.post("jobs/", PURGE, Idempotency_Key="k-1").json()
    refused(world.alice.post("jobs/", PURGE | {"ticket": "x"}, Idempotency_Key="k-1"), 422, "idempotency_key_reused")
    refused(world.alice.post(f"jobs/{job['id']}/cancel/", Idempotency_Key="k-1"), 422, "idempotency_key_reused")


def test_a_key_belongs_to_its_caller(world: World) -> None:
    mine = world.alice.post("jobs/", JOB, Idempotency_Key="k-1").json()
    other = world.bob.post("jobs/", JOB, Idempotency_Key="k-1").json()
    assert mine["id"] != other["id"]


@pytest.mark.parametrize("key", ["", "x" * 256, "a,b", "a b", "a\tb", "ü", "a\x7f"])
def test_a_malformed_key_is_400(world: World, key: str) -> None:
    refused(world.alice.post("jobs/", JOB, Idempotency_Key=key), 400, "malformed_header")


def test_a_key_of_255_visible_characters_is_taken(world: World) -> None:
    assert world.alice.post("jobs/", JOB, Idempotency_Key="~" * 255).status_code == 202


def test_a_refused_request_leaves_its_key_free(world: World) -> None:
    refused(world.alice.post("jobs/", PURGE | {"reason": ""}, Idempotency_Key="k-1"), 422, "invalid")
    assert world.alice.post("jobs/", PURGE, Idempotency_Key="k-1").status_code == 202


def test_a_request_in_flight_is_409_and_one_left_behind_is_answered(world: World) -> None:
    first = world.alice.post("jobs/", PURGE, Idempotency_Key="k-1")
    StoredAnswer.objects.update(status=None)
    refused(world.alice.post("jobs/", PURGE, Idempotency_Key="k-1"), 409, "idempotency_in_flight")
    StoredAnswer.objects.update(created_at=timezone.now() - timezone.timedelta(seconds=60))
    assert world.alice.post("jobs/", PURGE, Idempotency_Key="k-1").json() == first.json()


def test_a_key_is_forgotten_after_72_hours(world: World) -> None:
    first = world.alice.post("jobs/", PURGE, Idempotency_Key="k-1").json()
    StoredAnswer.objects.update(created_at=timezone.now() - timezone.timedelta(hours=72, seconds=1))
    assert world.alice.post("jobs/", PURGE, Idempotency_Key="k-1").json()["id"] != first["id"]


def test_a_setting_says_how_long_answers_are_kept_and_what_is_older_goes_in_small_batches(
    world: World, settings: Any, monkeypatch: pytest.MonkeyPatch, django_assert_num_queries: Any
) -> None:
    settings.ENV = replace(settings.ENV, keep=replace(settings.ENV.keep, answers=60))
    monkeypatch.setattr(idempotency, "BATCH", 2)
    for number in range(4):
        world.alice.post("jobs/", JOB, Idempotency_Key=f"k-{number}")
    StoredAnswer.objects.exclude(key="k-3").update(created_at=timezone.now() - timezone.timedelta(seconds=61))
    assert "Idempotency-Replayed" not in world.alice.post("jobs/", JOB, Idempotency_Key="k-0").headers
    assert StoredAnswer.objects.count() == 4, "a request deletes no more than its own"
    monkeypatch.setattr(watch, "is_paused", lambda: True)
    forget_answers()
    assert StoredAnswer.objects.count() == 4, "a paused service forgets nothing"
    monkeypatch.setattr(watch, "is_paused", lambda: False)
    with django_assert_num_queries(3):  # two that are old, one DELETE, and no more
        forget_answers()
    assert set(StoredAnswer.objects.values_list("key", flat=True)) == {"k-0", "k-3"}


def test_a_token_made_with_a_key_is_replayed_and_not_readable_in_the_database(world: World) -> None:
    first = world.alice.post("tokens/", {"name": "x"}, Idempotency_Key="k-1").json()
    assert world.alice.post("tokens/", {"name": "x"}, Idempotency_Key="k-1").json() == first
    assert first["token"] not in StoredAnswer.objects.get().body


def test_a_crash_after_the_job_was_made_leaves_neither(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    def crash(*_: object, **__: object) -> None:
        raise MemoryError

    monkeypatch.setattr("api.idempotency._store", crash)
    assert world.alice.post("jobs/", PURGE, Idempotency_Key="k-1").status_code == 500
    assert (Job.objects.count(), StoredAnswer.objects.count()) == (0, 0)


@pytest.mark.django_db(transaction=True)
def test_many_at_once_with_one_key_make_one_job() -> None:
    world = build_world()
    answers: list[Any] = []

    def ask() -> None:
        answers.append(Caller(world.alice.token).post("jobs/", PURGE, Idempotency_Key="k-1"))
        connection.close()

    threads = [threading.Thread(target=ask) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert {answer.status_code for answer in answers} <= {202, 409}
    assert Job.objects.count() == 1
    assert len({answer.json()["id"] for answer in answers if answer.status_code == 202}) == 1


# Prefer


@pytest.mark.parametrize("prefer", ["wait", "wait=-1", "wait=x", "wait=1.5", "wait="])
def test_a_malformed_wait_is_400(world: World, prefer: str) -> None:
    refused(world.alice.post("jobs/", JOB, Prefer=prefer), 400, "malformed_header")
    assert Job.objects.count() == 0


def test_a_server_that_cannot_hold_an_answer_gives_it_at_once(world: World) -> None:
    answer = world.alice.post("jobs/", JOB, Prefer="wait=20", Idempotency_Key="k-1")
    assert (answer.status_code, "Preference-Applied" in answer.headers) == (202, False)
    again = world.alice.post("jobs/", JOB, Prefer="wait=20", Idempotency_Key="k-1")
    assert (again.status_code, again.json()) == (202, answer.json())


def test_another_preference_is_ignored(world: World) -> None:
    assert world.alice.post("jobs/", JOB, Prefer="return=minimal").status_code == 202
