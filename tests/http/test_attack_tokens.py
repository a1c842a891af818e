"""A token makes none that is wider than itself, by no way, and nobody is two people with the tokens that he makes."""

import importlib
import json
import threading
from datetime import timedelta
from io import StringIO
from pathlib import Path
from typing import Any

import pytest
from django.apps import apps
from django.core.management import CommandError, call_command
from django.db import connection, transaction
from django.utils import timezone
from rest_framework.exceptions import AuthenticationFailed

from api.auth import digest
from api.models import Token
from api.tokens import SCOPES, issue, revoke
from jobs.actor import Actor
from jobs.audit import trail
from jobs.models import Account, AuditEvent, Role
from tests.http.cast import Caller, World, build_world
from tests.http.test_errors import refused
from tests.http.test_jobs import DIGEST, planned

SEEN = {"digest": DIGEST, "comment": "seen"}
OTHERS = [{}, {"user": "bob"}, {"service_account": "robot"}]
"""For whom a token may be: the caller, another person, an integration."""


def mint(caller: Caller, **values: Any) -> Caller:
    """A token that the caller makes."""
    made = caller.post("tokens/", {"name": "x", **values})
    assert made.status_code == 201, made.content
    return Caller(made.json()["token"])


def row_of(caller: Caller) -> Token:
    """The row of a caller's token."""
    return Token.objects.get(digest=digest(caller.token))


@pytest.mark.parametrize("whose", OTHERS)
def test_no_token_gives_away_scopes_networks_or_time_that_it_has_not_itself(world: World, whose: dict) -> None:
    ends = timezone.now() + timedelta(hours=1)
    narrow = world.token("anna", scopes=["admin", "jobs:read"], networks=["127.0.0.0/8"], expires_at=ends)
    refused(narrow.post("tokens/", {"name": "x", "scopes": ["jobs:request"], **whose}), 403, "forbidden")
    refused(narrow.post("tokens/", {"name": "x", "networks": ["0.0.0.0/0"], **whose}), 403, "forbidden")
    refused(narrow.post("tokens/", {"name": "x", "networks": ["127.0.0.0/8", "::/0"], **whose}), 403, "forbidden")
    made = row_of(mint(narrow, expires_at="2036-01-01T00:00:00Z", **whose))
    assert set(made.scopes) == {"admin", "jobs:read"}
    assert made.networks == ["127.0.0.0/8"]
    assert made.expires_at == ends
    assert row_of(mint(narrow, networks=["127.0.0.1/32"], scopes=["jobs:read"], **whose)).networks == ["127.0.0.1/32"]


def test_a_token_for_somebody_else_stays_at_the_customers_of_who_made_it(world: World) -> None:
    made = mint(world.anna, user="alice")
    Role.objects.create(account=world.people["alice"], role="admin", customer=world.beta)
    Role.objects.create(account=world.people["alice"], role="admin", customer=None)
    for caller in (made, mint(made)):
        assert caller.get("whoami/").json()["customers"] == ["acme"]
        refused(caller.get("hosts/bx1/"), 404, "not_found")
        refused(caller.post("customers/", {"slug": "new", "name": "New"}), 403, "forbidden")
    assert world.alice.get("whoami/").json()["customers"] == ["acme", "beta"]


def test_a_token_that_was_revoked_a_moment_ago_makes_none(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    wide = Actor(world.people["dana"], token=row_of(world.dana).pk)
    row_of(world.dana).delete()
    monkeypatch.setattr("api.auth.actor_for", lambda *_: wide)
    refused(world.dana.post("tokens/", {"name": "x"}), 401, "unauthenticated")
    assert not Token.objects.filter(account=wide.account).exists()


def test_a_repeated_request_tells_a_token_to_the_token_that_made_it_only(world: World) -> None:
    body = {"name": "laptop"}
    made = world.dana.post("tokens/", body, Idempotency_Key="k-1").json()["token"]
    narrow = world.token("dana", scopes=["jobs:read"])
    answer = refused(narrow.post("tokens/", body, Idempotency_Key="k-1"), 422, "idempotency_key_reused")
    assert made not in json.dumps(answer)
    assert world.dana.post("tokens/", body, Idempotency_Key="k-1").json()["token"] == made


@pytest.mark.parametrize("how", ["approve", "reject"])
def test_a_token_that_somebody_else_made_decides_nothing_for_ever(world: World, how: str) -> None:
    job = planned(world)
    for_bob = mint(world.dana, user="bob")
    for caller in (for_bob, mint(for_bob), mint(mint(for_bob))):
        assert "jobs:approve" not in caller.get("whoami/").json()["scopes"]
        refused(caller.post(f"jobs/{job.pk}/{how}/", SEEN), 403, "foreign_token")
    assert mint(world.bob).post(f"jobs/{job.pk}/{how}/", SEEN).status_code == 200


def test_going_through_somebody_elses_token_does_not_make_it_an_own_one(world: World) -> None:
    """Dana makes a token for anna, and with that one for herself."""
    job = planned(world)
    through = mint(mint(world.dana, user="anna"), user="bob")
    assert row_of(through).minted_by == ["anna", "dana"]
    Role.objects.create(account=world.people["anna"], role="admin", customer=None)
    back = mint(mint(world.dana, user="anna"), user="dana")
    assert row_of(back).minted_by == ["anna"]
    refused(back.post(f"jobs/{job.pk}/approve/", SEEN), 403, "foreign_token")


@pytest.mark.parametrize("whose", [{"user": "alice"}, {"service_account": "robot"}])
def test_who_made_the_token_that_asked_does_not_agree(world: World, whose: dict) -> None:
    asker = mint(mint(world.anna, **whose))
    job = planned(world, by=asker)
    refused(world.anna.post(f"jobs/{job.pk}/approve/", SEEN), 403, "self_approval")
    assert AuditEvent.objects.get(job=job.pk, action="job.submitted").data["minted_by"] == ["anna"]
    assert world.bob.post(f"jobs/{job.pk}/approve/", SEEN).status_code == 200


def test_minting_for_a_person_is_an_act_of_its_own_and_that_person_is_told(world: World) -> None:
    made = world.anna.post("tokens/", {"name": "x", "user": "bob"}).json()
    mint(world.anna, service_account="robot")
    entry = AuditEvent.objects.get(action="token.created_for_other")
    assert (entry.actor, entry.object, entry.chain) == ("anna", "bob", "acme")
    assert (entry.data["token"], entry.data["minted_by"], entry.data["customers"]) == (made["id"], ["anna"], ["acme"])
    told = world.bob.get("whoami/").json()
    assert told["minted_by"] == []
    (other,) = told["tokens_by_others"]
    assert (other["id"], other["minted_by"], other["created_at"]) == (made["id"], ["anna"], made["created_at"])
    assert world.bob.get(f"tokens/{made['id']}/").json()["minted_by"] == ["anna"]
    assert world.bob.delete(f"tokens/{made['id']}/").status_code == 204


def test_a_token_ends_with_the_one_that_it_was_made_with_and_each_is_recorded(world: World) -> None:
    root = mint(world.anna)
    branch, other = mint(root, user="bob"), mint(root)
    leaf = mint(branch, scopes=["jobs:read"])
    tree = [row_of(each) for each in (root, branch, other, leaf)]
    parents = [row.made_with_id for row in tree]
    assert parents == [row_of(world.anna).pk, *[row_of(root).pk] * 2, row_of(branch).pk]
    for row, parent in zip(tree, parents, strict=True):
        made = AuditEvent.objects.get(action__startswith="token.created", data__token=str(row.pk))
        assert made.data["made_with"] == str(parent)
        assert world.anna.get(f"tokens/{row.pk}/").json()["made_with"] == str(parent)
    assert world.anna.delete(f"tokens/{row_of(root).pk}/").status_code == 204
    for caller in (root, branch, other, leaf):
        refused(caller.get("whoami/"), 401, "unauthenticated")
    assert world.anna.get("whoami/").status_code == world.bob.get("whoami/").status_code == 200
    ended = AuditEvent.objects.filter(action="token.revoked").order_by("seq")
    assert {(each.data["token"], each.data["made_with"]) for each in ended} == {
        (str(row.pk), str(parent)) for row, parent in zip(tree, parents, strict=True)
    }
    assert [(each.actor, each.object) for each in ended if each.data["token"] == str(parents[-1])] == [("anna", "bob")]


def test_a_token_stops_while_anybody_is_disabled_who_had_a_hand_in_it(world: World) -> None:
    given = mint(world.anna, service_account="robot")
    tree = [given, mint(given), mint(mint(world.anna, user="bob"), scopes=["jobs:read"])]
    assert world.dana.patch("users/anna/", {"enabled": False}).status_code == 200
    for caller in (world.anna, *tree):
        refused(caller.get("whoami/"), 401, "unauthenticated")
    assert world.bob.get("whoami/").status_code == 200, "made without her"
    assert world.dana.patch("users/anna/", {"enabled": True}).status_code == 200
    assert [caller.get("whoami/").status_code for caller in tree] == [200] * 3
    assert world.dana.patch("service-accounts/robot/", {"enabled": False}).status_code == 200
    assert [caller.get("whoami/").status_code for caller in tree] == [401, 401, 200]


def test_a_token_that_is_made_on_the_server_names_none_that_it_was_made_with(world: World) -> None:
    assert world.bob.get(f"tokens/{row_of(world.bob).pk}/").json()["made_with"] is None


@pytest.mark.parametrize("scope", [scope for scope in SCOPES if scope != "admin"])
def test_a_narrow_token_revokes_none_of_its_accounts_that_is_wider(world: World, scope: str) -> None:
    wide = mint(world.anna)
    narrow, equal, inner = mint(wide, scopes=[scope]), mint(world.anna, scopes=[scope]), mint(wide, scopes=[scope])
    refused(narrow.delete(f"tokens/{row_of(wide).pk}/"), 403, "forbidden")
    assert narrow.delete(f"tokens/{row_of(equal).pk}/").status_code == 204
    assert narrow.delete(f"tokens/{row_of(narrow).pk}/").status_code == 204
    assert mint(world.anna, scopes=["admin"]).delete(f"tokens/{row_of(wide).pk}/").status_code == 204
    refused(inner.get("whoami/"), 401, "unauthenticated")


def test_a_token_for_some_customers_revokes_none_of_its_accounts_for_all(world: World) -> None:
    given = mint(world.anna, user="erin")
    refused(given.delete(f"tokens/{row_of(world.erin).pk}/"), 403, "forbidden")
    assert world.erin.delete(f"tokens/{row_of(given).pk}/").status_code == 204


@pytest.mark.django_db(transaction=True)
def test_no_token_is_left_that_is_made_while_its_own_is_revoked() -> None:
    world = build_world()
    anna = Actor(world.people["anna"], token=row_of(world.anna).pk)
    row, told = row_of(world.anna), list[str]()

    def make() -> None:
        try:
            issue(anna, {"name": "late"})
        except AuthenticationFailed as error:
            told.append(str(error))
        finally:
            connection.close()

    def entries(*given: trail.Entry) -> None:
        making.start()
        making.join(0.3)  # time for what does not wait
        append(*given)

    making = threading.Thread(target=make)
    append = trail.append
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(trail, "append", entries)
        revoke(anna, row)
    making.join(20)
    assert told
    assert not Token.objects.filter(account=row.account).exists()


def test_an_account_whose_tokens_made_others_is_not_deleted_before_these_are_revoked(world: World) -> None:
    made = mint(mint(world.anna, user="erin"), name="own")
    assert mint(mint(world.anna), service_account="robot").get("whoami/").status_code == 200
    refused(world.dana.delete("users/anna/"), 409, "in_use")
    assert world.dana.delete("users/erin/").status_code == 204
    refused(made.get("whoami/"), 401, "unauthenticated")
    assert world.dana.delete(f"tokens/{row_of(world.anna).pk}/").status_code == 204
    assert world.dana.delete("users/anna/").status_code == 204


def test_a_first_token_is_its_persons_own_and_is_told_to_a_file_only(world: World, tmp_path: Path) -> None:
    Account.objects.create_user("eve")
    Role.objects.create(account=Account.objects.get(username="eve"), role="approver", customer=world.acme)
    mint(world.anna, user="eve")
    path, told = tmp_path / "eve-token", StringIO()
    call_command("first_token", "eve", token_file=path, stdout=told)
    secret = path.read_text().strip()
    assert (told.getvalue(), path.stat().st_mode & 0o777) == (f"{path}\n", 0o600)
    entry = AuditEvent.objects.get(action="token.first", object="eve")
    assert (entry.actor, entry.chain, entry.data["minted_by"]) == ("", "acme", [])
    assert secret not in str(entry.data)
    job = planned(world)
    assert Caller(secret).post(f"jobs/{job.pk}/approve/", SEEN).status_code == 200


def test_a_first_token_is_for_an_enabled_person_without_one(world: World, tmp_path: Path) -> None:
    count = Token.objects.count()
    for username in ("bob", "robot", "nobody"):
        with pytest.raises(CommandError):
            call_command("first_token", username, token_file=tmp_path / username, stdout=StringIO())
        assert not (tmp_path / username).exists()
    row_of(world.bob).delete()
    (tmp_path / "bob").write_text("")
    with pytest.raises(CommandError):
        call_command("first_token", "bob", token_file=tmp_path / "bob", stdout=StringIO())
    assert Token.objects.count() == count - 1


def made_before(world: World, *acts: tuple[str, str, str]) -> list[Token]:
    """Tokens as the release before this one made them: (who, for whom, channel)."""
    rows = []
    for actor, owner, channel in acts:
        row = Token.objects.create(account=world.people[owner], name="old", digest=f"{len(rows):064}")
        entry = trail.Entry(
            "acme", "token.created", Actor(world.people[actor], channel=channel), owner, data={"token": str(row.pk)}
        )
        with transaction.atomic():
            trail.append(entry, entry)
        rows.append(row)
    return rows


def test_an_upgrade_believes_in_no_token_that_somebody_else_may_have_made(world: World) -> None:
    Token.objects.all().delete()
    rows = made_before(
        world, ("dana", "dana", "cli"), ("dana", "dana", "api"), ("dana", "bob", "api"), ("bob", "bob", "api"),
        ("anna", "erin", "api"), ("dana", "dana", "cli"), ("bob", "dana", "api"), ("dana", "dana", "api"),
    )  # fmt: skip
    rows.append(Token.objects.create(account=world.people["alice"], name="of nobody knows", digest="x"))
    importlib.import_module("api.migrations.0002_who_made_a_token").tell_makers(apps, None)
    for row in rows:
        row.refresh_from_db()
    assert [row.minted_by for row in rows] == [[], [], ["dana"], ["dana"], ["anna"], [], ["bob"], ["bob"], ["?"]]
    assert [row.customers for row in rows] == [None, None, None, None, ["acme"], None, None, None, None]
