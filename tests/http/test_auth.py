"""Tokens, scopes, roles."""

import gc
import sqlite3
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from io import StringIO
from pathlib import Path
from typing import Any

import psycopg
import pytest
from django.core.management import CommandError, call_command
from django.db import connection, transaction
from django.utils import timezone

from api.models import Token
from api.v1 import people
from jobs.models import AuditEvent
from tests.http.cast import Caller, World, build_world
from tests.http.test_errors import JOB, refused


@pytest.mark.parametrize(
    "header",
    ["", "Bearer", "Bearer ", "Bearer mxf_", "Bearer " + "x" * 8192, "Token\x00", "Basic YTpi", "bearer x, bearer x"],
)
def test_a_bad_authorization_header_is_401(world: World, header: str) -> None:
    answer = Caller("").get("whoami/", Authorization=header)
    refused(answer, 401, "unauthenticated")
    assert answer.headers["WWW-Authenticate"].startswith("Bearer")


def test_no_token_is_401_and_tells_how(world: World) -> None:
    for path in ("whoami/", "jobs/", "hosts/mx1/", "audit/export/"):
        answer = Caller("").get(path)
        assert "Authorization: Bearer" in refused(answer, 401, "unauthenticated")["detail"]
        assert answer.headers["WWW-Authenticate"].startswith("Bearer")


def test_a_good_token_under_another_scheme_is_401(world: World) -> None:
    answer = Caller("").get("whoami/", Authorization=f"Token {world.alice.token}")
    assert "Authorization: Bearer" in refused(answer, 401, "unauthenticated")["detail"]


def test_the_scheme_is_written_in_any_case(world: World) -> None:
    assert Caller("").get("whoami/", Authorization=f"bearer {world.alice.token}").status_code == 200


def test_whoami_says_who(world: World) -> None:
    body = world.alice.get("whoami/").json()
    assert body == {
        "username": "alice",
        "kind": "person",
        "customers": ["acme"],
        "roles": [{"role": "operator", "customer": "acme"}],
        "scopes": ["jobs:read", "jobs:request", "fleet:read", "audit:read"],
        "minted_by": [],
        "tokens_by_others": [],
    }
    assert world.dana.get("whoami/").json()["customers"] == ["acme", "beta"]


def test_a_token_is_told_once_and_only_its_digest_is_kept(world: World) -> None:
    made = world.alice.post("tokens/", {"name": "laptop"})
    assert made.status_code == 201
    token = made.json()["token"]
    assert token.startswith("mxf_")
    assert len(token) == 4 + 8 + 1 + 43
    assert Caller(token).get("whoami/").json()["username"] == "alice"
    where = made.headers["Location"]
    assert "token" not in world.alice.get(where).json()
    stored = Token.objects.get(pk=made.json()["id"])
    assert token not in str(stored.__dict__)


def test_a_revoked_token_fails_at_once(world: World) -> None:
    made = world.alice.post("tokens/", {"name": "laptop"}).json()
    assert world.alice.delete(f"tokens/{made['id']}/").status_code == 204
    refused(Caller(made["token"]).get("whoami/"), 401, "unauthenticated")
    assert set(
        AuditEvent.objects.filter(object="alice", action__startswith="token.").values_list("action", flat=True)
    ) == {
        "token.first",
        "token.created",
        "token.revoked",
    }


def test_an_expired_token_and_a_disabled_account_fail(world: World) -> None:
    made = world.alice.post("tokens/", {"name": "x", "expires_at": "2036-01-01T00:00:00Z"}).json()
    Token.objects.filter(pk=made["id"]).update(expires_at=timezone.now() - timedelta(milliseconds=1))
    refused(Caller(made["token"]).get("whoami/"), 401, "unauthenticated")
    assert world.dana.patch("users/alice/", {"enabled": False}).status_code == 200
    refused(world.alice.get("whoami/"), 401, "unauthenticated")


def test_a_token_is_good_only_from_its_networks(world: World) -> None:
    near = world.token("alice", networks=["127.0.0.0/8"])
    far = world.token("alice", networks=["192.0.2.0/24"])
    assert near.get("whoami/").status_code == 200
    refused(far.get("whoami/", X_Forwarded_For="192.0.2.1"), 403, "forbidden")


def test_an_identity_header_is_ignored(world: World) -> None:
    answer = world.alice.get("whoami/", X_User_ID="dana", X_Forwarded_For="127.0.0.1")
    assert answer.json()["username"] == "alice"


@pytest.mark.parametrize(
    ("scopes", "method", "path", "body"),
    [
        (["fleet:read"], "GET", "jobs/", None),
        (["jobs:read"], "POST", "jobs/", JOB),
        (["jobs:read"], "GET", "hosts/", None),
        (["fleet:read"], "PATCH", "hosts/mx1/", {"enabled": False}),
        (["fleet:write"], "GET", "users/", None),
        (["fleet:read"], "POST", "users/", {"username": "x"}),
        (["jobs:read"], "GET", "audit/", None),
        (["jobs:read"], "GET", "audit/export/", None),
    ],
)
def test_a_scope_that_is_missing_is_403(world: World, scopes: list[str], method: str, path: str, body: object) -> None:
    refused(world.token("dana", scopes=scopes).send(method, path, body), 403, "forbidden")


@pytest.mark.parametrize("path", ["audit/export/", "hosts/mx1/", "users/"])
def test_a_head_needs_the_scope_of_its_get(world: World, path: str) -> None:
    assert world.token("dana", scopes=["jobs:read"]).send("HEAD", path).status_code == 403


@pytest.mark.parametrize("method", ["GET", "HEAD"])
def test_a_method_that_names_no_scope_is_refused_to_everybody(
    world: World, monkeypatch: pytest.MonkeyPatch, method: str
) -> None:
    assert world.dana.send(method, "whoami/").status_code == 200
    monkeypatch.setattr(people.Whoami, "scopes", {})
    assert world.dana.send(method, "whoami/").status_code == 403


@pytest.mark.parametrize("method", ["PUT", "PATCH", "OPTIONS"])
def test_a_method_that_a_view_does_not_have_is_405_also_where_no_scope_is_named(world: World, method: str) -> None:
    refused(world.token("dana", scopes=["audit:read"]).send(method, "jobs/"), 405, "method_not_allowed")


def test_a_viewer_reads_and_changes_nothing(world: World) -> None:
    assert world.erin.get("hosts/mx1/").status_code == 200
    assert world.erin.post("jobs/", JOB).status_code == 202
    refused(world.erin.patch("hosts/mx1/", {"enabled": False}), 403, "forbidden")
    refused(world.erin.post("hosts/mx1/scan-host-key/"), 403, "forbidden")
    hold = {"operation": "queue.hold", "target": {"hosts": ["mx1"]}, "params": {"match": "from:a@b.c"}, "reason": "x"}
    refused(world.erin.post("jobs/", hold), 403, "forbidden")


def test_a_token_gives_away_no_more_than_it_has(world: World) -> None:
    narrow = world.token("dana", scopes=["jobs:read"], expires_at=timezone.now() + timedelta(hours=1))
    refused(narrow.post("tokens/", {"name": "x", "scopes": ["admin"]}), 403, "forbidden")
    made = narrow.post("tokens/", {"name": "x"}).json()
    assert made["scopes"] == ["jobs:read"]
    assert made["expires_at"] is not None
    boxed = world.token("dana", networks=["127.0.0.0/8"])
    refused(boxed.post("tokens/", {"name": "x", "networks": ["0.0.0.0/0"]}), 403, "forbidden")
    assert boxed.post("tokens/", {"name": "x"}).json()["networks"] == ["127.0.0.0/8"]


def test_a_token_for_somebody_else_needs_admin(world: World) -> None:
    refused(world.alice.post("tokens/", {"name": "x", "user": "bob"}), 403, "forbidden")
    refused(world.anna.post("tokens/", {"name": "x", "user": "dana"}), 422, "invalid")
    made = world.anna.post("tokens/", {"name": "x", "service_account": "robot"})
    assert made.status_code == 201
    assert made.json()["service_account"] == "robot"
    refused(world.dana.post("tokens/", {"name": "x", "user": "nobody"}), 422, "invalid")
    refused(world.dana.post("tokens/", {"name": "x", "user": "robot"}), 422, "invalid")


def test_tokens_of_others_are_seen_by_their_admin_only(world: World) -> None:
    made = world.alice.post("tokens/", {"name": "x"}).json()
    refused(world.bob.get(f"tokens/{made['id']}/"), 404, "not_found")
    refused(world.bob.delete(f"tokens/{made['id']}/"), 404, "not_found")
    refused(world.charlie.delete(f"tokens/{made['id']}/"), 404, "not_found")
    assert world.anna.delete(f"tokens/{made['id']}/").status_code == 204
    dana = Token.objects.filter(account__username="dana").first()
    refused(world.anna.get(f"tokens/{dana.pk}/"), 404, "not_found")


@pytest.mark.parametrize(
    ("change", "field"),
    [
        ({"scopes": ["root"]}, "scopes[0]"),
        ({"scopes": []}, "scopes"),
        ({"scopes": "admin"}, "scopes"),
        ({"networks": ["300.0.0.0/8"]}, "networks[0]"),
        ({"networks": ["10.0.0.1/8"]}, "networks[0]"),
        ({"expires_at": "2020-01-01T00:00:00Z"}, "expires_at"),
        ({"expires_at": "9999-12-31T23:59:59Z"}, "expires_at"),
        ({"expires_at": "2027-01-01T00:00:00"}, "expires_at"),
        ({"expires_at": "2027-02-30T00:00:00Z"}, "expires_at"),
        ({"expires_at": "2026-12-31T23:59:60Z"}, "expires_at"),
        ({"expires_at": 1893456000}, "expires_at"),
        ({"name": "a\nb"}, "name"),
        ({"name": ""}, "name"),
        ({"user": "alice", "service_account": "robot"}, "service_account"),
        ({"token": "mxf_mine"}, "token"),
    ],
)
def test_a_token_that_cannot_be_is_422(world: World, change: dict, field: str) -> None:
    body = refused(world.alice.post("tokens/", {"name": "x"} | change), 422, "invalid")
    assert field in {error["field"] for error in body["errors"]}


def test_who_is_named_as_another_kind_of_account_is_told_so(world: World) -> None:
    body = refused(world.anna.post("tokens/", {"name": "x", "user": "robot"}), 422, "invalid")
    assert body["errors"][0]["detail"] == (
        "there is no user 'robot' that you administer; a service account is named in service_account"
    )


def test_last_used_is_coarse(world: World) -> None:
    made = world.alice.post("tokens/", {"name": "x"}).json()
    caller = Caller(made["token"])
    caller.get("whoami/")
    first = Token.objects.get(pk=made["id"]).last_used_at
    caller.get("whoami/")
    assert first is not None
    assert Token.objects.get(pk=made["id"]).last_used_at == first


@contextmanager
def writing_elsewhere(token: Any) -> Iterator[None]:
    """Somebody else has a transaction open that has written that token's row."""
    begun, end = threading.Event(), threading.Event()

    def write() -> None:
        with transaction.atomic():
            Token.objects.filter(pk=token).update(name="busy")
            begun.set()
            assert end.wait(20)
        connection.close()

    writer = threading.Thread(target=write)
    writer.start()
    assert begun.wait(10)
    yield
    end.set()
    writer.join(10)


@pytest.mark.django_db(transaction=True)
def test_a_read_waits_for_no_writer_to_tell_that_its_token_was_used() -> None:
    caller = build_world().alice
    token = Token.objects.get(account__username="alice")
    with writing_elsewhere(token.pk):
        began = time.monotonic()
        assert caller.get("whoami/").status_code == 200
        assert time.monotonic() - began < 5
        with connection.cursor() as cursor:
            if connection.vendor == "sqlite":
                assert cursor.execute("PRAGMA busy_timeout").fetchone() == (20_000,)
    token.refresh_from_db()
    assert token.last_used_at is None
    caller.get("whoami/")
    token.refresh_from_db()
    assert token.last_used_at is not None


@pytest.mark.django_db(transaction=True)
def test_a_use_that_is_not_told_leaves_no_cursor_to_the_garbage_collector() -> None:
    """Another thread that collects it would wait for the connection of the first, with SQLite's lock in its hands."""
    caller = build_world().alice
    token = Token.objects.get(account__username="alice")
    caller.get("whoami/")
    Token.objects.update(last_used_at=None)
    gc.collect()
    gc.disable()
    try:
        with writing_elsewhere(token.pk):
            before = _cursors()
            caller.get("whoami/")
            assert _cursors() <= before
    finally:
        gc.enable()


def _cursors() -> int:
    """How many there are of the driver."""
    return sum(issubclass(type(each), sqlite3.Cursor | psycopg.Cursor) for each in gc.get_objects())


def test_the_first_admin_gets_a_file_that_nobody_else_reads(db: None, tmp_path: Path) -> None:
    path, told = tmp_path / "admin-token", StringIO()
    call_command("first_admin", token_file=path, stdout=told)
    assert path.stat().st_mode & 0o777 == 0o600
    assert told.getvalue().strip() == str(path)
    who = Caller(path.read_text().strip()).get("whoami/").json()
    assert who["roles"] == [{"role": "admin", "customer": None}]
    assert "admin" in who["scopes"]
    with pytest.raises(CommandError):
        call_command("first_admin", token_file=path, stdout=told)


def test_a_lost_first_token_is_replaced_without_a_second_administrator(db: None, tmp_path: Path) -> None:
    call_command("first_admin", token_file=tmp_path / "one", stdout=StringIO())
    call_command("first_admin", token_file=tmp_path / "two", username="other", stdout=StringIO())
    first, second = (Caller((tmp_path / name).read_text().strip()) for name in ("one", "two"))
    assert first.get("whoami/").json()["username"] == second.get("whoami/").json()["username"] == "admin"
