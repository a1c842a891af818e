"""Which queue lacks a worker; what the metrics tell, to whom, and at what cost."""

import threading
from collections.abc import Callable
from dataclasses import replace
from ipaddress import ip_network
from typing import Any

import pytest
from django.db import OperationalError
from django.utils import timezone

from api import health, metrics
from api.metrics import Cached
from fleet.models import Host, Instance, QuarantineLook
from jobs.clock import db_now
from jobs.models import Job, Run, WorkerLiveness
from jobs.worker import liveness
from tests.http.cast import Caller, World
from tests.http.test_errors import JOB, refused


@pytest.fixture(autouse=True)
def scraped(monkeypatch: pytest.MonkeyPatch) -> Cached:
    """What this process tells, not computed yet."""
    fresh = Cached(metrics.scrape, 60)
    monkeypatch.setattr("api.health.SCRAPED", fresh)
    return fresh


QUEUES = ("control", "scheduler", "ssh.0", "ssh.1")


def live(*queues: str) -> None:
    """Each of these queues has a worker that lives."""
    for queue in queues:
        liveness.renew(f"{queue.replace('.', '-')}@here", queue)


@pytest.mark.parametrize("silent", QUEUES)
def test_readyz_names_the_queue_whose_workers_are_silent_however_well_the_others_are(
    db: None, redis_url: str, silent: str
) -> None:
    live(*QUEUES)
    WorkerLiveness.objects.filter(queue=silent).update(at=timezone.now() - timezone.timedelta(seconds=31))
    body = refused(Caller("").get("/readyz"), 503, "not_ready")
    assert body["parts"] | {"worker": ""} == dict.fromkeys(body["parts"], "ok") | {"worker": ""}
    assert body["detail"] == f"worker: no worker has said for 30 seconds that it lives: {silent}"


def test_the_queues_of_a_site_are_expected_from_its_first_enabled_host_on(world: World, redis_url: str) -> None:
    live(*QUEUES)
    Host.objects.filter(name="mx1").update(site="fra1")
    detail = refused(Caller("").get("/readyz"), 503, "not_ready")["detail"]
    assert detail.endswith("that it lives: ssh.fra1.0, ssh.fra1.1")
    Host.objects.filter(name="mx1").update(enabled=False)
    assert Caller("").get("/readyz").status_code == 200


FAR = "203.0.113.7"


def test_what_is_not_ready_is_told_to_everybody_and_why_to_those_only_who_may_scrape(
    world: World, redis_url: str, settings: Any
) -> None:
    Host.objects.filter(name="mx1").update(site="fra1")
    live(*QUEUES)
    near = Caller("")
    assert "ssh.fra1.0" in near.get("/readyz").content.decode()
    tokens = [Caller(""), world.anna, world.token("dana", scopes=["jobs:read"]), Caller("mxf_wrong"), world.dana]
    told = []
    for caller in tokens:
        caller.client.defaults["REMOTE_ADDR"] = FAR
        body = refused(caller.get("/readyz"), 503, "not_ready")
        told.append("fra1" in str(body))
    assert told == [False, False, False, False, True]
    body = tokens[0].get("/readyz").json()
    assert (body["detail"], body["parts"]["worker"], body["parts"]["database"]) == ("worker: failed", "failed", "ok")
    refused(near.get("/readyz", X_Forwarded_For=FAR), 503, "not_ready")
    assert "fra1" not in near.get("/readyz", X_Forwarded_For=FAR).content.decode()


def test_a_stranger_is_told_that_the_database_fails_though_no_token_can_be_looked_up(
    world: World, redis_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail() -> str:
        raise OperationalError("at 10.0.0.7")

    monkeypatch.setitem(health.PARTS, "database", fail)
    monkeypatch.setattr("api.auth.digest", lambda _: fail())
    world.dana.client.defaults["REMOTE_ADDR"] = FAR
    assert refused(world.dana.get("/readyz"), 503, "not_ready")["detail"] == "database: failed"


def test_migrations_are_looked_at_until_they_are_all_there_and_then_no_more() -> None:
    said = ["2 migrations are missing", "2 migrations are missing", ""]
    check = health.once_good(lambda: said.pop(0))
    assert [check() for _ in range(5)] == ["2 migrations are missing"] * 2 + [""] * 3


def test_readyz_asks_for_no_migrations_once_they_were_there(db: None, django_assert_max_num_queries: Any) -> None:
    Caller("").get("/readyz")
    with django_assert_max_num_queries(20) as asked:
        Caller("").get("/readyz")
    assert not any("django_migrations" in query["sql"] for query in asked.captured_queries)


def test_however_many_ask_whether_it_is_ready_one_looks_in_a_second(
    world: World, redis_url: str, monkeypatch: pytest.MonkeyPatch, django_assert_num_queries: Any
) -> None:
    monkeypatch.setattr(health, "CACHED_REPORT", Cached(health.report, 60))
    first = Caller("").get("/readyz")
    with django_assert_num_queries(0):
        assert [Caller("").get("/readyz").status_code for _ in range(3)] == [first.status_code] * 3


def test_metrics_come_from_the_database(world: World) -> None:
    world.alice.post("jobs/", JOB)
    live("ssh.0", "control")
    for instance in Instance.objects.all()[:2]:
        QuarantineLook.objects.create(instance=instance, due_at=timezone.now(), orphans=3)
    text = Caller("").get("/metrics").content.decode()
    assert "mxfleet_quarantine_orphans 6.0" in text
    assert 'mxfleet_jobs{operation="queue.list",state="queued"} 1.0' in text
    assert 'mxfleet_runs{state="pending"} 1.0' in text
    assert 'mxfleet_hosts{status="new"} 2.0' in text
    assert "mxfleet_runs_unknown 0.0" in text
    assert {line for line in text.splitlines() if line.startswith("mxfleet_workers")} == {
        'mxfleet_workers{queue="control"} 1.0',
        'mxfleet_workers{queue="scheduler"} 0.0',
        'mxfleet_workers{queue="ssh.0"} 1.0',
        'mxfleet_workers{queue="ssh.1"} 0.0',
    }
    assert "mxfleet_oldest_waiting_job_seconds" in text


def test_jobs_and_runs_that_have_ended_are_not_counted(world: World) -> None:
    for _ in range(3):
        world.alice.post("jobs/", JOB)
    ended = Job.objects.latest("pk")
    Job.objects.filter(pk=ended.pk).update(state="cancelled", finished_at=db_now())
    Run.objects.filter(job=ended).update(state="cancelled")
    text = Caller("").get("/metrics").content.decode()
    assert 'mxfleet_jobs{operation="queue.list",state="queued"} 2.0' in text
    assert 'mxfleet_runs{state="pending"} 2.0' in text
    opened = [line for line in text.splitlines() if line.startswith(("mxfleet_jobs{", "mxfleet_runs{"))]
    assert len(opened) == 2


def test_a_scrape_costs_the_same_few_statements_however_much_there_is_and_the_next_one_none(
    world: World, django_assert_max_num_queries: Any, django_assert_num_queries: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    world.alice.post("jobs/", JOB)
    with django_assert_max_num_queries(14) as first:
        Caller("").get("/metrics")
    cost = len(first)
    for _ in range(3):
        world.alice.post("jobs/", JOB)
    with django_assert_num_queries(0):
        assert 'state="queued"} 1.0' in Caller("").get("/metrics").content.decode()
    monkeypatch.setattr("api.health.SCRAPED", Cached(metrics.scrape, 60))
    with django_assert_num_queries(cost):
        assert 'state="queued"} 4.0' in Caller("").get("/metrics").content.decode()


def test_what_was_computed_is_told_until_its_time_is_over() -> None:
    now, made = [0.0], iter([b"1", b"2"])
    cached = Cached(lambda: next(made), 5, lambda: now[0])
    told = []
    for now[0] in (0.0, 4.9, 5.0, 9.9):
        told.append(cached.get())
    assert told == [b"1", b"1", b"2", b"2"]


def test_while_one_computes_the_others_get_what_was_told_before_at_once() -> None:
    begun, go_on = threading.Event(), threading.Event()
    computed: list[bytes] = []

    def compute() -> bytes:
        computed.append(b"old" if not computed else b"new")
        if len(computed) > 1:
            begun.set()
            assert go_on.wait(10)
        return computed[-1]

    cached = Cached(compute, 0)
    assert cached.get() == b"old"
    slow = threading.Thread(target=cached.get)
    slow.start()
    assert begun.wait(10)
    assert [cached.get() for _ in range(3)] == [b"old"] * 3
    go_on.set()
    slow.join(10)
    assert computed == [b"old", b"new"]


def test_nobody_is_told_that_all_was_ready_while_a_look_hangs() -> None:
    begun, go_on, told = threading.Event(), threading.Event(), list[bytes]()

    def compute() -> bytes:
        if not told:
            return b"ready"
        begun.set()
        assert go_on.wait(10)
        return b"not ready"

    cached = Cached(compute, 0, serves_stale=False)
    told.append(cached.get())
    threads = [threading.Thread(target=lambda: told.append(cached.get())) for _ in range(3)]
    for thread in threads:
        thread.start()
    assert begun.wait(10)
    assert told == [b"ready"]
    go_on.set()
    for thread in threads:
        thread.join(10)
    assert told == [b"ready"] + [b"not ready"] * 3


def test_of_those_who_ask_first_at_the_same_time_one_computes() -> None:
    computed: list[bytes] = []
    cached = Cached(lambda: computed.append(b"x") or b"x", 60)  # type: ignore[func-returns-value]
    everybody = threading.Barrier(8)
    threads = [threading.Thread(target=lambda: (everybody.wait(10), cached.get())) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(10)
    assert computed == [b"x"]


@pytest.mark.parametrize(
    ("source", "headers", "status"),
    [
        ("127.0.0.1", {}, 200),
        ("127.9.9.9", {}, 200),
        ("::1", {}, 200),
        ("::ffff:127.0.0.1", {}, 200),
        (FAR, {}, 401),
        ("::ffff:203.0.113.7", {}, 401),
        ("", {}, 401),
        ("127.0.0.1", {"X-Forwarded-For": FAR}, 401),
        ("127.0.0.1", {"X-Forwarded-For": "127.0.0.1"}, 401),
        ("127.0.0.1", {"X-Forwarded-For": ""}, 401),
        ("127.0.0.1", {"X-Forwarded-Host": "mx"}, 401),
        ("127.0.0.1", {"X-Forwarded-Proto": "https"}, 401),
        ("127.0.0.1", {"Forwarded": "for=127.0.0.1"}, 401),
        ("127.0.0.1", {"X-Real-IP": "127.0.0.1"}, 401),
        ("127.0.0.1", {"Via": "1.1 proxy"}, 401),
    ],
)
def test_metrics_need_no_token_only_from_loopback_and_straight(
    db: None, source: str, headers: dict[str, str], status: int
) -> None:
    nobody = Caller("")
    nobody.client.defaults["REMOTE_ADDR"] = source
    answer = nobody.get("/metrics", **headers)
    assert answer.status_code == status
    assert (status == 200) == (b"mxfleet_workers" in answer.content)
    assert ("WWW-Authenticate" in answer.headers) == (status == 401)


def test_a_setting_names_from_where_metrics_need_no_token(db: None, settings: Any) -> None:
    settings.ENV = replace(settings.ENV, metrics_networks=(ip_network("203.0.113.0/24"),))
    nobody = Caller("")
    assert nobody.get("/metrics").status_code == 401
    nobody.client.defaults["REMOTE_ADDR"] = FAR
    assert nobody.get("/metrics").status_code == 200


@pytest.mark.parametrize(
    ("token", "status"),
    [
        (lambda world: world.dana, 200),
        (lambda world: world.token("dana", scopes=["fleet:read"]), 200),
        (lambda world: world.token("dana", scopes=["jobs:read"]), 403),
        (lambda world: world.anna, 403),
        (lambda world: Caller("mxf_wrong"), 401),
    ],
    ids=["all", "fleet:read", "jobs:read", "one customer", "wrong"],
)
def test_from_elsewhere_metrics_need_fleet_read_for_all_customers(
    world: World, token: Callable[[World], Caller], status: int
) -> None:
    caller = token(world)
    caller.client.defaults["REMOTE_ADDR"] = FAR
    assert caller.get("/metrics").status_code == status


def test_metrics_know_get_only(db: None) -> None:
    refused(Caller("").post("/metrics"), 405, "method_not_allowed")
