"""Customers, people, credentials, hosts, instances, the catalogue."""

import socket
from datetime import UTC, datetime

import asyncssh
import pytest
from django.utils import timezone

from fleet.models import Credential, Host, Instance, QuarantineLook
from fleet.mta.errors import Unreachable
from fleet.secrets import open_credential
from fleet.ssh.hostkeys import HostKey
from jobs.models import AuditEvent, HostLease, Job
from tests.http.cast import HOST_KEY, World
from tests.http.test_errors import refused
from tests.http.test_jobs import planned

PEM = asyncssh.generate_private_key("ssh-ed25519").export_private_key().decode()
LOCKED = asyncssh.generate_private_key("ssh-ed25519").export_private_key("pkcs8-pem", passphrase="opensesame").decode()
PUBLIC = asyncssh.generate_private_key("ssh-ed25519").export_public_key().decode().strip()
HOST = {
    "name": "mx9",
    "customer": "acme",
    "address": "mx9.example.com",
    "username": "mxfleet",
    "credential": "acme-key",
}


def actions(name: str) -> list[str]:
    """What the audit trail tells of an object."""
    return list(AuditEvent.objects.filter(object=name).order_by("id").values_list("action", flat=True))


def test_a_host_is_made_changed_and_deleted_and_each_is_audited(world: World) -> None:
    made = world.anna.post(
        "hosts/", HOST | {"labels": {"role": "relay"}, "site": "fra", "host_key": f"{PUBLIC} comment"}
    )
    assert made.status_code == 201, made.content
    assert made.headers["Location"].endswith("/api/v1/hosts/mx9/")
    assert made.json() == {
        **HOST,
        "port": 22,
        "host_key": " ".join(PUBLIC.split()[:2]),
        "host_ca": "",
        "become": "none",
        "jump_host": None,
        "labels": {"role": "relay"},
        "site": "fra",
        "enabled": True,
        "status": "new",
        "status_reason": "",
        "last_seen_at": None,
        "scripts": None,
    }
    changed = world.anna.patch("hosts/mx9/", {"port": 2222, "jump_host": "mx1"})
    assert (changed.json()["port"], changed.json()["jump_host"]) == (2222, "mx1")
    assert world.anna.delete("hosts/mx9/").status_code == 204
    refused(world.anna.get("hosts/mx9/"), 404, "not_found")
    assert actions("mx9") == ["host.created", "host.updated", "host.deleted"]


@pytest.mark.parametrize(
    "address",
    [
        "-oProxyCommand=id",
        "mx1;id",
        "mx1 mx2",
        "mx1\n",
        "user@mx1",
        "mx1:22/../x",
        "mx1:99999",
        "[::1]",
        "fe80::1%eth0",
        "2001:db8::1%1",
        "a" * 254,
        "mx1..example.com",
        "mx_é.example",
        "0x8080808",
        "8.8.2056",
        "",
    ],
)
def test_an_address_that_is_none_is_422(world: World, address: str) -> None:
    body = refused(world.anna.post("hosts/", HOST | {"address": address}), 422, "invalid")
    assert body["errors"][0]["field"] == "address"


@pytest.mark.parametrize(
    "address",
    [
        "localhost",
        "LOCALHOST.",
        "127.1",
        "0",
        "2130706433",
        "0x7f.1",
        "017700000001",
        "127.0.0.1",
        "::1",
        "::",
        "0:0:0:0:0:0:0:1",
        "::ffff:127.0.0.1",
        "64:ff9b::7f00:1",
        "169.254.169.254",
        "::ffff:169.254.169.254",
        "fe80::1",
        "224.0.0.1",
        "255.255.255.255",
        "db.default.svc.cluster.local",
        "redis.svc",
        "fd00:ec2::254",
        "fd20:ce::254",
        "100.100.100.200",
        "168.63.129.16",
        "192.0.0.192",
        "2002:7f00:1::1",
        "64:ff9b::a00:1",
        "64:ff9b:1::1",
        "::7f00:1",
        "fec0::1",
    ],
)
def test_an_address_of_our_own_is_forbidden(world: World, address: str) -> None:
    refused(world.anna.post("hosts/", HOST | {"address": address}), 422, "forbidden_range")
    refused(world.anna.patch("hosts/mx1/", {"address": address}), 422, "forbidden_range")


def test_our_own_database_is_no_host(world: World, settings: object, monkeypatch: pytest.MonkeyPatch) -> None:
    from dataclasses import replace

    settings.ENV = replace(settings.ENV, own_services=("db.internal.example", "192.0.2.7"))

    def answers(host: str, *_: object, **__: object) -> list[tuple[object, ...]]:
        return [(0, 0, 0, "", ("2001:db8::7" if host == "db.internal.example" else host, 0))]

    monkeypatch.setattr(socket, "getaddrinfo", answers)
    for address in ("DB.internal.example", "192.0.2.7", "::ffff:192.0.2.7", "2001:db8::7"):
        refused(world.anna.post("hosts/", HOST | {"address": address, "port": 2222}), 422, "forbidden_range")


@pytest.mark.parametrize(
    ("change", "field", "code"),
    [
        ({"port": "22"}, "port", "wrong_type"),
        ({"port": 22.0}, "port", "wrong_type"),
        ({"port": 0}, "port", "invalid"),
        ({"port": 65536}, "port", "invalid"),
        ({"port": True}, "port", "wrong_type"),
        ({"port": None}, "port", "wrong_type"),
        ({"name": "mx1;id"}, "name", "invalid"),
        ({"name": "-x"}, "name", "invalid"),
        ({"name": "x" * 64}, "name", "invalid"),
        ({"username": "root;id"}, "username", "invalid"),
        ({"username": "-l"}, "username", "invalid"),
        ({"credential": "none"}, "credential", "invalid"),
        ({"credential": "beta-key"}, "credential", "invalid"),
        ({"customer": "nobody"}, "customer", "invalid"),
        ({"jump_host": "bx1"}, "jump_host", "invalid"),
        ({"become": "su"}, "become", "invalid"),
        ({"labels": {"role": "mx", "a b": "x"}}, "labels.a b", "invalid"),
        ({"labels": {"a": 1}}, "labels.a", "wrong_type"),
        ({"labels": ["a"]}, "labels", "wrong_type"),
        ({"labels": {f"k{n}": "v" for n in range(65)}}, "labels", "invalid"),
        ({"enabled": "yes"}, "enabled", "wrong_type"),
        ({"status": "ok"}, "status", "unknown_field"),
        ({"facts": {}}, "facts", "unknown_field"),
        ({"host_key": "* ssh-ed25519 AAAA"}, "host_key", "invalid"),
        ({"host_key": f"@revoked {HOST_KEY}"}, "host_key", "invalid"),
        ({"host_key": "ssh-ed25519 AAAA"}, "host_key", "invalid"),
        ({"host_ca": "x"}, "host_ca", "invalid"),
        ({"site": "a/b"}, "site", "invalid"),
    ],
)
def test_a_host_that_cannot_be_is_422(world: World, change: dict, field: str, code: str) -> None:
    body = refused(world.anna.post("hosts/", HOST | change), 422, "invalid")
    assert (field, code) in {(error["field"], error["code"]) for error in body["errors"]}


def test_a_host_name_is_taken_whoever_owns_the_other(world: World) -> None:
    refused(world.anna.post("hosts/", HOST | {"name": "bx1"}), 422, "name_taken")
    refused(world.anna.patch("hosts/mx1/", {"name": "bx1"}), 422, "name_taken")


def test_a_host_is_not_reached_through_itself(world: World) -> None:
    world.anna.post("hosts/", HOST | {"jump_host": "mx1"})
    refused(world.anna.patch("hosts/mx1/", {"jump_host": "mx9"}), 422, "invalid")
    refused(world.anna.patch("hosts/mx1/", {"jump_host": "mx1"}), 422, "invalid")
    refused(world.anna.delete("hosts/mx1/"), 409, "in_use")


def test_a_changed_connection_makes_a_host_new_again(world: World) -> None:
    Host.objects.filter(name="mx1").update(status="refused", status_reason="login refused")
    assert world.anna.patch("hosts/mx1/", {"labels": {}}).json()["status"] == "refused"
    changed = world.anna.patch("hosts/mx1/", {"host_key": PUBLIC}).json()
    assert (changed["status"], changed["status_reason"]) == ("new", "")


def test_hosts_are_filtered(world: World) -> None:
    world.anna.post("hosts/", HOST | {"site": "fra", "labels": {"role": "relay", "a/b": "c"}})

    def names(query: str) -> list[str]:
        return [row["name"] for row in world.dana.get(f"hosts/?{query}").json()["results"]]

    assert names("") == ["bx1", "mx1", "mx9"]
    assert names("customer=acme") == ["mx1", "mx9"]
    assert names("site=fra") == ["mx9"]
    assert names("label=role%3Dmx") == ["mx1"]
    assert names("label=role%3Arelay") == ["mx9"]
    assert names("label=a/b%3Dc") == ["mx9"]
    assert names("enabled=false") == []
    assert names("customer=nobody") == []
    refused(world.dana.get("hosts/?enabled=1"), 422, "invalid")


def test_an_etag_saves_a_body_and_guards_a_change(world: World) -> None:
    answer = world.anna.get("hosts/mx1/")
    tag = answer.headers["ETag"]
    same = world.anna.get("hosts/mx1/", If_None_Match=tag)
    assert (same.status_code, same.content) == (304, b"")
    changed = world.anna.patch("hosts/mx1/", {"site": "fra"}, If_Match=tag)
    assert changed.status_code == 200
    refused(world.anna.patch("hosts/mx1/", {"site": "ber"}, If_Match=tag), 412, "precondition_failed")
    refused(world.anna.delete("hosts/mx1/", If_Match=tag), 412, "precondition_failed")
    assert world.anna.patch("hosts/mx1/", {"site": "ber"}, If_Match=changed.headers["ETag"]).status_code == 200
    assert world.anna.patch("hosts/mx1/", {"site": "muc"}, If_Match="*").status_code == 200


def test_a_credential_keeps_its_key_to_itself(world: World) -> None:
    body = {"name": "deploy", "customer": "acme", "private_key": LOCKED, "passphrase": "opensesame"}
    made = world.anna.post("credentials/", body)
    assert made.status_code == 201, made.content
    assert set(made.json()) == {"name", "customer", "certificate", "public_key"}
    row = Credential.objects.get(name="deploy")
    assert open_credential(row).startswith(b"-----BEGIN OPENSSH PRIVATE KEY-----")
    for text in (
        row.private_key,
        str(list(AuditEvent.objects.values())),
        world.anna.get("credentials/deploy/").content,
    ):
        assert "PRIVATE KEY" not in str(text)
        assert "opensesame" not in str(text)
    renamed = world.anna.patch("credentials/deploy/", {"name": "deploy2"})
    assert renamed.status_code == 200
    assert open_credential(Credential.objects.get(name="deploy2")).startswith(b"-----BEGIN")
    assert world.anna.delete("credentials/deploy2/").status_code == 204


@pytest.mark.parametrize(
    ("key", "passphrase"),
    [
        (LOCKED, None),
        (LOCKED, "wrong"),
        (PUBLIC, None),
        (PEM.replace("\n", "\r\n"), None),
        ("nonsense", None),
        (asyncssh.generate_private_key("ssh-rsa", key_size=1024).export_private_key().decode(), None),
    ],
    ids=["locked", "wrong passphrase", "public", "CRLF", "nonsense", "RSA-1024"],
)
def test_a_key_that_cannot_be_opened_is_unusable_and_not_echoed(world: World, key: str, passphrase: str | None) -> None:
    body = {"name": "deploy", "customer": "acme", "private_key": key}
    answer = world.anna.post("credentials/", body | ({"passphrase": passphrase} if passphrase else {}))
    problem = refused(answer, 422, "unusable_key")
    assert problem["errors"][0]["field"] == "private_key"
    assert key[40:80] not in answer.content.decode() or key == "nonsense"


def test_a_credential_in_use_is_not_deleted(world: World) -> None:
    refused(world.anna.delete("credentials/acme-key/"), 409, "in_use")


def test_credential_names_are_unique_per_customer_and_told_apart(world: World) -> None:
    for slug in ("acme", "beta"):
        assert (
            world.dana.post("credentials/", {"name": "same", "customer": slug, "private_key": PEM}).status_code == 201
        )
    refused(
        world.dana.post("credentials/", {"name": "same", "customer": "acme", "private_key": PEM}), 422, "name_taken"
    )
    refused(world.dana.get("credentials/same/"), 409, "ambiguous")
    assert world.dana.get("credentials/same/?customer=beta").json()["customer"] == "beta"
    assert world.anna.get("credentials/same/").json()["customer"] == "acme"


def test_a_host_key_is_shown_and_not_trusted(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("jobs.worker.runner.scan_host_key", lambda host: HostKey(PUBLIC, "SHA256:x", "ssh-ed25519"))
    answer = world.anna.post("hosts/mx1/scan-host-key/")
    assert answer.json() == {"host_key": PUBLIC, "fingerprint": "SHA256:x", "algorithm": "ssh-ed25519"}
    assert Host.objects.get(name="mx1").host_key == ""


def test_looks_at_host_keys_are_bounded_for_each_caller(
    world: World, settings: object, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings.SCAN_RATE = (0.001, 1)
    monkeypatch.setattr("jobs.worker.runner.scan_host_key", lambda host: HostKey(PUBLIC, "SHA256:x", "ssh-ed25519"))
    assert world.anna.post("hosts/mx1/scan-host-key/").status_code == 200
    answer = world.anna.post("hosts/mx1/scan-host-key/")
    refused(answer, 429, "rate_limited")
    assert int(answer.headers["Retry-After"]) >= 1
    assert world.anna.get("hosts/mx1/").status_code == 200
    assert world.dana.post("hosts/mx1/scan-host-key/").status_code == 200


def test_a_host_that_does_not_answer_a_scan_is_502(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    def silent(host: Host) -> None:
        raise Unreachable("no route", hint="is it up?")

    monkeypatch.setattr("jobs.worker.runner.scan_host_key", silent)
    body = refused(world.anna.post("hosts/mx1/scan-host-key/"), 502, "unreachable")
    assert body["error"] == {"code": "unreachable", "detail": "no route", "hint": "is it up?"}


def locked(world: World) -> Job:
    """A job that has mx1 and whose outcome there is unknown."""
    job = planned(world)
    HostLease.objects.create(host=Host.objects.get(name="mx1"), job=job)
    job.runs.update(state="unknown", is_planning=False, reconcile_at=timezone.now())
    return job


def test_an_administrator_frees_a_host_and_says_why(world: World) -> None:
    job = locked(world)
    answer = world.anna.post("hosts/mx1/unlock/", {"reason": "looked at by hand"})
    assert (answer.status_code, answer.json()["host"], answer.json()["job"]) == (200, "mx1", str(job.pk))
    assert HostLease.objects.get().job is None
    refused(world.anna.post("hosts/mx1/unlock/", {"reason": "again"}), 409, "not_locked")


def test_nobody_else_frees_a_host(world: World) -> None:
    locked(world)
    refused(world.alice.post("hosts/mx1/unlock/", {"reason": "mine"}), 403, "forbidden")
    refused(world.anna.post("hosts/mx1/unlock/", {}), 422, "invalid")
    assert HostLease.objects.get().job is not None


def test_discovery_is_a_job(world: World) -> None:
    answer = world.alice.post("hosts/mx1/discover/")
    assert answer.status_code == 202
    assert answer.json()["operation"] == "host.discover"
    assert answer.headers["Location"].endswith(f"/api/v1/jobs/{answer.json()['id']}/")
    assert answer.headers["Retry-After"]


def test_an_instance_tells_what_it_can_do(world: World) -> None:
    body = world.alice.get("instances/mx1/postfix/").json()
    assert (body["id"], body["customer"], body["mta"]) == ("mx1/postfix", "acme", "postfix")
    assert body["capabilities"]["queue.list"]["support"] == "native"
    page = world.dana.get("instances/?mta=postfix&host=bx1").json()
    assert [row["id"] for row in page["results"]] == ["bx1/postfix"]


def test_an_instance_tells_what_lies_in_its_quarantine_without_a_record(world: World) -> None:
    assert world.alice.get("instances/mx1/postfix/").json()["orphans"] is None
    instance = Instance.objects.get(host__name="mx1", name="postfix")
    seen = datetime(2026, 11, 21, 12, tzinfo=UTC)
    QuarantineLook.objects.create(
        instance=instance, due_at=seen, looked_at=seen, orphans=2, odd=1, sample=["J/1", "J/2"]
    )
    told = {"count": 2, "more": 0, "odd": 1, "sample": ["J/1", "J/2"], "seen_at": "2026-11-21T12:00:00Z", "error": ""}
    assert world.alice.get("instances/mx1/postfix/").json()["orphans"] == told
    rows = world.alice.get("instances/?mta=postfix").json()["results"]
    assert {row["id"]: row["orphans"] for row in rows}["mx1/postfix"] == told


def test_the_catalogue_has_every_operation_with_its_schema(world: World) -> None:
    rows = {row["name"]: row for row in world.alice.get("operations/").json()["results"]}
    assert {"host.discover", "queue.list", "queue.purge", "sender.block", "message.deliver"} <= set(rows)
    assert rows["queue.purge"]["changes"] is True
    assert rows["queue.purge"]["params"]["additionalProperties"] is False
    assert rows["queue.purge"]["mtas"]["postfix"]["support"] in ("native", "emulated")


def test_a_sudoers_file_is_text(world: World) -> None:
    answer = world.alice.get("hosts/mx1/sudoers/")
    assert answer.headers["Content-Type"].startswith("text/plain")
    assert "mxfleet ALL=(root) NOPASSWD: MXFLEET_MXFLEET_1\n" in answer.content.decode()


def test_customers_are_made_by_the_administrator_of_all(world: World) -> None:
    body = {"slug": "gamma", "name": "Gamma", "contact": "ops@gamma.example"}
    refused(world.anna.post("customers/", body), 403, "forbidden")
    made = world.dana.post("customers/", body)
    assert made.status_code == 201
    assert made.json() == body | {"enabled": True, "defaults": {}}
    refused(world.dana.post("customers/", body), 422, "name_taken")
    assert world.dana.patch("customers/gamma/", {"enabled": False}).json()["enabled"] is False
    refused(world.dana.patch("customers/gamma/", {"slug": "delta"}), 422, "invalid")
    assert world.dana.delete("customers/gamma/").status_code == 204
    refused(world.dana.delete("customers/acme/"), 409, "in_use")
    assert actions("gamma") == ["customer.created", "customer.updated", "customer.deleted"]


def test_people_are_made_within_ones_own_customers(world: World) -> None:
    frank = {
        "username": "frank",
        "name": "Frank",
        "email": "f@acme.example",
        "roles": [{"role": "viewer", "customer": "acme"}],
    }
    made = world.anna.post("users/", frank)
    assert made.status_code == 201
    assert made.json() == frank | {"enabled": True}
    refused(world.anna.post("users/", frank | {"username": "FRANK"}), 422, "name_taken")
    for wide in ([{"role": "viewer", "customer": None}], []):
        refused(world.anna.post("users/", frank | {"username": "g", "roles": wide}), 403, "forbidden")
    beyond = [{"role": "viewer", "customer": "beta"}]
    refused(world.anna.post("users/", frank | {"username": "g", "roles": beyond}), 422, "invalid")
    refused(world.anna.patch("users/frank/", {"roles": [{"role": "admin", "customer": None}]}), 403, "forbidden")
    assert world.anna.patch("users/frank/", {"roles": [{"role": "operator", "customer": "acme"}]}).status_code == 200
    assert world.anna.delete("users/frank/").status_code == 204


def test_nobody_promotes_himself(world: World) -> None:
    refused(world.alice.patch("users/alice/", {"roles": [{"role": "admin", "customer": None}]}), 403, "forbidden")
    refused(world.anna.patch("users/anna/", {"roles": [{"role": "admin", "customer": None}]}), 403, "forbidden")
    refused(world.alice.post("users/", {"username": "x"}), 403, "forbidden")


def test_an_integration_has_its_kind_and_its_own_list(world: World) -> None:
    made = world.anna.post("service-accounts/", {"username": "ci", "roles": [{"role": "operator", "customer": "acme"}]})
    assert made.status_code == 201
    assert made.json()["kind"] == "service"
    refused(world.anna.get("users/ci/"), 404, "not_found")
    assert "ci" in [row["username"] for row in world.anna.get("service-accounts/").json()["results"]]


@pytest.mark.parametrize(
    ("change", "field"),
    [
        ({"username": "a b"}, "username"),
        ({"email": "no address"}, "email"),
        ({"email": 5}, "email"),
        ({"roles": [{"role": "root", "customer": None}]}, "roles[0].role"),
        ({"roles": [{"role": "admin"}]}, "roles[0].customer"),
        ({"roles": [{"role": "admin", "customer": None, "x": 1}]}, "roles[0].x"),
        ({"roles": [{"role": "admin", "customer": None}] * 2}, "roles[1]"),
        ({"roles": {"role": "admin"}}, "roles"),
        ({"password": "x"}, "password"),
        ({"is_superuser": True}, "is_superuser"),
    ],
)
def test_a_person_who_cannot_be_is_422(world: World, change: dict, field: str) -> None:
    body = refused(world.dana.post("users/", {"username": "frank"} | change), 422, "invalid")
    assert field in {error["field"] for error in body["errors"]}


def test_a_job_for_hosts_that_nobody_discovered_is_told_to_discover_them(world: World) -> None:
    Instance.objects.all().delete()
    for target in ({"hosts": ["mx1"]}, {"customers": ["acme"]}, {"all": True}):
        body = refused(world.alice.post("jobs/", {"operation": "queue.list", "target": target}), 422, "no_target")
        assert "discover" in body["detail"]
