"""Anna administers acme. What others have at beta, and whether they are there at all, she is not told."""

import json
from typing import Any

import pytest

from api.models import Token
from api.tokens import revoke
from jobs.actor import Actor
from jobs.errors import Forbidden
from jobs.models import Account, AuditEvent, Role
from tests.http.cast import World
from tests.http.test_errors import refused


@pytest.fixture
def shared(world: World) -> World:
    """Erin looks at acme, and approves at beta."""
    Role.objects.create(account=world.people["erin"], role="approver", customer=world.beta)
    return world


def roles(answer: Any) -> list[tuple[str, str]]:
    """(customer, role) of an account as it was told."""
    return [(role["customer"], role["role"]) for role in answer.json()["roles"]]


def test_a_shared_persons_roles_are_told_to_each_as_far_as_they_are_theirs_to_see(shared: World) -> None:
    everything = [("acme", "viewer"), ("beta", "approver")]
    assert roles(shared.anna.get("users/erin/")) == [("acme", "viewer")]
    assert "beta" not in json.dumps(shared.anna.get("users/").json())
    assert roles(shared.dana.get("users/erin/")) == everything
    assert roles(shared.erin.get("users/erin/")) == roles(shared.erin.get("whoami/")) == everything


def test_roles_that_are_not_told_cannot_be_changed_away(shared: World) -> None:
    refused(shared.anna.patch("users/erin/", {"roles": []}), 403, "forbidden")
    refused(shared.anna.delete("users/erin/"), 403, "forbidden")
    assert shared.people["erin"].roles.count() == 2


@pytest.mark.parametrize("elsewhere", ["beta", None])
def test_tokens_of_who_has_a_role_elsewhere_too_are_not_an_administrators_to_see_or_revoke(
    world: World, elsewhere: str | None
) -> None:
    erins = Token.objects.get(account=world.people["erin"])
    assert world.anna.get(f"tokens/{erins.pk}/").status_code == 200
    Role.objects.create(account=erins.account, role="viewer", customer=world.beta if elsewhere else None)
    for ask in (world.anna.get, world.anna.delete):
        refused(ask(f"tokens/{erins.pk}/"), 404, "not_found")
    assert {row["user"] for row in world.anna.get("tokens/").json()["results"] if "user" in row} == {
        "anna", "alice", "bob",
    }  # fmt: skip
    with pytest.raises(Forbidden):
        revoke(Actor(world.people["anna"]), erins)
    assert Token.objects.filter(pk=erins.pk).exists()
    assert world.erin.delete(f"tokens/{erins.pk}/").status_code == 204


def test_an_integration_that_is_shared_is_no_different(world: World) -> None:
    Role.objects.create(account=world.people["robot"], role="operator", customer=world.beta)
    assert roles(world.anna.get("service-accounts/robot/")) == [("acme", "operator")]
    assert "beta" not in json.dumps(world.anna.get("service-accounts/").json())


def test_each_chain_is_told_of_the_roles_at_its_own_customer(world: World) -> None:
    given = [{"role": "viewer", "customer": "acme"}, {"role": "approver", "customer": "beta"}]
    assert world.dana.post("users/", {"username": "eve", "roles": given}).status_code == 201
    assert world.dana.patch("users/eve/", {"roles": given[::-1]}).status_code == 200
    assert (
        world.dana.patch("users/eve/", {"roles": [given[1], {"role": "viewer", "customer": None}]}).status_code == 200
    )
    for chain, other in (("acme", "beta"), ("beta", "acme")):
        entries = AuditEvent.objects.filter(chain=chain, object="eve").order_by("seq")
        assert [entry.action for entry in entries] == ["user.created", "user.updated", "user.updated"]
        assert other not in json.dumps([entry.data for entry in entries])
    assert "acme" in world.anna.get("audit/?action=user.created").content.decode()


@pytest.mark.parametrize("field", ["user", "service_account"])
def test_asking_for_a_token_does_not_tell_who_exists_elsewhere(world: World, field: str) -> None:
    Account.objects.create_user("lonely")
    answers = []
    for name in ("dana", "charlie", "lonely", "mxfleet", "nobody"):
        body = refused(world.anna.post("tokens/", {"name": "x", field: name}), 422, "invalid")
        answers.append(json.dumps({**body, "request_id": ""}).replace(f"'{name}'", "?"))
    assert len(set(answers)) == 1
    for caller in (world.alice, world.robot):
        told = {caller.post("tokens/", {"name": "x", field: name}).status_code for name in ("dana", "bob", "nobody")}
        assert told == {403}


@pytest.mark.parametrize(
    ("path", "body"),
    [
        ("jobs/", {"operation": "queue.list", "target": {"hosts": ["?"]}}),
        ("jobs/", {"operation": "queue.list", "target": {"instances": ["?/postfix"]}}),
        ("jobs/", {"operation": "queue.list", "target": {"customers": ["?"]}}),
        ("jobs/", {"operation": "queue.list", "target": {"labels": {"role": ["?"]}}}),
        ("jobs/", {"operation": "queue.list", "target": {"hosts": ["mx1", "?"], "customers": ["acme"]}}),
        ("hosts/", {"name": "n", "customer": "acme", "address": "a.example.com", "username": "u", "credential": "?"}),
        ("hosts/", {"name": "n", "customer": "?", "address": "a.example.com", "username": "u", "credential": "k"}),
        ("credentials/", {"name": "n", "customer": "?", "private_key": "x"}),
        ("users/", {"username": "new", "roles": [{"role": "viewer", "customer": "?"}]}),
        ("customers/", {"slug": "?", "name": "x"}),
    ],
)
def test_no_name_of_anothers_is_answered_otherwise_than_one_that_is_not_there(
    world: World, path: str, body: dict
) -> None:
    world.bx1.labels = {"role": "bx1"}
    world.bx1.save()
    told = set()
    for name in ("bx1", "beta", "beta-key", "none"):
        answer = world.anna.post(path, json.loads(json.dumps(body).replace("?", name)))
        told.add(json.dumps({**answer.json(), "request_id": "", "status": answer.status_code}).replace(name, "?"))
    assert len(told) == 1, told


@pytest.mark.parametrize(
    "query", ["hosts/?label=role=bx1", "hosts/?customer=beta", "instances/?host=bx1", "jobs/?requested_by=charlie",
              "audit/?actor=charlie", "quarantine/?instance=bx1/postfix", "blocks/?instance=bx1/postfix"]
)  # fmt: skip
def test_no_filter_finds_what_is_anothers(world: World, query: str) -> None:
    world.bx1.labels = {"role": "bx1"}
    world.bx1.save()
    assert world.charlie.post("jobs/", {"operation": "queue.list", "target": {"hosts": ["bx1"]}}).status_code == 202
    assert world.anna.get(query).json()["results"] == []
