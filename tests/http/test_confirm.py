"""Confirm, drift, start_after and group over HTTP."""

import threading
from datetime import timedelta
from typing import Any

import pytest
from django.db import connection
from django.utils import timezone

from jobs.models import AuditEvent, Job
from tests.http.cast import Caller, World, build_world
from tests.http.test_errors import JOB, refused
from tests.http.test_jobs import DIGEST, PURGE, planned, succeed

SEEN = {"digest": DIGEST}
OTHER = {"digest": "sha256:" + "b" * 64}


def shown(world: World, **fields: Any) -> Job:
    """A purge by alice whose plan is frozen, and that awaits her confirmation and one approval, unless none."""
    return planned(world, confirm=True, **fields)


def ahead(**by: float) -> str:
    return (timezone.now() + timedelta(**by)).isoformat()


def test_a_job_says_that_it_awaits_its_requesters_confirmation(world: World) -> None:
    made = world.alice.post("jobs/", PURGE | {"confirm": True}).json()
    assert (made["confirm"], made["approval"]) == (True, None)
    Job.objects.all().delete()
    job = shown(world)
    Job.objects.filter(pk=job.pk).update(approvals_needed=0, rule="")
    approval = world.alice.get(f"jobs/{job.pk}/").json()["approval"]
    assert (approval["confirmed"], approval["needed"], approval["decisions"]) == (False, 0, [])
    assert approval["deadline"] is not None


def test_one_that_nobody_wanted_to_see_first_counts_as_confirmed(world: World) -> None:
    body = world.alice.get(f"jobs/{planned(world).pk}/").json()
    assert (body["confirm"], body["approval"]["confirmed"]) == (False, True)


def test_its_requester_confirms_and_then_others_decide(world: World) -> None:
    path = f"jobs/{shown(world).pk}/"
    refused(world.bob.post(path + "approve/", SEEN), 409, "not_confirmed")
    refused(world.bob.post(path + "reject/", SEEN | {"comment": "no"}), 409, "not_confirmed")
    for other in (world.bob, world.dana, world.anna):
        refused(other.post(path + "confirm/", SEEN), 403, "forbidden")
    refused(world.charlie.post(path + "confirm/", SEEN), 404, "not_found")
    refused(world.alice.post(path + "confirm/", OTHER), 409, "plan_changed")
    refused(world.alice.post(path + "confirm/", {}), 422, "invalid")
    answer = world.alice.post(path + "confirm/", SEEN)
    body = answer.json()
    assert (answer.status_code, body["state"], body["approval"]["confirmed"]) == (200, "awaiting_approval", True)
    refused(world.alice.post(path + "confirm/", SEEN), 409, "not_awaiting_confirmation")
    assert world.bob.post(path + "approve/", SEEN).json()["state"] == "queued"


def test_what_no_rule_asks_about_is_queued_by_the_confirmation(world: World, wakeups: list[tuple[str, str]]) -> None:
    job = shown(world)
    Job.objects.filter(pk=job.pk).update(approvals_needed=0)
    body = world.alice.post(f"jobs/{job.pk}/confirm/", SEEN).json()
    assert (body["state"], body["approval"]["confirmed"], body["approval"]["deadline"]) == ("queued", True, None)


def test_who_lost_the_role_or_has_a_narrow_token_confirms_nothing(world: World) -> None:
    path = f"jobs/{shown(world).pk}/confirm/"
    refused(world.token("alice", scopes=["jobs:read", "jobs:approve"]).post(path, SEEN), 403, "forbidden")
    world.people["alice"].roles.update(role="viewer")
    refused(world.alice.post(path, SEEN), 403, "forbidden")
    world.people["alice"].roles.all().delete()
    refused(world.alice.post(path, SEEN), 404, "not_found")
    assert not AuditEvent.objects.filter(action="job.confirmed").exists()


def test_a_confirmation_is_repeated_without_harm(world: World) -> None:
    path = f"jobs/{shown(world).pk}/confirm/"
    first = world.alice.post(path, SEEN, Idempotency_Key="1")
    again = world.alice.post(path, SEEN, Idempotency_Key="1")
    assert (again.status_code, again.json()) == (200, first.json())
    assert again.headers["Idempotency-Replayed"] == "true"
    refused(world.alice.post(path, OTHER, Idempotency_Key="1"), 422, "idempotency_key_reused")
    assert AuditEvent.objects.filter(action="job.confirmed").count() == 1


def test_a_refused_confirmation_does_not_use_its_key_up(world: World) -> None:
    path = f"jobs/{shown(world).pk}/confirm/"
    refused(world.alice.post(path, OTHER, Idempotency_Key="1"), 409, "plan_changed")
    assert world.alice.post(path, SEEN, Idempotency_Key="1").status_code == 200


@pytest.mark.django_db(transaction=True)
def test_of_two_confirmations_at_once_one_counts(monkeypatch: pytest.MonkeyPatch) -> None:
    world = build_world()
    path = f"jobs/{shown(world).pk}/confirm/"
    told: list[tuple[int, str]] = []

    def confirm() -> None:
        answer = Caller(world.alice.token).post(path, SEEN)
        told.append((answer.status_code, answer.json().get("code", "")))
        connection.close()

    threads = [threading.Thread(target=confirm) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    assert sorted(told) == [(200, ""), *[(409, "not_awaiting_confirmation")] * 3]
    assert AuditEvent.objects.filter(action="job.confirmed").count() == 1


@pytest.mark.parametrize("body", [JOB | {"confirm": True}, PURGE | {"confirm": True, "dry_run": True}])
def test_what_changes_nothing_is_not_confirmed(world: World, body: dict[str, Any]) -> None:
    problem = refused(world.alice.post("jobs/", body), 422, "invalid")
    assert [error["field"] for error in problem["errors"]] == ["confirm"]


def test_undo_and_retry_take_it(world: World) -> None:
    job = planned(world)
    job.runs.update(state="failed", finished_at=timezone.now())
    succeed(job)
    made = world.alice.post(f"jobs/{job.pk}/retry/", {"confirm": True})
    assert (made.status_code, made.json()["confirm"]) == (202, True)
    assert world.alice.post(f"jobs/{job.pk}/retry/", {}).json()["confirm"] is False
    refused(world.alice.post(f"jobs/{job.pk}/retry/", {"confirm": "yes"}), 422, "invalid")
    refused(world.alice.post(f"jobs/{job.pk}/undo/", {"reason": "no", "confirm": True}), 409, "not_undoable")
    reading = Job.objects.get(pk=world.alice.post("jobs/", JOB).json()["id"])
    problem = refused(world.alice.post(f"jobs/{reading.pk}/retry/", {"confirm": True}), 422, "invalid")
    assert [error["field"] for error in problem["errors"]] == ["confirm"]


def test_the_queues_are_looked_at_again_by_a_job_of_its_own(world: World) -> None:
    job = planned(world)
    for caller in (world.bob, world.erin, world.alice):
        answer = caller.post(f"jobs/{job.pk}/drift/", {}, Idempotency_Key="1")
        made = answer.json()
        assert (answer.status_code, made["drift_of"], made["dry_run"]) == (202, str(job.pk), True)
        assert answer.headers["Location"].endswith(f"/jobs/{made['id']}/")
        assert (made["operation"], made["target"]) == ("queue.purge", {"instances": ["mx1/postfix"]})
        assert caller.post(f"jobs/{job.pk}/drift/", {}, Idempotency_Key="1").json()["id"] == made["id"]
    refused(world.charlie.post(f"jobs/{job.pk}/drift/", {}), 404, "not_found")
    refused(world.bob.post(f"jobs/{job.pk}/drift/", {"digest": DIGEST}), 422, "invalid")
    refused(world.bob.post(f"jobs/{made['id']}/drift/", {}), 404, "no_plan")
    refused(world.token("bob", scopes=["jobs:read"]).post(f"jobs/{job.pk}/drift/", {}), 403, "forbidden")
    succeed(job)
    refused(world.bob.post(f"jobs/{job.pk}/drift/", {}), 409, "conflict")


def test_a_job_that_is_put_off_says_until_when(world: World) -> None:
    moment = ahead(days=6, hours=23)
    made = world.alice.post("jobs/", PURGE | {"start_after": moment}).json()
    assert made["start_after"] == moment.replace("+00:00", "Z")
    assert world.alice.post("jobs/", JOB | {"start_after": moment}).json()["state"] == "queued"
    assert world.alice.post("jobs/", JOB).json()["start_after"] is None


@pytest.mark.parametrize(
    "value",
    [
        pytest.param(ahead(days=8), id="in 8 days"),
        pytest.param(ahead(seconds=-5), id="over"),
        "tomorrow",
        "2026-12-01T10:00:00",
        5,
        None,
    ],
)
def test_a_time_that_is_none_or_over_or_too_far_away_is_422(world: World, value: Any) -> None:
    problem = refused(world.alice.post("jobs/", PURGE | {"start_after": value}), 422, "invalid")
    assert [error["field"] for error in problem["errors"]] == ["start_after"]
    assert not Job.objects.exists()


def test_jobs_of_a_group_are_found_together(world: World) -> None:
    made = [world.alice.post("jobs/", PURGE | {"group": group}).json() for group in ("loop", "loop", "other", "")]
    assert [body["group"] for body in made] == ["loop", "loop", "other", ""]
    found = world.bob.get("jobs/?group=loop").json()["results"]
    assert [row["id"] for row in found] == [made[1]["id"], made[0]["id"]]
    assert world.charlie.get("jobs/?group=loop").json()["results"] == []
    for wrong in ("x" * 101, 5, None, "a\0b", "a\nb", "a\x1b[2Jb", "a\u202eb"):
        problem = refused(world.alice.post("jobs/", PURGE | {"group": wrong}), 422, "invalid")
        assert [error["field"] for error in problem["errors"]] == ["group"]
