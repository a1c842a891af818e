"""What each figure counts, under which labels; how long requests took, by route and never by path."""

from datetime import timedelta

import pytest

from api import health, metrics
from api.latency import template
from deploy import settings as deployed
from fleet.models import Instance
from jobs.clock import db_now
from jobs.models import Block, BlockInstance, Job, JobState, QuarantineItem, Run, Tally
from tests.http.cast import Caller, World
from tests.http.test_errors import JOB
from tests.http.wire import ask, serving

HOLD = {"operation": "queue.hold", "params": {"match": "from:a@b.example"}, "reason": "newsletter loop"}


@pytest.fixture(autouse=True)
def fresh(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each scrape tells what is."""
    monkeypatch.setattr(health, "SCRAPED", metrics.Cached(metrics.scrape, 0))


def told() -> dict[str, float]:
    """{series: value}"""
    lines = Caller("").get("/metrics").content.decode().splitlines()
    return {name: float(value) for name, _, value in (line.rpartition(" ") for line in lines if line[0] != "#")}


def test_ends_errors_and_times_come_from_tallies_and_begin_at_zero(world: World) -> None:
    before = told()
    assert before['mxfleet_jobs_ended_total{operation="queue.purge",state="failed"}'] == 0
    assert before['mxfleet_run_errors_total{code="host_key_mismatch"}'] == 0
    assert before['mxfleet_quarantine_left_total{state="erased"}'] == 0
    job = {"kind": "job", "operation": "queue.purge", "end": "failed", "seconds": 1.5}
    for row in (job | {"within": "2"}, job | {"within": "+Inf"}, job | {"within": "", "seconds": 0.0}):
        Tally.objects.create(**row)
    Tally.objects.create(kind="job", operation="queue.purge", end="failed", within="7", count=4)  # a bound of before
    Tally.objects.create(kind="run_error", end="host_key_mismatch", count=2)
    Tally.objects.create(kind="quarantine", end="erased", count=3)
    now = told()
    assert now['mxfleet_jobs_ended_total{operation="queue.purge",state="failed"}'] == 7
    times = {le: now[f'mxfleet_job_seconds_bucket{{le="{le}",operation="queue.purge"}}'] for le in ("1", "2", "15")}
    assert times == {"1": 0, "2": 1, "15": 5}
    assert now['mxfleet_job_seconds_count{operation="queue.purge"}'] == 6
    assert now['mxfleet_job_seconds_sum{operation="queue.purge"}'] == 3.0
    assert now['mxfleet_run_errors_total{code="host_key_mismatch"}'] == 2
    assert now['mxfleet_quarantine_left_total{state="erased"}'] == 3
    assert before.keys() == now.keys()


def test_what_waits_is_told_by_lane_and_a_plan_for_people_as_an_approval(world: World) -> None:
    world.alice.post("jobs/", JOB)
    world.alice.post(
        "jobs/", {**JOB, "operation": "queue.hold", "params": {"match": "from:a@b.example"}, "reason": "r"}
    )
    assert lanes() == {"read": 1, "change": 1, "look": 0}
    assert told()["mxfleet_oldest_approval_seconds"] == 0
    asked = {"state": JobState.AWAITING_APPROVAL, "frozen_at": db_now() - timedelta(minutes=40)}
    Job.objects.filter(operation="queue.hold").update(**asked)
    Run.objects.filter(job__operation="queue.list").update(state="unknown", reconcile_at=db_now())
    assert lanes() == {"read": 0, "change": 0, "look": 1}
    now = told()
    assert 2400 <= now["mxfleet_oldest_approval_seconds"] < 2500
    assert now["mxfleet_runs_unknown"] == 1


def lanes() -> dict[str, float]:
    """How many runs wait in each lane."""
    now = told()
    return {lane: now[f'mxfleet_runs_waiting{{lane="{lane}"}}'] for lane in ("read", "change", "look")}


def test_what_its_requester_puts_off_or_has_not_confirmed_waits_for_nobody_else(world: World) -> None:
    world.alice.post("jobs/", JOB)
    hour = timedelta(hours=1)
    Job.objects.update(created_at=db_now() - 3 * hour)
    assert told()["mxfleet_oldest_waiting_job_seconds"] >= 3 * 3600
    Job.objects.update(start_after=db_now() + hour)
    assert (told()["mxfleet_oldest_waiting_job_seconds"], lanes()["read"]) == (0, 0)
    Job.objects.update(start_after=db_now() - hour)
    assert 3600 <= told()["mxfleet_oldest_waiting_job_seconds"] < 3700
    assert lanes()["read"] == 1
    world.alice.post("jobs/", JOB | HOLD | {"confirm": True})
    shown = {"state": JobState.AWAITING_APPROVAL, "frozen_at": db_now() - 2 * hour}
    Job.objects.filter(confirm=True).update(**shown)
    assert told()["mxfleet_oldest_approval_seconds"] == 0
    Job.objects.filter(confirm=True).update(confirmed_at=db_now() - hour)
    assert 3600 <= told()["mxfleet_oldest_approval_seconds"] < 3700


def test_blocks_and_quarantine_are_told_by_state(world: World) -> None:
    world.alice.post("jobs/", JOB)
    job, now, hour = Job.objects.get(), db_now(), timedelta(hours=1)
    block = Block.objects.create(
        pattern="a@b.example", action="reject", text="no", target={}, reason="r", owner=job.requested_by, job=job,
        created_at=now,
    )  # fmt: skip
    for instance, state in zip(Instance.objects.all(), ("applied", "failed"), strict=True):
        BlockInstance.objects.create(block=block, instance=instance, state=state, changed_at=now)
    for state, expires_at in (("kept", now + hour), ("kept", now - hour), ("restored", now - hour)):
        QuarantineItem.objects.create(
            job=job, instance=world.postfix, queue_id="A", place="/q", arrival_time=0, sender="", size=1,
            native_state="hold", state=state, expires_at=expires_at, created_at=now,
        )  # fmt: skip
    told_now = told()
    assert told_now['mxfleet_blocks{state="applied"}'] == told_now['mxfleet_blocks{state="failed"}'] == 1
    assert (told_now["mxfleet_quarantine_kept"], told_now["mxfleet_quarantine_overdue"]) == (2, 1)


def test_the_build_is_told(db: None) -> None:
    (line,) = (name for name in told() if name.startswith("mxfleet_build_info"))
    assert f'version="{deployed.VERSION}"' in line


@pytest.mark.parametrize(
    ("route", "told"),
    [(None, "none"), ("", "/"), ("api/v1/jobs/<uuid:pk>/runs/<uuid:run>/", "/api/v1/jobs/{pk}/runs/{run}/")],
)
def test_a_route_is_told_as_its_template(route: str | None, told: str) -> None:
    assert template(route) == told


@pytest.mark.django_db(transaction=True)
def test_requests_are_timed_by_the_template_of_their_route_whatever_their_path() -> None:
    def count(route: str, status: str) -> float:
        return told().get(f'mxfleet_http_request_seconds_count{{route="{route}",status="{status}"}}', 0.0)

    cases = {"/healthz": ("/healthz", "2xx"), "/api/v1/hosts/mx1/": ("/api/v1/hosts/{name}/", "4xx")}
    cases |= {"/nothing/17": ("none", "4xx"), "/api/v1/hosts/mx2/?a=b": ("/api/v1/hosts/{name}/", "4xx")}
    before = {case: count(*case) for case in cases.values()}
    with serving() as port:
        for path in cases:
            ask(port, f"GET {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n".encode())
        ask(port, b"GET / HTTP/1.1\r\nHost: localhost\r\nX: " + b"x" * 70_000)
    grown = {case: count(*case) - before[case] for case in cases.values()}
    assert grown == {("/healthz", "2xx"): 1, ("/api/v1/hosts/{name}/", "4xx"): 2, ("none", "4xx"): 2}
    assert not [name for name in told() if "mx1" in name or "mx2" in name or "/nothing" in name]
