"""What all runs of a job came to, in one answer: merged, with what did not answer, and as text."""

from typing import Any

import pytest
from django.conf import settings
from django.db import connection
from django.test.utils import CaptureQueriesContext
from django.utils import timezone

from fleet.models import Host, Instance
from jobs.jsonvalues import readable
from jobs.lifecycle import retention
from jobs.models import Block, BlockInstance, Job, Run
from jobs.queues import queue_name
from jobs.worker import liveness
from tests.http.cast import World
from tests.http.test_document import component
from tests.http.test_errors import refused
from tests.http.test_jobs import PURGE, SUMMARY, ended, planned

ALL = {"customers": ["acme"]}
NOW = 1_700_000_000.5
COUNTED = {
    "total": {"count": 5, "bytes": 500, "oldest_at": NOW - 3600},
    "groups": {"from-domain": [{"value": "a.b", "count": 5, "bytes": 500, "oldest_at": NOW - 3600, "ages": {"5": 5}}]},
    "ages": {"5": 5}, "taken_at": NOW, "refused": 0, "notes": ["a note"],
}  # fmt: skip
ENTRY = {
    "queue_id": "3F5A", "state": "deferred", "native_state": "deferred", "arrival_time": NOW, "sender": "a@b.c",
    "recipients": [{"address": "c@d.e", "reason": "451 4.7.1 later", "state": "undelivered"}], "size": 100,
    "attempts": None, "next_attempt": None,
}  # fmt: skip
LISTED = {"entries": [ENTRY], "total": 9, "matched": 1, "truncated": False, "taken_at": NOW, "refused": 0, "notes": []}
READ = {"files": ["/var/log/mail.log"], "read": [], "notes": [], "since": NOW - 60, "until": NOW}
ROW = {
    "time": NOW, "arrival_time": None, "queue_id": "3F5A", "message_id": "", "size": None, "direction": "out",
    "client": "", "sender": "a@b.c", "recipient": "c@d.e", "orig_to": "", "relay": "x", "status": "sent",
    "dsn": "2.0.0", "reply": "250 ok", "delay": 1.5, "instance": "postfix",
}  # fmt: skip
TRACED = {**READ, "rows": [ROW], "totals": {"sent": 1, "deferred": 0}, "matched": 1, "truncated": False}
LINES = {**READ, "lines": [{"time": NOW, "line": "x", "file": "y"}], "matched": 1, "truncated": False}
READING = [
    ("queue.summary", {"group_by": ["from-domain"], "top": 10}, COUNTED),
    ("queue.list", {}, LISTED),
    ("message.trace", {"from": "a@b.c"}, TRACED),
    ("log.search", {"contains": "x"}, LINES),
    ("block.list", {}, {"ours": [{"pattern": "a@b.c", "action": "reject", "reply": ""}], "others": []}),
    ("smtp.probe", {"from": "<>", "to": "a@b.c"}, {"verdict": "accepted", "notes": []}),
]


CHECKED = {
    "ok": False, "scripts": "absent", "notes": [], "helpers": [],
    "checks": [{"name": "sudo", "ok": False, "detail": "x", "hint": "y", "instance": ""}],
}  # fmt: skip


def hosts(world: World, count: int) -> None:
    """So many more hosts of acme, with an instance each."""
    credential = world.mx1.credential
    rows = Host.objects.bulk_create(
        Host(customer=world.acme, name=f"nx{at:02}", address=f"nx{at}.example.com", username="x", credential=credential)
        for at in range(count)
    )
    Instance.objects.bulk_create(
        Instance(host=row, name="postfix", mta="postfix", version="3.7", config_dir="/etc/postfix") for row in rows
    )


def asked(world: World, operation: str, params: dict[str, Any], **fields: Any) -> Job:
    body = {"operation": operation, "target": ALL, "params": params, **fields}
    made = world.alice.post("jobs/", body)
    assert made.status_code == 202, made.content
    return Job.objects.get(pk=made.json()["id"])


def summary(world: World, job: Job, query: str = "") -> dict[str, Any]:
    """As alice sees it, which is as the document says."""
    answer = world.alice.get(f"jobs/{job.pk}/summary/{query}")
    assert answer.status_code == 200, answer.content
    body: dict[str, Any] = answer.json()
    component("JobSummary").validate(body)
    return body


@pytest.mark.parametrize(("operation", "params", "result"), READING)
def test_every_reading_operation_is_merged_as_the_document_says(
    world: World, operation: str, params: dict, result: dict
) -> None:
    hosts(world, 2)
    job = asked(world, operation, params)
    first, second, third = job.runs.all()
    Run.objects.filter(pk__in=[first.pk, second.pk]).update(state="succeeded", result=readable(result))
    Run.objects.filter(pk=third.pk).update(
        state="unreachable", error={"code": "unreachable", "detail": "no answer", "hint": "look", "paused_seconds": 9}
    )
    Job.objects.filter(pk=job.pk).update(state="running")
    Job.objects.filter(pk=job.pk).update(state="partly_failed", finished_at=timezone.now())
    body = summary(world, job)
    assert (body["complete"], body["kept"]) == (True, True)
    assert body["runs"] == {"succeeded": 2, "unreachable": 1}
    assert (body["result"]["instances"], body["drift"]) == (2, None)
    assert body["not_done"] == [
        {"state": "unreachable", "code": "unreachable", "hint": "look", "count": 1, "instances": [str(third.instance)]}
    ]
    assert f"✗ unreachable: {third.instance}" in body["text"].split("\n")
    body["result"]["undeclared"] = 1
    assert not component("JobSummary").is_valid(body)


def test_what_hosts_lack_is_told_in_one_answer(world: World) -> None:
    job = asked(world, "host.check", {})
    job.runs.update(state="succeeded", result=readable(CHECKED))
    Job.objects.filter(pk=job.pk).update(state="running")
    body = summary(world, job)
    assert [(each["value"], each["count"]) for each in body["result"]["outcomes"]] == [("sudo amiss", 1)]
    assert body["text"].endswith("Answered by 1 host\nSudo amiss: mx1")


def test_a_host_that_no_worker_serves_is_named_while_it_is_waited_for(world: World) -> None:
    Host.objects.filter(name="mx1").update(site="fra")
    for shard in range(settings.ENV.shards):
        liveness.renew(f"ssh-{shard}@here", queue_name(settings.ENV.site, shard))
    job = asked(world, "queue.list", {})
    told = "No worker serves mx1 now; who runs mxfleet sees in readyz which."
    body = summary(world, job)
    assert body["not_done"][0]["hint"] == told
    assert told in body["text"].split("\n")
    for shard in range(settings.ENV.shards):
        liveness.renew(f"ssh-fra-{shard}@here", queue_name("fra", shard))
    body = summary(world, job)
    assert body["not_done"][0]["hint"] == ""


def test_an_undo_names_the_sender_that_it_lets_in_again(world: World) -> None:
    blocked = asked(world, "sender.block", {"pattern": "a@b.c"}, reason="x")
    job = asked(world, "host.check", {})
    Job.objects.filter(pk=job.pk).update(operation="sender.unblock", undo_of=blocked)
    assert "unblock a@b.c" in summary(world, job)["text"]


def test_rows_have_their_instance_and_are_as_many_as_asked(world: World) -> None:
    hosts(world, 1)
    job = asked(world, "queue.list", {})
    older = {**LISTED, "entries": [{**ENTRY, "arrival_time": NOW - 9}]}
    for run, result in zip(job.runs.all(), (LISTED, older), strict=True):
        Run.objects.filter(pk=run.pk).update(state="succeeded", result=readable(result))
    names = [str(run.instance) for run in job.runs.all()]
    result = summary(world, job)["result"]
    assert [entry["instance"] for entry in result["entries"]] == names[::-1]
    assert (result["matched"], result["total"], result["truncated"]) == (2, 18, False)
    one = summary(world, job, "?limit=1")["result"]
    assert ([entry["instance"] for entry in one["entries"]], one["truncated"]) == ([names[1]], True)


def test_a_job_that_goes_on_tells_what_is_known(world: World) -> None:
    hosts(world, 1)
    job = asked(world, "queue.summary", {})
    none = summary(world, job)
    assert (none["complete"], none["result"]["instances"]) == (False, 0)
    run = job.runs.all()[0]
    Run.objects.filter(pk=run.pk).update(state="succeeded", result=readable(COUNTED))
    answer = world.alice.get(f"jobs/{job.pk}/summary/")
    body = answer.json()
    assert (body["complete"], answer.headers["Retry-After"]) == (False, "1")
    assert body["result"]["total"]["count"] == 5
    assert body["text"].split("\n")[0] == "Queued: 1 of 2 instances so far"
    assert body["not_done"][0]["state"] == "pending"


def test_a_plan_tells_what_would_be(world: World) -> None:
    job = planned(world, dry_run=True)
    body = summary(world, job)
    assert (body["result"]["planned"], body["result"]["open"], body["result"]["asked"]) == (3, 3, 0)
    assert body["notes"] == [{"text": SUMMARY["notes"][0], "count": 1, "instances": ["mx1/postfix"]}]
    assert "Would purge 3 messages (300 bytes) to quarantine · 30 % of the queue of mx1/postfix" in body["text"]


def test_a_change_is_summed_and_what_is_unknown_is_said_first(world: World) -> None:
    job = planned(world)
    Run.objects.filter(job=job).update(state="unknown", error={"code": "timeout", "detail": "cut", "hint": ""})
    Job.objects.filter(pk=job.pk).update(state="queued")
    Job.objects.filter(pk=job.pk).update(state="running", expires_at=None)
    body = summary(world, job)
    assert (body["result"]["unknown"], body["result"]["planned"]) == (3, 3)
    assert body["text"].startswith("? unknown what was done on 1 instance: mx1/postfix.")
    Job.objects.filter(pk=job.pk).update(state="failed", finished_at=timezone.now())
    assert summary(world, job)["complete"] is False
    result = {"asked": 3, "done": 2, "already_gone": 1, "left_queue": 0, "in_delivery": 0, "left": 0}
    Run.objects.filter(job=job).update(state="succeeded", error=None, result=result)
    body = summary(world, job)
    assert (body["complete"], body["result"]["done"], body["result"]["customers"][0]["customer"]) == (True, 2, "acme")
    assert body["text"].startswith("Purged 2 of 3 messages to quarantine on 1 instance · 1 gone by itself")


def test_a_plan_that_waits_says_for_whom(world: World) -> None:
    job = planned(world)
    assert (summary(world, job)["awaits"], summary(world, job)["complete"]) == ("approval", False)
    Job.objects.filter(pk=job.pk).update(confirm=True)
    body = summary(world, job)
    assert body["awaits"] == "confirmation"
    assert body["text"].startswith("Nothing is done yet: the plan for 1 instance waits for confirmation")


def test_a_comparison_with_the_plan_is_summed(world: World) -> None:
    job = planned(world)
    look = Job.objects.get(pk=world.alice.post(f"jobs/{job.pk}/drift/").json()["id"])
    samples: dict[str, Any] = {"gone": [], "new": [], "changed": []}
    result = {"planned": 3, "gone": 1, "new": 0, "changed": 0, "files_changed": False, "samples": samples}
    Run.objects.filter(job=look).update(state="succeeded", result=result)
    body = summary(world, look)
    assert (body["drift"]["gone"], body["drift"]["named"], body["result"]) == (1, ["mx1/postfix"], None)
    [run] = world.alice.get(f"jobs/{look.pk}/runs/").json()["results"]
    assert (run["drift"], run["result"]) == (result, None)
    component("QueuePurgeRun").validate(run)


def test_a_block_is_told_as_it_stands_on_each_instance(world: World) -> None:
    hosts(world, 1)
    job = asked(world, "sender.block", {"pattern": "a@b.c", "for": "1h"}, reason="x")
    block = Block.objects.create(
        pattern="a@b.c", action="reject", text="no", target=ALL, reason="x", owner=world.people["alice"], job=job,
        created_at=timezone.now(),
    )  # fmt: skip
    block.customers.add(world.acme)
    done, down = job.runs.all()
    for run, state in ((done, "applied"), (down, "pending")):
        BlockInstance.objects.create(block=block, instance=run.instance, state=state, changed_at=timezone.now())
    result = {"pattern": "a@b.c", "map": "hash:/x", "keys": ["a@b.c"]}
    Run.objects.filter(pk=done.pk).update(state="succeeded", result=result)
    Run.objects.filter(pk=down.pk).update(state="unreachable", error={"code": "unreachable", "detail": "", "hint": ""})
    body = summary(world, job)
    assert body["result"]["states"] == {"applied": 1, "pending": 1}
    told = {each["instance"]: (each["run"], each["state"]) for each in body["result"]["instances"]}
    assert told == {str(done.instance): ("succeeded", "applied"), str(down.instance): ("unreachable", "pending")}


def test_an_old_job_tells_what_is_kept_of_it(world: World) -> None:
    job = planned(world)
    ended(job, done=3)
    Job.objects.filter(pk=job.pk).update(finished_at=timezone.now() - timezone.timedelta(days=91))
    retention.apply()
    body = summary(world, job)
    assert (body["kept"], body["result"], body["runs"]) == (False, None, {"succeeded": 1})
    assert body["text"] == "Purge messages to quarantine: succeeded; the results are kept no longer"


def test_it_has_an_etag_and_a_head(world: World) -> None:
    job = asked(world, "queue.summary", {})
    path = f"jobs/{job.pk}/summary/"
    answer = world.alice.get(path)
    tag = answer.headers["ETag"]
    same = world.alice.get(path, If_None_Match=tag)
    assert (same.status_code, same.content) == (304, b"")
    head = world.alice.send("HEAD", path)
    assert (head.status_code, head.headers["ETag"], head.content) == (200, tag, b"")
    Run.objects.filter(job=job).update(state="succeeded", result=readable(COUNTED))
    assert world.alice.get(path, If_None_Match=tag).status_code == 200


@pytest.mark.parametrize(
    ("query", "status", "code"),
    [
        ("?limit=0", 422, "invalid"),
        ("?limit=1001", 422, "invalid"),
        ("?limit=x", 422, "invalid"),
        ("?cursor=x", 400, "unknown_parameter"),
        ("?limit=1&limit=2", 400, "unknown_parameter"),
    ],
)
def test_its_query_is_strict(world: World, query: str, status: int, code: str) -> None:
    job = asked(world, "queue.summary", {})
    refused(world.alice.get(f"jobs/{job.pk}/summary/{query}"), status, code)


def test_it_takes_as_many_statements_for_many_runs_as_for_one(world: World) -> None:
    def statements(job: Job) -> int:
        Run.objects.filter(job=job).update(state="succeeded", result=readable(LISTED))
        with CaptureQueriesContext(connection) as found:
            assert summary(world, job)["result"]["instances"] == job.runs.count()
        return len(found)

    few = statements(asked(world, "queue.list", {}))
    hosts(world, 40)
    assert statements(asked(world, "queue.list", {})) == few <= 12


def test_a_job_leads_to_its_summary(world: World) -> None:
    made = world.alice.post("jobs/", PURGE).json()
    assert world.alice.get(made["links"]["summary"]).json()["job"] == made["id"]
