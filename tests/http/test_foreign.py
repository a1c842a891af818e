"""Charlie belongs to beta. What he names of acme is not there, by every route and every verb; nor are its rows."""

import re
from typing import Any

import pytest
from django.urls import URLPattern, get_resolver
from django.utils import timezone

from api.models import Token
from api.v1.urls import urlpatterns
from jobs.models import Block, BlockInstance, Job, QuarantineItem
from tests.http.cast import World
from tests.http.test_errors import refused
from tests.http.test_jobs import DIGEST, ended, planned

VERBS = ("GET", "POST", "PATCH", "DELETE")
OPEN = {
    "schema/", "schema/json/", "docs/", "whoami/", "operations/", "pause/end/",
    "hosts/import/", "hosts/scan-host-keys/",
}  # fmt: skip
STREAMED = {"audit/export/"}  # see test_export.py
BODIES: dict[str, Any] = {
    "approve/": {"digest": DIGEST},
    "confirm/": {"digest": DIGEST},
    "reject/": {"digest": DIGEST, "comment": "no"},
    "undo/": {"reason": "no"},
    "unlock/": {"reason": "no"},
}


def routes() -> list[str]:
    """Every route of the API as it is written in urls.py."""
    return [str(pattern.pattern) for pattern in urlpatterns if isinstance(pattern, URLPattern)]


OBJECTS = [route for route in routes() if "<" in route]
LISTS = [route for route in routes() if "<" not in route and route not in OPEN | STREAMED]


def fill(world: World) -> dict[str, str]:
    """Something of acme for each kind of object; {route's first word: how its parameters are filled}."""
    job = planned(world)
    ended(job, done=3)
    now = timezone.now()
    item = QuarantineItem.objects.create(
        job=job, instance=world.postfix, queue_id="3F5A0000", place="x", arrival_time=1.0, sender="a@b.c", size=1,
        native_state="deferred", expires_at=now, created_at=now,
    )  # fmt: skip
    block = Block.objects.create(
        pattern="spam@x.y", action="reject", text="no", target={"hosts": ["mx1"]}, reason="x",
        owner=world.people["alice"], job=job, created_at=now,
    )  # fmt: skip
    block.customers.add(world.acme)
    BlockInstance.objects.create(block=block, instance=world.postfix, changed_at=now)
    token = Token.objects.filter(account__username="alice").first()
    assert token is not None
    return {
        "customers": "acme",
        "users": "alice",
        "service-accounts": "robot",
        "tokens": str(token.pk),
        "credentials": "acme-key",
        "hosts": "mx1",
        "instances": "mx1 postfix",
        "jobs": f"{job.pk} {job.runs.get().pk}",
        "blocks": str(block.pk),
        "quarantine": str(item.pk),
    }


def filled(route: str, names: dict[str, str]) -> str:
    """The route with the names of acme's object."""
    values = iter(names[route.split("/")[0]].split())
    return re.sub(r"<[^>]+>", lambda _: next(values), route)


@pytest.mark.parametrize("verb", VERBS)
@pytest.mark.parametrize("route", OBJECTS)
def test_what_belongs_to_another_customer_is_not_there(world: World, route: str, verb: str) -> None:
    path = filled(route, fill(world))
    before = Job.objects.count()
    body = BODIES.get(route.split("/")[-2] + "/", {})
    theirs = world.charlie.send(verb, path, body if verb != "GET" else None)
    if theirs.status_code == 405:
        assert world.dana.send(verb, path, body if verb != "GET" else None).status_code == 405
        return
    problem = refused(theirs, 404, "not_found")
    absent = re.sub(r"[0-9a-f]{12}/", "000000000000/", path) if "-" in path else path.replace("acme", "none")
    absent = absent.replace("mx1", "none").replace("alice", "none").replace("robot", "none").replace("acme", "none")
    nothing = refused(world.charlie.send(verb, absent, body if verb != "GET" else None), 404, "not_found")
    assert {**problem, "request_id": ""} == {**nothing, "request_id": ""}
    assert Job.objects.count() == before


@pytest.mark.parametrize("route", LISTS)
def test_lists_show_nothing_of_another_customer(world: World, route: str) -> None:
    fill(world)
    answer = world.charlie.get(route)
    content = answer.content
    assert answer.status_code == 200, content
    for word in (b"acme", b"alice", b"mx1", b"spam@x.y"):
        assert word not in content


@pytest.mark.parametrize("route", LISTS)
def test_a_filter_never_widens_a_list(world: World, route: str) -> None:
    fill(world)
    answer = world.charlie.get(f"{route}?customer=acme")
    assert answer.status_code in (200, 400)
    if answer.status_code == 200:
        assert answer.json()["results"] == []


def test_a_job_of_several_customers_is_seen_only_by_who_may_read_all_of_them(world: World) -> None:
    made = world.dana.post("jobs/", {"operation": "queue.list", "target": {"all": True}}).json()
    assert made["customers"] == ["acme", "beta"]
    for caller in (world.alice, world.charlie):
        refused(caller.get(f"jobs/{made['id']}/"), 404, "not_found")
        assert caller.get("jobs/").json()["results"] == []
    assert world.dana.get(f"jobs/{made['id']}/").status_code == 200


def test_a_foreign_customer_cannot_be_written_to(world: World) -> None:
    host = {"name": "n", "customer": "acme", "address": "a.example.com", "username": "u", "credential": "acme-key"}
    refused(world.charlie.post("hosts/", host), 422, "invalid")
    refused(world.anna.post("hosts/", host | {"customer": "beta", "credential": "beta-key"}), 422, "invalid")


def test_every_route_of_the_server_is_the_home_below_the_api_or_a_probe() -> None:
    tops = {str(pattern.pattern) for pattern in get_resolver().url_patterns}
    assert tops == {"", "healthz", "readyz", "metrics", "api/v1/"}
