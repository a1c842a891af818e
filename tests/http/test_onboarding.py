"""How hosts come in: installers, and what is missing on a host."""

import io
import tarfile
from base64 import b64decode
from typing import Any

import asyncssh
import dns.name
import pytest

from fleet.models import Host, Instance
from fleet.mta.errors import Unreachable
from fleet.ssh import sshfp
from fleet.ssh.hostkeys import HostKey, describe
from fleet.ssh.quoting import SCRIPTS, script_text
from jobs.worker import scanning
from tests.http.cast import World
from tests.http.test_errors import refused
from tests.http.test_fleet import PUBLIC
from tests.unit.test_sshfp import World as Zones
from tests.unit.test_sshfp import Zone, served


def test_the_installer_has_the_public_key_the_scripts_and_the_rules_of_what_was_discovered(world: World) -> None:
    Host.objects.filter(name="mx1").update(become="sudo")
    answer = world.anna.get("hosts/mx1/installer/")
    text = answer.content.decode()
    assert (answer.status_code, answer.headers["Content-Type"]) == (200, "text/x-shellscript")
    assert "\naccount=mxfleet\n" in text
    assert "\npublic_key='ssh-ed25519 AAAA'\n" in text
    assert "PRIVATE KEY" not in text
    assert world.anna.get("hosts/mx1/sudoers/").content.decode() in text
    assert world.anna.get("hosts/mx1/installer/", If_None_Match=answer.headers["ETag"]).status_code == 304


@pytest.mark.parametrize(("become", "why"), [("sudo", "discover mx1"), ("none", "mxfleet does not use it here")])
def test_an_installer_without_rules_says_why(world: World, become: str, why: str) -> None:
    Host.objects.filter(name="mx1").update(become=become)
    if become == "sudo":
        Instance.objects.filter(host__name="mx1").update(enabled=False)
    text = world.anna.get("hosts/mx1/installer/").content.decode()
    assert f"\nno_rules='{why}" in text
    assert "NOPASSWD: MXFLEET" not in text


def test_the_installer_comes_as_a_role_in_a_tar_too(world: World) -> None:
    answer = world.anna.get("hosts/mx1/installer/?format=ansible")
    assert (answer.status_code, answer.headers["Content-Type"]) == (200, "application/x-tar")
    with tarfile.open(fileobj=io.BytesIO(answer.content)) as tar:
        script = tar.extractfile("mxfleet/files/mx1.sh")
        assert script is not None
        assert script.read() == world.anna.get("hosts/mx1/installer/?format=sh").content
    refused(world.anna.get("hosts/mx1/installer/?format=puppet"), 422, "invalid")


def test_only_who_administers_the_host_gets_its_installer(world: World) -> None:
    refused(world.alice.get("hosts/mx1/installer/"), 403, "forbidden")
    refused(world.token("anna", scopes=["fleet:read"]).get("hosts/mx1/installer/"), 403, "forbidden")


def seen(*helpers: tuple[str, str]) -> None:
    """What discovery saw of mx1."""
    Host.objects.filter(name="mx1").update(facts={"helpers": [list(each) for each in helpers]})


OURS = {name: script_text(name)[1] for name in SCRIPTS}


@pytest.mark.parametrize(
    ("there", "state"),
    [
        (OURS, "current"),
        (OURS | {"theirs.sh": "0" * 64}, "current"),
        (OURS | {"fence.sh": "0" * 64}, "outdated"),
        ({"fence.sh": OURS["fence.sh"]}, "outdated"),
        ({}, "absent"),
        ({"theirs.sh": "0" * 64}, "absent"),
    ],
)
def test_a_host_tells_whether_our_scripts_are_there(world: World, there: dict[str, str], state: str) -> None:
    seen(*there.items())
    assert world.erin.get("hosts/mx1/").json()["scripts"] == state
    assert {row["name"]: row["scripts"] for row in world.erin.get("hosts/").json()["results"]} == {"mx1": state}


def test_of_scripts_nobody_looked_for_nothing_is_said(world: World) -> None:
    assert world.erin.get("hosts/mx1/").json()["scripts"] is None
    refused(world.anna.patch("hosts/mx1/", {"scripts": "current"}), 422, "invalid")


def test_a_check_is_a_job_of_the_host(world: World) -> None:
    answer = world.alice.post("hosts/mx1/check/")
    assert (answer.status_code, answer.json()["operation"]) == (202, "host.check")
    assert answer.json()["target"] == {"hosts": ["mx1"]}
    refused(world.token("alice", scopes=["fleet:read"]).post("hosts/mx1/check/"), 403, "forbidden")
    refused(world.alice.post("hosts/mx1/check/", {"hosts": ["mx1"]}), 422, "invalid")


SHOWN = describe(asyncssh.generate_private_key("ssh-ed25519").convert_to_public())
OTHER = "SHA256:" + "A" * 43


class Keys:
    """An engine whose hosts all show SHOWN, but for those that are silent; `certified`: what a CA has signed."""

    certified: HostKey | None = None

    def scan_host_key(self, address: str, port: int, jump: Any) -> HostKey:
        if address.startswith("bx"):
            raise Unreachable("no answer", hint="Look at it.")
        return SHOWN

    def scan_certified_key(self, address: str, port: int, jump: Any, **asked: str) -> HostKey | None:
        assert asked == {"name": "mx1", "username": "mxfleet", "authority": PUBLIC}
        return self.certified


@pytest.fixture
def keys(monkeypatch: pytest.MonkeyPatch) -> Keys:
    made = Keys()
    monkeypatch.setattr(scanning, "engine", lambda: made)
    monkeypatch.setattr(scanning, "nameservers", list)
    return made


def scanned(caller: Any, body: Any, query: str = "") -> dict[str, Any]:
    answer = caller.post(f"hosts/scan-host-keys/{query}", body)
    assert answer.status_code == 200, answer.content
    return {row["host"]: row for row in answer.json()["results"]}


def test_the_keys_of_many_hosts_are_shown_and_nothing_is_trusted(world: World, keys: Keys) -> None:
    rows = scanned(world.dana, {"hosts": ["mx1", "bx1"]})
    assert rows["mx1"] == {
        "host": "mx1",
        "verdict": "unproven",
        "host_key": SHOWN.host_key,
        "fingerprint": SHOWN.fingerprint,
        "algorithm": "ssh-ed25519",
        "is_trusted": False,
        "evidence": [{"by": "sshfp", "verdict": "unproven", "expected": [], "detail": "no nameserver is known"}],
        "error": None,
    }
    assert (rows["bx1"]["verdict"], rows["bx1"]["fingerprint"]) == ("unproven", None)
    assert rows["bx1"]["error"] == {"code": "unreachable", "detail": "no answer", "hint": "Look at it."}
    assert set(Host.objects.values_list("host_key", flat=True)) == {""}


@pytest.mark.parametrize(
    ("known", "verdict"),
    [([SHOWN.fingerprint], "matches"), ([OTHER, f"{SHOWN.host_key} root@mx1"], "matches"), ([OTHER], "differs")],
)
def test_keys_are_compared_with_a_list(world: World, keys: Keys, known: list[str], verdict: str) -> None:
    row = scanned(world.anna, {"hosts": ["mx1"], "keys": {"mx1": known}})["mx1"]
    assert row["verdict"] == verdict
    assert row["evidence"][1]["expected"][0] == known[0]


@pytest.mark.parametrize(("certified", "verdict"), [(SHOWN, "matches"), (None, "unproven")])
def test_keys_are_compared_with_a_certificate_of_the_hosts_ca(
    world: World, keys: Keys, certified: HostKey | None, verdict: str
) -> None:
    Host.objects.filter(name="mx1").update(host_ca=PUBLIC)
    keys.certified = certified
    assert scanned(world.anna, {"hosts": ["mx1"]})["mx1"]["verdict"] == verdict


def test_keys_are_compared_with_what_dns_proves(world: World, keys: Keys, monkeypatch: pytest.MonkeyPatch) -> None:
    zones = [Zone(".")]
    zones.append(Zone("example.com.", zones[0]))
    digest = b64decode(f"{SHOWN.fingerprint.removeprefix('SHA256:')}=").hex()
    zones[1].add("mx1.example.com", "SSHFP", f"4 2 {digest}")
    monkeypatch.setitem(sshfp.ROOT, dns.name.root, [zones[0].ds])
    with served(Zones(zones)) as server:
        monkeypatch.setattr(scanning, "nameservers", lambda: [server])
        assert scanned(world.anna, {"hosts": ["mx1"]})["mx1"]["verdict"] == "matches"
        zones[1].add("mx1.example.com", "SSHFP", f"4 2 {'00' * 32}")
        row = scanned(world.anna, {"hosts": ["mx1"]})["mx1"]
    assert (row["verdict"], row["evidence"][0]["expected"]) == ("differs", [OTHER])


def test_a_key_that_is_pinned_already_is_told(world: World, keys: Keys) -> None:
    Host.objects.filter(name="mx1").update(host_key=SHOWN.host_key)
    assert scanned(world.anna, {"hosts": ["mx1"]})["mx1"]["is_trusted"] is True


def test_hosts_are_chosen_by_the_filters_of_the_list_too(world: World, keys: Keys) -> None:
    assert list(scanned(world.dana, {}, "?customer=acme&label=role=mx")) == ["mx1"]
    assert scanned(world.dana, {}, "?label=role=none") == {}


@pytest.mark.parametrize(
    ("body", "field"),
    [
        ({}, "hosts"),
        ({"hosts": []}, "hosts"),
        ({"hosts": ["mx1", "nothere"]}, "hosts[1]"),
        ({"hosts": ["mx1"], "keys": {"bx1": [OTHER]}}, "keys.bx1"),
        ({"hosts": ["mx1"], "keys": {"mx1": ["SHA256:abc"]}}, "keys.mx1"),
        ({"hosts": ["mx1"], "keys": {"mx1": []}}, "keys.mx1"),
        ({"hosts": [f"h{number}" for number in range(101)]}, "hosts"),
    ],
)
def test_what_cannot_be_scanned_is_named(world: World, keys: Keys, body: Any, field: str) -> None:
    answer = world.dana.post("hosts/scan-host-keys/", body)
    code = "unknown_target" if field in ("hosts[1]", "keys.bx1") else "invalid"
    problem = refused(answer, 422, code)
    assert [error["field"] for error in problem["errors"]] == [field]


def test_a_key_of_idempotency_is_for_the_same_filters_only(world: World, keys: Keys) -> None:
    first = world.dana.post("hosts/scan-host-keys/?customer=acme", {}, Idempotency_Key="one")
    again = world.dana.post("hosts/scan-host-keys/?customer=acme", {}, Idempotency_Key="one")
    assert (again.json(), again.headers["Idempotency-Replayed"]) == (first.json(), "true")
    other = world.dana.post("hosts/scan-host-keys/?customer=beta", {}, Idempotency_Key="one")
    refused(other, 422, "idempotency_key_reused")


def test_too_many_hosts_are_refused_before_any_is_asked(
    world: World, keys: Keys, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("api.v1.onboarding.MOST_HOSTS", 1)
    refused(world.dana.post("hosts/scan-host-keys/?enabled=true", {}), 422, "too_broad")
    scanned(world.anna, {}, "?enabled=true")


def test_only_administrators_scan_and_only_so_often(world: World, keys: Keys, settings: Any) -> None:
    refused(world.alice.post("hosts/scan-host-keys/", {"hosts": ["mx1"]}), 403, "forbidden")
    refused(world.charlie.post("hosts/scan-host-keys/", {"hosts": ["mx1"]}), 422, "unknown_target")
    settings.SCAN_MANY_RATE = (0.001, 1)
    scanned(world.anna, {"hosts": ["mx1"]})
    refused(world.anna.post("hosts/scan-host-keys/", {"hosts": ["mx1"]}), 429, "rate_limited")
    scanned(world.dana, {"hosts": ["mx1"]})
