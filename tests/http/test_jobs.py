"""Jobs over HTTP: asking, looking, deciding, stopping, putting back."""

from itertools import chain
from typing import Any

import pytest
from django.utils import timezone

from api import pagination
from api.v1.serializers.jobs import JobSerializer, RunSerializer
from fleet.mta.results.changing import MessageCounts
from jobs.lifecycle import retention
from jobs.models import Approval, AuditEvent, Job, Message, QuarantineItem, Run
from tests.http.cast import Caller, World
from tests.http.test_errors import JOB, refused

DIGEST = "sha256:" + "a" * 64
PURGE = {
    "operation": "queue.purge",
    "target": {"instances": ["mx1/postfix"]},
    "params": {"match": "from:newsletter@sillyplace.com size>30M"},
    "reason": "34 MB newsletter loop",
    "ticket": "OPS-123",
}
SUMMARY = {
    "counts": {"messages": 3, "bytes": 300},
    "queue_total": 10,
    "sample": [],
    "diffs": [],
    "commands": [["postsuper", "-h", "-"]],
    "notes": ["quarantine keeps the inode rule"],
    "wiring": False,
    "foreign_holds": 0,
    "drift": {"gone": 0, "new": 0},
}


def planned(world: World, messages: int = 3, by: Caller | None = None, **fields: Any) -> Job:
    """A purge, by alice unless somebody else is named, that awaits one approval."""
    made = (by or world.alice).post("jobs/", {**PURGE, **fields})
    assert made.status_code == 202, made.content
    job = Job.objects.get(pk=made.json()["id"])
    run = job.runs.get()
    Message.objects.bulk_create(
        Message(
            run=run, queue_id=f"3F5A{n:04}", arrival_time=1_700_000_000.5, sender="a@b.c", size=100, state="deferred"
        )
        for n in range(messages)
    )
    Run.objects.filter(pk=run.pk).update(plan=SUMMARY, is_planning=False)
    now = timezone.now()
    Job.objects.filter(pk=job.pk).update(
        state="awaiting_approval",
        digest=DIGEST,
        frozen_at=now,
        planned_messages=messages,
        approvals_needed=1,
        rule="purge of more than 100 messages",
        expires_at=now + timezone.timedelta(hours=1),
    )
    job.refresh_from_db()
    return job


def succeed(job: Job) -> None:
    """By the moves that a job may make."""
    if Job.objects.get(pk=job.pk).state == "awaiting_approval":
        Job.objects.filter(pk=job.pk).update(state="queued")
    Job.objects.filter(pk=job.pk).update(state="running", expires_at=None)
    Job.objects.filter(pk=job.pk).update(state="succeeded", finished_at=timezone.now())


def ended(job: Job, **outcome: int) -> None:
    """The job ended; its messages had these outcomes."""
    run = job.runs.get()
    none = dict.fromkeys(MessageCounts.__annotations__, 0)
    result = {"asked": 3, **none, **outcome}
    Run.objects.filter(pk=run.pk).update(state="succeeded", result=result, finished_at=timezone.now())
    Message.objects.filter(run=run).update(outcome="done")
    succeed(job)


def test_a_job_is_taken_at_once_and_rung_for(
    world: World, wakeups: list[tuple[str, str]], django_capture_on_commit_callbacks: Any
) -> None:
    with django_capture_on_commit_callbacks(execute=True):
        answer = world.alice.post("jobs/", PURGE)
    body = answer.json()
    assert answer.status_code == 202
    assert answer.headers["Location"] == f"http://testserver/api/v1/jobs/{body['id']}/"
    assert answer.headers["Retry-After"] == "1"
    assert set(body) == set(JobSerializer().fields)
    assert (body["state"], body["requested_by"], body["channel"]) == ("planning", "alice", "api")
    assert (body["customers"], body["ticket"], body["plan"], body["approval"]) == (["acme"], "OPS-123", None, None)
    assert body["counts"] == {"runs": {"pending": 1}, "messages": 0, "left_queue": 0}
    assert [lane for _, lane in wakeups] == ["change"]
    assert AuditEvent.objects.get(action="job.submitted").actor == "alice"


@pytest.mark.parametrize("body", [JOB, PURGE, PURGE | {"dry_run": True, "approval_ttl": "15m"}])
def test_a_new_job_is_told_as_it_is_read_later(world: World, body: dict) -> None:
    made = world.alice.post("jobs/", body).json()
    assert world.alice.get(f"jobs/{made['id']}/").json() == made


@pytest.mark.parametrize(
    ("change", "code", "field"),
    [
        ({"target": {"hosts": ["mx7"]}}, "unknown_target", "target.hosts[0]"),
        ({"target": {"hosts": ["mx1", "bx1"]}}, "unknown_target", "target.hosts[1]"),
        ({"target": {"customers": ["beta"]}}, "unknown_target", "target.customers[0]"),
        ({"target": {"labels": {"role": ["none"]}}}, "unknown_target", "target.labels.role[0]"),
        ({"params": {"match": "from:("}}, "bad_pattern", "params.match"),
        ({"params": {"queue_ids": ["ALL"]}}, "bad_queue_id", "params.queue_ids[0]"),
        ({"params": {"queue_ids": ["-"]}}, "bad_queue_id", "params.queue_ids[0]"),
        ({"params": {"queue_ids": ["../../etc/passwd"]}}, "bad_queue_id", "params.queue_ids[0]"),
        ({"params": {"match": "from:*"}}, "matches_all", "params.match"),
        ({"params": {"match": "ALL", "force": True}}, "invalid", "params.force"),
        ({"params": {}}, "invalid", "params.match"),
        ({"reason": ""}, "invalid", "reason"),
        ({"approval_ttl": "9999d"}, "invalid", "approval_ttl"),
    ],
)
def test_what_cannot_be_asked_is_422_with_its_place(world: World, change: dict, code: str, field: str) -> None:
    body = refused(world.alice.post("jobs/", PURGE | change), 422, code)
    assert field in {error["field"] for error in body["errors"]}
    assert Job.objects.count() == 0


@pytest.mark.parametrize("field", ["approval_ttl", "confirm", "dry_run"])
def test_what_says_something_of_a_plan_is_refused_where_there_is_none(world: World, field: str) -> None:
    given = {field: "15m" if field == "approval_ttl" else True}
    body = refused(world.alice.post("jobs/", JOB | given), 422, "invalid")
    assert [error["field"] for error in body["errors"]] == [field]


def test_a_target_of_switched_off_hosts_is_no_target(world: World) -> None:
    world.anna.patch("hosts/mx1/", {"enabled": False})
    refused(world.alice.post("jobs/", PURGE | {"target": {"customers": ["acme"]}}), 422, "no_target")
    refused(world.alice.post("jobs/", PURGE | {"target": {"hosts": ["mx1"]}}), 422, "disabled")


def test_jobs_are_listed_newest_first_in_pages(world: World) -> None:
    made = [world.alice.post("jobs/", JOB).json()["id"] for _ in range(7)]
    newest = made[::-1]
    page = world.bob.get("jobs/?limit=3").json()
    seen = [row["id"] for row in page["results"]]
    assert page["previous"] is None
    while page["next"]:
        page = world.bob.get(page["next"]).json()
        seen += [row["id"] for row in page["results"]]
    assert seen == newest
    back = world.bob.get(page["previous"]).json()
    assert [row["id"] for row in back["results"]] == newest[3:6]
    first = world.bob.get(back["previous"]).json()
    assert [row["id"] for row in first["results"]] == newest[:3]
    assert first["previous"] is None
    oldest = world.bob.get("jobs/?ordering=created_at&limit=2").json()
    assert [row["id"] for row in oldest["results"]] == made[:2]


@pytest.mark.parametrize("batch", [1, 2, 3, 101])
def test_a_page_read_in_batchs_is_the_same(world: World, monkeypatch: pytest.MonkeyPatch, batch: int) -> None:
    made = [world.alice.post("jobs/", JOB).json()["id"] for _ in range(7)]
    monkeypatch.setattr(pagination, "BATCH", batch)
    for limit in (1, 2, 3, 6, 7, 8):
        assert [len(page) for page in pages(world.bob, f"jobs/?limit={limit}")] == sizes(7, limit), limit
        assert [*chain(*pages(world.bob, f"jobs/?limit={limit}&ordering=created_at"))] == made, limit


def test_a_page_of_large_jobs_ends_before_its_limit(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    long = PURGE | {"params": {"queue_ids": [f"{number:012X}" for number in range(0x3F0000000000, 0x3F0000000100)]}}
    made = [world.alice.post("jobs/", each).json()["id"] for each in (JOB, long, long, long, JOB, JOB)]
    monkeypatch.setattr(pagination, "HEAVY", 6000)
    there = pages(world.bob, "jobs/")
    assert [len(page) for page in there] == [4, 2]
    assert [*chain(*there)] == made[::-1]
    back = world.bob.get(world.bob.get(world.bob.get("jobs/").json()["next"]).json()["previous"]).json()
    assert [row["id"] for row in back["results"]] == made[::-1][2:4]
    first = world.bob.get(back["previous"]).json()
    assert ([row["id"] for row in first["results"]], first["previous"]) == (made[::-1][:2], None)


def pages(caller: Caller, path: str) -> list[list[str]]:
    """The ids of each page, from the first one on."""
    page = caller.get(path).json()
    found = [page]
    while page["next"]:
        page = caller.get(page["next"]).json()
        found.append(page)
    return [[row["id"] for row in each["results"]] for each in found]


def sizes(rows: int, limit: int) -> list[int]:
    """How many of them are on each page."""
    return [min(limit, rows - start) for start in range(0, rows, limit)]


def test_a_cursor_is_good_only_for_its_list_and_ordering(world: World) -> None:
    for _ in range(2):
        world.alice.post("jobs/", JOB)
    following = world.alice.get("jobs/?limit=1").json()["next"]
    refused(world.alice.get(f"{following}&ordering=created_at"), 400, "bad_cursor")
    refused(world.alice.get(following.replace("/jobs/", "/audit/")), 400, "bad_cursor")


def test_jobs_are_filtered(world: World) -> None:
    listed = world.alice.post("jobs/", JOB).json()["id"]
    purged = world.alice.post("jobs/", PURGE).json()["id"]

    def ids(query: str) -> list[str]:
        return [row["id"] for row in world.dana.get(f"jobs/?{query}").json()["results"]]

    assert ids("operation=queue.list") == [listed]
    assert ids("state=planning") == [purged]
    assert ids("ticket=OPS-123") == [purged]
    assert ids("requested_by=alice") == [purged, listed]
    assert ids("requested_by=bob") == ids("customer=beta") == []
    assert ids("customer=acme&state=queued") == [listed]
    assert ids("created_after=2020-01-01T00:00:00Z") == [purged, listed]
    assert ids("created_before=2020-01-01T00:00:00%2B01:00") == []


def test_a_list_of_jobs_costs_the_same_however_long(world: World, django_assert_max_num_queries: Any) -> None:
    for _ in range(3):
        planned(world)
    for _ in range(12):
        world.alice.post("jobs/", JOB)
    with django_assert_max_num_queries(10):
        assert len(world.alice.get("jobs/").json()["results"]) == 15


def test_taking_a_job_costs_few_statements(world: World, django_assert_max_num_queries: Any) -> None:
    world.alice.post("jobs/", JOB)
    with django_assert_max_num_queries(30):
        assert world.alice.post("jobs/", JOB).status_code == 202


def test_a_plan_is_shown_with_its_messages_in_pages(world: World) -> None:
    job = planned(world, messages=5)
    body = world.bob.get(f"jobs/{job.pk}/plan/?limit=2").json()
    assert body["digest"] == DIGEST
    assert body["instances"][0]["instance"] == "mx1/postfix"
    assert body["instances"][0]["counts"] == {"messages": 3, "bytes": 300}
    assert body["messages"]["results"][0] == {
        "instance": "mx1/postfix",
        "queue_id": "3F5A0000",
        "arrival_time": "2023-11-14T22:13:20.500000Z",
        "sender": "a@b.c",
        "size": 100,
    }
    more = world.bob.get(body["messages"]["next"]).json()["messages"]
    assert [row["queue_id"] for row in more["results"]] == ["3F5A0002", "3F5A0003"]
    summary = world.bob.get(f"jobs/{job.pk}/").json()
    assert summary["plan"] | {"frozen_at": ""} == {"digest": DIGEST, "messages": 5, "instances": 1, "frozen_at": ""}
    assert summary["approval"]["needed"] == 1
    assert summary["approval"]["deadline"] == summary["expires_at"]


def test_a_job_without_a_plan_says_so(world: World) -> None:
    made = world.alice.post("jobs/", PURGE).json()
    refused(world.alice.get(f"jobs/{made['id']}/plan/"), 404, "no_plan")


def test_runs_show_the_first_messages_and_where_the_others_are(world: World) -> None:
    job = planned(world, messages=130)
    ended(job, done=130)
    body = world.alice.get(f"jobs/{job.pk}/runs/").json()["results"]
    assert set(body[0]) == set(RunSerializer().fields)
    messages = body[0]["result"]["messages"]
    assert len(messages["results"]) == 100
    assert messages["results"][0] == {"queue_id": "3F5A0000", "outcome": "done", "new_id": None}
    rest = world.alice.get(messages["next"]).json()
    assert [row["queue_id"] for row in rest["results"]] == [f"3F5A{n:04}" for n in range(100, 130)]
    assert rest["next"] is None
    one = world.alice.get(f"jobs/{job.pk}/runs/{body[0]['id']}/").json()
    assert one == body[0]
    counts = {"runs": {"succeeded": 1}, "messages": 130, "left_queue": 0}
    assert world.alice.get(f"jobs/{job.pk}/").json()["counts"] == counts


def test_runs_are_filtered(world: World) -> None:
    job = planned(world)
    found = world.alice.get(f"jobs/{job.pk}/runs/?instance=mx1/postfix&host=mx1&state=pending").json()
    assert len(found["results"]) == 1
    assert world.alice.get(f"jobs/{job.pk}/runs/?state=failed").json()["results"] == []
    refused(world.alice.get(f"jobs/{job.pk}/runs/?instance=mx1"), 422, "invalid")


def test_an_approval_is_given_once_by_another_person_on_the_plan_that_was_seen(world: World) -> None:
    job = planned(world)
    decide = {"digest": DIGEST, "comment": "go"}
    refused(world.alice.post(f"jobs/{job.pk}/approve/", decide), 403, "self_approval")
    refused(world.erin.post(f"jobs/{job.pk}/approve/", decide), 403, "forbidden")
    refused(world.robot.post(f"jobs/{job.pk}/approve/", decide), 403, "forbidden")
    refused(world.bob.post(f"jobs/{job.pk}/approve/", decide | {"digest": "sha256:b"}), 409, "plan_changed")
    refused(world.bob.post(f"jobs/{job.pk}/approve/", {"comment": "go"}), 422, "invalid")
    refused(world.token("bob", scopes=["jobs:read"]).post(f"jobs/{job.pk}/approve/", decide), 403, "forbidden")
    approved = world.bob.post(f"jobs/{job.pk}/approve/", decide)
    assert approved.status_code == 200, approved.content
    assert approved.json()["state"] == "queued"
    assert [d["person"] for d in approved.json()["approval"]["decisions"]] == ["bob"]
    refused(world.bob.post(f"jobs/{job.pk}/approve/", decide), 409, "already_decided")
    refused(world.dana.post(f"jobs/{job.pk}/approve/", decide), 409, "not_awaiting_approval")
    assert Approval.objects.count() == 1


def test_a_rejection_needs_a_comment_and_ends_the_job(world: World) -> None:
    job = planned(world)
    refused(world.bob.post(f"jobs/{job.pk}/reject/", {"digest": DIGEST}), 422, "invalid")
    refused(world.bob.post(f"jobs/{job.pk}/reject/", {"digest": DIGEST, "comment": ""}), 422, "invalid")
    refused(world.bob.post(f"jobs/{job.pk}/reject/", {"digest": DIGEST, "comment": "  "}), 422, "invalid")
    body = world.bob.post(f"jobs/{job.pk}/reject/", {"digest": DIGEST, "comment": "too wide"}).json()
    assert (body["state"], body["counts"]["runs"]) == ("rejected", {"cancelled": 1})


def test_a_decision_after_the_deadline_is_409(world: World) -> None:
    job = planned(world)
    Job.objects.filter(pk=job.pk).update(expires_at=timezone.now())
    refused(world.bob.post(f"jobs/{job.pk}/approve/", {"digest": DIGEST}), 409, "expired")


def test_cancel_says_which_runs_were_stopped(world: World) -> None:
    job = planned(world)
    refused(world.bob.post(f"jobs/{job.pk}/cancel/"), 403, "forbidden")
    body = world.alice.post(f"jobs/{job.pk}/cancel/").json()
    assert body == {"cancelled": [str(job.runs.get().pk)], "in_flight": []}
    assert world.alice.get(f"jobs/{job.pk}/").json()["state"] == "cancelled"


def test_retry_and_undo_make_new_jobs(world: World) -> None:
    job = planned(world)
    refused(world.alice.post(f"jobs/{job.pk}/undo/", {"reason": "wrong list"}), 409, "not_undoable")
    refused(world.alice.post(f"jobs/{job.pk}/undo/"), 422, "invalid")
    ended(job, done=3)
    run = job.runs.get()
    QuarantineItem.objects.create(
        job=job,
        instance=world.postfix,
        queue_id="3F5A0000",
        place="x",
        arrival_time=1.0,
        sender="a@b.c",
        size=1,
        native_state="deferred",
        expires_at=timezone.now() + timezone.timedelta(days=7),
        created_at=timezone.now(),
    )
    undone = world.alice.post(f"jobs/{job.pk}/undo/", {"reason": "wrong list"})
    assert undone.status_code == 202, undone.content
    assert undone.json()["undo_of"] == str(job.pk)
    assert world.alice.get(f"jobs/{job.pk}/").json()["undone_by"] == undone.json()["id"]
    refused(world.alice.post(f"jobs/{job.pk}/retry/"), 409, "not_retryable")
    Run.objects.filter(pk=run.pk).update(state="unreachable")
    again = world.alice.post(f"jobs/{job.pk}/retry/")
    assert again.status_code == 202
    assert again.json()["retry_of"] == str(job.pk)


def test_an_old_job_tells_what_it_came_to_and_says_that_its_plan_is_kept_no_longer(
    world: World,
) -> None:
    job = planned(world, 3)
    ended(job, done=3)
    before = world.alice.get(f"jobs/{job.pk}/").json()
    Job.objects.update(finished_at=timezone.now() - timezone.timedelta(days=91))
    retention.apply()
    assert not Message.objects.exists()
    after = world.alice.get(f"jobs/{job.pk}/").json()
    assert {name for name in after if after[name] != before[name]} == {"finished_at", "links"}
    assert (after["counts"]["messages"], after["plan"]["instances"]) == (3, 1)
    assert "plan" not in after["links"]
    assert "no longer" in refused(world.alice.get(f"jobs/{job.pk}/plan/"), 404, "no_plan")["detail"]
    (run,) = world.alice.get(f"jobs/{job.pk}/runs/").json()["results"]
    assert (run["state"], run["result"], run["commands"]) == ("succeeded", None, [])
    assert run["evidence"] == {"before": None, "after": None}
