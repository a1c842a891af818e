"""A host as it is to be, what new hosts of a customer get, and names that are none."""

import re
from typing import Any

import pytest

from api.v1.urls import urlpatterns
from deploy import prepare
from fleet.models import Credential, Customer, Host
from jobs.administration.names import RESERVED, reserved_in_use
from jobs.models import Account
from tests.http.cast import World
from tests.http.test_errors import refused
from tests.http.test_fleet import PEM, actions
from tests.http.test_import import FIRST, csv, errors, host, send

DEFAULTS = {
    "username": "deploy",
    "credential": "acme-key",
    "become": "sudo",
    "host_ca": FIRST.rpartition(" ")[0] if FIRST.count(" ") > 1 else FIRST,
    "jump_host": "mx1",
    "port": 2222,
    "labels": {"region": "eu"},
}
BARE = {"customer": "acme", "address": "n1.example.com"}


def with_defaults(world: World, **changes: Any) -> None:
    """Give acme these."""
    assert world.dana.patch("customers/acme/", {"defaults": {**DEFAULTS, **changes}}).status_code == 200


def test_put_adds_the_host_and_then_changes_what_it_names(world: World) -> None:
    made = world.anna.put("hosts/n1/", host("n1", labels={"role": "mx"}))
    assert (made.status_code, made.json()["port"]) == (201, 22)
    assert made.headers["Location"].endswith("/api/v1/hosts/n1/")
    assert made.headers["ETag"] == world.anna.get("hosts/n1/").headers["ETag"]
    same = world.anna.put("hosts/n1/", host("n1", labels={"role": "mx"}))
    assert (same.status_code, same.json()) == (200, made.json())
    changed = world.anna.put("hosts/n1/", {"name": "n1", **host("n1", port=2222, labels={})})
    assert (changed.json()["port"], changed.json()["labels"], changed.headers.get("Location")) == (2222, {}, None)
    assert actions("n1") == ["host.created", "host.updated"]
    refused(world.anna.put("hosts/n1/", {"name": "n2", **host("n1")}), 422, "invalid")
    refused(world.anna.put("hosts/n1/", {"port": 22}), 422, "invalid")


def test_put_honours_what_the_caller_knows(world: World) -> None:
    tag = world.anna.get("hosts/mx1/").headers["ETag"]
    refused(world.anna.put("hosts/n1/", host("n1"), If_Match=tag), 412, "precondition_failed")
    refused(world.anna.put("hosts/mx1/", host("mx1"), If_None_Match="*"), 412, "precondition_failed")
    assert world.anna.put("hosts/mx1/", host("mx1", site="fra"), If_Match=tag).status_code == 200
    refused(world.anna.put("hosts/mx1/", host("mx1", site="ber"), If_Match=tag), 412, "precondition_failed")
    assert world.anna.put("hosts/n1/", host("n1"), If_None_Match="*").status_code == 201


def test_a_change_by_put_has_the_host_tried_again_only_where_it_concerns_the_connection(world: World) -> None:
    Host.objects.filter(name="mx1").update(status="refused", status_reason="no shell")
    assert world.anna.put("hosts/mx1/", host("mx1", site="fra", port=22)).json()["status"] == "refused"
    assert world.anna.put("hosts/mx1/", host("mx1", port=2222)).json()["status"] == "new"


def test_only_an_administrator_puts(world: World) -> None:
    for caller in (world.alice, world.erin):
        refused(caller.put("hosts/mx1/", host("mx1", site="x")), 403, "forbidden")
        refused(caller.put("hosts/n1/", host("n1")), 403, "forbidden")
    refused(world.token("anna", scopes=["fleet:read"]).put("hosts/n1/", host("n1")), 403, "forbidden")
    refused(world.charlie.put("hosts/mx1/", host("mx1")), 422, "invalid")
    assert Host.objects.get(name="mx1").site == ""


@pytest.mark.parametrize("way", ["post", "put", "import"])
def test_a_new_host_gets_the_defaults_that_nobody_overrides(world: World, way: str) -> None:
    with_defaults(world)
    if way == "post":
        assert world.anna.post("hosts/", {"name": "n1", **BARE, "port": 22}).status_code == 201
    elif way == "put":
        assert world.anna.put("hosts/n1/", {**BARE, "port": 22}).status_code == 201
    else:
        assert (
            send(world.anna, csv("n1,acme,n1.example.com,22", header="name,customer,address,port")).status_code == 200
        )
    made = world.anna.get("hosts/n1/").json()
    assert {name: made[name] for name in DEFAULTS} == {**DEFAULTS, "port": 22}
    with_defaults(world, username="other", labels={})
    assert world.anna.get("hosts/n1/").json() == made  # a changed default changes no host
    assert world.anna.put("hosts/n1/", BARE).json() == made


def test_labels_of_a_row_are_set_beside_the_default_ones_and_those_of_a_body_are_all(world: World) -> None:
    with_defaults(world)
    send(world.anna, csv("n1,acme,n1.example.com,mx", header="name,customer,address,labels.role"))
    assert Host.objects.get(name="n1").labels == {"region": "eu", "role": "mx"}
    world.anna.post("hosts/", {"name": "n2", **BARE, "labels": {"role": "mx"}})
    assert Host.objects.get(name="n2").labels == {"role": "mx"}


def test_without_a_default_login_name_and_credential_are_required(world: World) -> None:
    for answer in (world.anna.post("hosts/", {"name": "n1", **BARE}), world.anna.put("hosts/n1/", BARE)):
        assert errors(answer) == [("username", "required"), ("credential", "required")]
    answer = send(world.anna, csv("n1,acme,n1.example.com", header="name,customer,address"))
    assert errors(answer) == [("rows[0].username", "required"), ("rows[0].credential", "required")]


@pytest.mark.parametrize(
    ("defaults", "field"),
    [
        ({"credential": "beta-key"}, "defaults.credential"),
        ({"credential": None}, "defaults.credential"),
        ({"jump_host": "bx1"}, "defaults.jump_host"),
        ({"host_ca": "ssh-ed25519 x"}, "defaults.host_ca"),
        ({"port": 0}, "defaults.port"),
        ({"username": "-l"}, "defaults.username"),
        ({"labels": {"a b": "c"}}, "defaults.labels.a b"),
        ({"address": "n1.example.com"}, "defaults.address"),
        ({"host_key": FIRST}, "defaults.host_key"),
        ([], "defaults"),
        (None, "defaults"),
    ],
)
def test_defaults_that_no_host_could_have_are_refused(world: World, defaults: Any, field: str) -> None:
    assert [each[0] for each in errors(world.dana.patch("customers/acme/", {"defaults": defaults}))] == [field]
    assert Customer.objects.get(slug="acme").defaults == {}


def test_defaults_are_kept_by_the_administrator_of_the_customer_and_audited(world: World) -> None:
    refused(world.alice.patch("customers/acme/", {"defaults": {"port": 2222}}), 403, "forbidden")
    assert world.anna.patch("customers/acme/", {"defaults": {"port": 2222}}).json()["defaults"] == {"port": 2222}
    assert world.anna.patch("customers/acme/", {"contact": "ops"}).json()["defaults"] == {"port": 2222}
    assert world.anna.patch("customers/acme/", {"defaults": {}}).json()["defaults"] == {}
    assert actions("acme") == ["customer.updated"] * 3
    answer = world.dana.post("customers/", {"slug": "gamma", "name": "G", "defaults": {"credential": "acme-key"}})
    assert errors(answer) == [("defaults.credential", "invalid")]
    assert not Customer.objects.filter(slug="gamma").exists()


def test_what_a_default_names_is_in_use_and_may_be_renamed(world: World) -> None:
    assert world.anna.post("hosts/", {"name": "jump", **host("jump")}).status_code == 201
    key = {"name": "spare", "customer": "acme", "private_key": PEM}
    assert world.anna.post("credentials/", key).status_code == 201
    with_defaults(world, credential="spare", jump_host="jump")
    refused(world.anna.delete("hosts/jump/"), 409, "in_use")
    refused(world.anna.delete("credentials/spare/"), 409, "in_use")
    assert world.anna.patch("hosts/jump/", {"name": "bastion"}).status_code == 200
    assert world.anna.patch("credentials/spare/", {"name": "main"}).status_code == 200
    kept = world.anna.get("customers/acme/").json()["defaults"]
    assert (kept["jump_host"], kept["credential"]) == ("bastion", "main")
    assert world.anna.post("hosts/", {"name": "n1", **BARE}).json()["jump_host"] == "bastion"


@pytest.mark.parametrize("name", ["import", "Import", "test", "check"])
def test_words_that_are_addresses_are_no_names(world: World, name: str) -> None:
    refused(world.anna.post("hosts/", {"name": name, **host("n1")}), 422, "reserved_name")
    refused(world.anna.patch("hosts/mx1/", {"name": name}), 422, "reserved_name")
    key = {"name": name, "customer": "acme", "private_key": PEM}
    refused(world.anna.post("credentials/", key), 422, "reserved_name")
    refused(world.anna.patch("credentials/acme-key/", {"name": name}), 422, "reserved_name")
    refused(world.dana.post("customers/", {"slug": name.lower(), "name": "x"}), 422, "reserved_name")
    for kind in ("users", "service-accounts"):
        refused(world.dana.post(f"{kind}/", {"username": name}), 422, "reserved_name")


def test_every_word_of_an_address_below_a_collection_is_reserved() -> None:
    named = ("customers", "users", "service-accounts", "credentials", "hosts")
    words = {
        found[2]
        for pattern in urlpatterns
        if (found := re.match(r"([a-z-]+)/([a-z-]+)/$", str(pattern.pattern))) and found[1] in named
    }
    assert words
    assert words <= RESERVED


def test_an_upgrade_names_what_bears_such_a_word(world: World) -> None:
    assert reserved_in_use() == []
    Host.objects.filter(name="mx1").update(name="Import")
    Customer.objects.filter(slug="beta").update(slug="test")
    Credential.objects.filter(name="acme-key").update(name="check")
    Account.objects.filter(username="erin").update(username="export")
    assert reserved_in_use() == ["customer test", "credential check", "host Import", "account export"]
    assert world.anna.patch("hosts/Import/", {"site": "fra"}).status_code == 200  # it keeps its name until renamed
    assert world.anna.patch("hosts/Import/", {"name": "mx1"}).status_code == 200


def test_a_credential_is_replaced_by_another_one_on_its_hosts(world: World) -> None:
    where = "credentials/acme-key/replace/"
    assert world.anna.get(where).json() == {"by": "", "left": 0, "failed": []}
    refused(world.anna.post(where, {"by": "spare"}), 422, "invalid")
    assert world.anna.post("credentials/", {"name": "spare", "customer": "acme", "private_key": PEM}).status_code == 201
    for caller in (world.alice, world.erin):
        refused(caller.post(where, {"by": "spare"}), 403, "forbidden")
    once = {"Idempotency_Key": "rotation"}
    begun = world.anna.post(where, {"by": "spare"}, **once)
    assert (begun.status_code, begun.json()) == (200, {"by": "spare", "left": 1, "failed": []})
    assert world.anna.post(where, {"by": "spare"}, **once).headers["Idempotency-Replayed"] == "true"
    spare = world.anna.get("credentials/spare/").json()["public_key"]
    assert f"\nnext_key='{spare}'\n" in world.anna.get("hosts/mx1/installer/").content.decode()
    refused(world.anna.delete("credentials/spare/"), 409, "in_use")
    Host.objects.filter(name="mx1").update(next_credential_error="auth_failed: no", next_credential_tries=2)
    told = world.dana.get(f"{where}?customer=acme").json()
    assert told["failed"] == [{"host": "mx1", "error": "auth_failed: no", "tries": 2}]
    refused(world.alice.delete(where), 403, "forbidden")
    refused(world.anna.delete(where, If_Match='"x"'), 412, "precondition_failed")
    assert world.anna.delete(where).status_code == 204
    assert "\nnext_key=''\n" in world.anna.get("hosts/mx1/installer/").content.decode()
    refused(world.anna.delete(where), 409, "not_used")
    assert actions("acme-key") == ["credential.replacing", "credential.replacing_stopped"]


def test_the_upgrade_says_so(world: World, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(prepare, "call_command", lambda *_, **__: None)
    monkeypatch.setattr("deploy.grants.grant", lambda connection: None)
    prepare._prepare()
    assert capsys.readouterr().err == ""
    Host.objects.filter(name="mx1").update(name="import")
    prepare._prepare()
    assert "host import is called by a word" in capsys.readouterr().err
