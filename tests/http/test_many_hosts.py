"""A change of all hosts that a filter selects: as many as were seen, all of them or none."""

from typing import Any

import pytest

from api.filters import choice
from api.v1.fleet import Hosts
from api.v1.many_hosts import SELECTING
from fleet.models import Host
from fleet.ssh.hostkeys import fingerprint
from jobs.models import AuditEvent
from tests.http.cast import World
from tests.http.test_errors import refused
from tests.http.test_import import FIRST, SECOND, csv, errors, many, row, send


def change(world: World, query: str, expected: int, caller: str = "anna", **changes: Any) -> Any:
    """The answer to that change."""
    return world.callers[caller].patch(f"hosts/{query}", {"expected": expected, "changes": changes})


@pytest.fixture
def three(world: World) -> World:
    """Three hosts of acme besides mx1, two of them at fra."""
    rows = [row("n1", site="fra", role="mx"), row("n2", site="fra", role="relay"), row("n3", site="ber")]
    assert send(world.anna, csv(*rows)).status_code == 200
    return world


def test_all_hosts_of_a_filter_are_changed_at_once_and_recorded_once(three: World) -> None:
    Host.objects.update(status="ok")
    assert three.anna.patch("hosts/n2/", {"port": 2222}).status_code == 200
    told = change(three, "?site=fra", 2, port=2222, labels={"rack": "7", "role": None})
    assert (told.status_code, told.json()) == (200, {"found": 2, "changed": ["n1", "n2"], "same": []})
    again = change(three, "?site=fra", 2, port=2222, labels={"rack": "7", "role": None})
    assert again.json() == {"found": 2, "changed": [], "same": ["n1", "n2"]}
    for name, status in (("n1", "new"), ("n2", "new"), ("n3", "ok")):
        row = Host.objects.get(name=name)
        assert (row.status, row.labels) == (status, {} if name == "n3" else {"rack": "7"})
    (entry,) = AuditEvent.objects.filter(action="hosts.updated")
    assert (entry.chain, entry.actor, entry.data["hosts"]) == ("acme", "anna", ["n1", "n2"])
    assert entry.data["changes"] == {"port": 2222, "labels": {"rack": "7", "role": None}}


def test_without_a_filter_nothing_is_changed(three: World) -> None:
    for query in ("", "?site="):
        assert change(three, query, 4, port=2222).status_code in (409, 422)
    refused(change(three, "", 4, port=2222), 422, "invalid")
    assert not Host.objects.filter(port=2222).exists()


@pytest.mark.parametrize("query", ["?view=short", "?site=fra&view=short", "?limit=2", "?fields=name", "?x=1"])
def test_only_what_selects_hosts_says_which_are_changed(
    three: World, monkeypatch: pytest.MonkeyPatch, query: str
) -> None:
    assert Hosts.filters.keys() == SELECTING
    narrows_nothing = choice(["short", "long"], "How much of each host is told.")
    monkeypatch.setattr(Hosts, "filters", {**Hosts.filters, "view": narrows_nothing})
    for expected in (2, 4):
        refused(change(three, query, expected, port=2222), 400, "unknown_parameter")
    assert not Host.objects.filter(port=2222).exists()


@pytest.mark.parametrize("expected", [1, 3, 5000])
def test_another_number_of_hosts_than_was_seen_is_409_with_the_number(three: World, expected: int) -> None:
    problem = refused(change(three, "?site=fra", expected, port=2222), 409, "count_differs")
    assert problem["found"] == 2
    assert not Host.objects.filter(port=2222).exists()


@pytest.mark.parametrize(
    ("changes", "field", "code"),
    [
        ({"name": "x"}, "changes.name", "unknown_field"),
        ({"address": "n.example.com"}, "changes.address", "unknown_field"),
        ({"host_key": FIRST}, "changes.host_key", "unknown_field"),
        ({"customer": "beta"}, "changes.customer", "unknown_field"),
        ({"status": "ok"}, "changes.status", "unknown_field"),
        ({"port": "22"}, "changes.port", "wrong_type"),
        ({"credential": "beta-key"}, "changes.credential", "invalid"),
        ({"jump_host": "bx1"}, "changes.jump_host", "invalid"),
        ({"jump_host": "n1"}, "changes.jump_host", "invalid"),
        ({"labels": {"a b": "c"}}, "changes.labels.a b", "invalid"),
        ({"host_ca": "x"}, "changes.host_ca", "invalid"),
        ({}, "changes", "required"),
    ],
)
def test_a_change_that_cannot_be_is_refused_for_all(three: World, changes: dict, field: str, code: str) -> None:
    before = list(Host.objects.order_by("pk").values())
    assert set(errors(change(three, "?site=fra", 2, **changes))) == {(field, code)}
    assert list(Host.objects.order_by("pk").values()) == before


def test_what_hosts_are_known_by_is_changed_only_by_who_names_it(three: World) -> None:
    assert change(three, "?site=fra", 2, host_ca=FIRST).status_code == 200
    problem = refused(change(three, "?site=fra", 2, host_ca=SECOND), 422, "invalid")
    assert {each["code"] for each in problem["errors"]} == {"pinned"}
    assert change(three, "?site=fra", 2, host_ca=SECOND, old_fingerprint=fingerprint(FIRST)).status_code == 200
    assert Host.objects.get(name="n1").host_ca.split()[1] == SECOND.split()[1]


def test_only_the_administrator_of_all_that_is_meant_changes_it(three: World) -> None:
    for caller in ("alice", "erin", "robot"):
        refused(change(three, "?site=fra", 2, caller, port=2222), 403, "forbidden")
    assert refused(change(three, "?customer=acme", 4, "charlie", port=2222), 409, "count_differs")["found"] == 0
    refused(three.token("anna", scopes=["fleet:read"]).patch("hosts/?site=fra", {}), 403, "forbidden")
    assert change(three, "?enabled=true", 5, "dana", port=2222).json()["changed"] == ["bx1", "mx1", "n1", "n2", "n3"]
    chains = AuditEvent.objects.filter(action="hosts.updated").order_by("chain")
    assert [(entry.chain, len(entry.data["hosts"])) for entry in chains] == [("acme", 4), ("beta", 1)]


def test_three_hundred_hosts_are_changed_in_a_few_statements(world: World, django_assert_max_num_queries: Any) -> None:
    send(world.anna, many())
    with django_assert_max_num_queries(45):  # SQLite takes some 50 rows a statement
        assert len(change(world, "?label=role=mx", 301, username="deploy").json()["changed"]) == 301


def test_a_precondition_on_a_list_is_none(three: World) -> None:
    body = {"expected": 2, "changes": {"port": 2222}}
    refused(three.anna.patch("hosts/?site=fra", body, If_Match='"x"'), 412, "precondition_failed")
