"""How hosts come in: installers, and what is missing on a host."""

import io
import tarfile

import pytest

from fleet.models import Host, Instance
from fleet.ssh.quoting import SCRIPTS, script_text
from tests.http.cast import World
from tests.http.test_errors import refused


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
