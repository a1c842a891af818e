"""host.check on every MTA: what is missing on a host, each with what to do, and nothing changed by looking."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from fleet.installer.installed import scripts_there
from fleet.mta import REGISTRY
from fleet.mta.host.check import PROGRAMS, Inventory, check_host
from fleet.mta.steps import Command, Completed
from fleet.ssh.quoting import SCRIPTS, script_text
from tests.contract.document import check_told
from tests.contract.play import Host, Wire, carry
from tests.contract.test_contract import NOW, played
from tests.unit.real_scripts import run_script

INSTALLED = {name: script_text(name)[1] for name in SCRIPTS}
SUDO = """#!/bin/sh
[ "$1 $2" = "-n -l" ] || exit 9
shift 2
echo "$*" >>"$0.asked"
[ ! -e "$0.refused" ] || ! echo "$*" | grep -qFf "$0.refused"
"""


class Checked:
    """A host on which something may be amiss, and what its check says."""

    def __init__(self, mta: str, directory: Path) -> None:
        self.host: Host = played(mta, directory)
        self.tools = directory / "tools"
        self.tools.mkdir(exist_ok=True)
        self.sudo = self.tools / "sudo"
        self.sudo.write_text(SUDO)
        self.sudo.chmod(0o755)
        self.scripts = dict(INSTALLED)
        self.facts = {"time": f"{NOW:.0f}", "uid": "1000", "os": "Debian", "sudo": "yes", "service": "init"}
        self.known: dict[str, Any] = {"username": "mxfleet", "become": "sudo", "instances": (self.host.instance,)}
        self.missing = ""

    def look(self, *, refuses_root: bool = False) -> dict[str, Any]:
        answers = {"sh": self._passwd, "discover_host.sh": self._facts, "host_check.sh": self._programs}
        self.host.answers |= answers
        known = Inventory(**{"helpers": frozenset(self.scripts.items()), "scripts": scripts_there, **self.known})
        ran = carry(Wire(self.host, refuses_root=refuses_root), check_host(known, lambda: NOW + 0.5))
        assert ran.error is None
        assert not ran.mutated
        check_told("host.check", ran.value)
        data: dict[str, Any] = ran.value.data
        return data

    def _passwd(self, command: Command) -> Completed:
        return Completed(0, b"mxfleet:x:999:999::/home/mxfleet:/bin/sh\n")

    def _facts(self, command: Command) -> Completed:
        lines = [*(f"{name} {value}" for name, value in self.facts.items())]
        lines += [f"helper {name} {digest}" for name, digest in self.scripts.items()]
        return Completed(0, "\n".join([*lines, "end", ""]).encode())

    def _programs(self, command: Command) -> Completed:
        return run_script(replace(command, argv=(*command.argv, *self.missing.split())), self.tools)


@pytest.fixture(params=REGISTRY)
def checked(request: pytest.FixtureRequest, tmp_path: Path) -> Checked:
    return Checked(request.param, tmp_path)


def amiss(data: dict[str, Any]) -> dict[str, str]:
    """What is not as it should be, with what to do."""
    return {check["name"]: check["hint"] for check in data["checks"] if not check["ok"]}


def test_a_host_with_all_that_is_needed_is_fine(checked: Checked) -> None:
    data = checked.look()
    assert (data["ok"], amiss(data), data["scripts"]) == (True, {}, "current")
    named = {"login", "shell", "programs", "scripts", "sudo", "clock", "root", "log"}
    assert {check["name"] for check in data["checks"]} == named
    asked = (checked.tools / "sudo.asked").read_text().splitlines()
    allowed = checked.host.adapter.allowed(checked.host.instance)
    assert asked == [" ".join(("/usr/bin/timeout -k 5", str(seconds), *argv)) for seconds, argv in allowed]


def test_a_rule_that_sudo_lacks_is_counted(checked: Checked) -> None:
    allowed = checked.host.adapter.allowed(checked.host.instance)
    (checked.tools / "sudo.refused").write_text(" ".join(allowed[0][1]) + "\n")
    data = checked.look()
    [sudo] = [check for check in data["checks"] if check["name"] == "sudo"]
    assert sudo["ok"] is False
    assert sudo["detail"].endswith(f" of {len(allowed)} command lines are allowed")
    assert "installer" in sudo["hint"]


def test_without_a_password_less_sudo_nothing_runs_as_root(checked: Checked) -> None:
    checked.facts["sudo"] = "no"
    found = amiss(checked.look(refuses_root=True))
    assert {"sudo", "root", "log"} == set(found)
    assert all("installer" in hint for hint in found.values())
    assert not (checked.tools / "sudo.asked").exists()


@pytest.mark.parametrize(("there", "state"), [({}, "absent"), ({**INSTALLED, "fence.sh": "0" * 64}, "outdated")])
def test_scripts_have_to_be_there_unless_they_may_be_sent(tmp_path: Path, there: dict[str, str], state: str) -> None:
    checked = Checked("postfix", tmp_path)
    checked.scripts = there
    assert (amiss(checked.look()), checked.look()["scripts"]) == ({}, state)
    (checked.tools / "sudo.refused").write_text("/bin/sh -c :\n")
    assert list(amiss(checked.look())) == ["scripts"]


def test_scripts_that_are_new_to_us_ask_for_another_look(tmp_path: Path) -> None:
    checked = Checked("postfix", tmp_path)
    checked.known["helpers"] = frozenset()
    [scripts] = [check for check in checked.look()["checks"] if check["name"] == "scripts"]
    assert (scripts["ok"], scripts["hint"].partition(":")[0]) == (True, "check again")


def test_programs_and_a_clock_that_are_amiss_are_named(tmp_path: Path) -> None:
    checked = Checked("postfix", tmp_path)
    checked.missing, checked.facts["time"] = "nosuchprogram", f"{NOW + 90:.0f}"
    data = checked.look()
    assert set(amiss(data)) == {"programs", "clock"}
    details = {check["name"]: check["detail"] for check in data["checks"]}
    assert details["programs"] == "not there: nosuchprogram"
    assert details["clock"] == "90.0 s ahead of the service's"


def test_an_account_that_is_not_root_and_has_no_sudo_is_told(tmp_path: Path) -> None:
    checked = Checked("postfix", tmp_path)
    checked.known |= {"become": "none", "instances": ()}
    assert amiss(checked.look()) == {"sudo": "set become to sudo, and run the host's installer"}
    checked.facts["uid"] = "0"
    assert checked.look()["ok"] is True


def test_a_host_that_nobody_discovered_is_not_called_fine(tmp_path: Path) -> None:
    checked = Checked("postfix", tmp_path)
    checked.known["instances"] = ()
    data = checked.look()
    assert (data["ok"], amiss(data)) == (False, {"sudo": "discover the host"})
    checked.facts["sudo"] = "no"
    assert amiss(checked.look())["sudo"].startswith("discover the host, then run its installer")


def test_every_program_that_is_looked_for_is_called_by_a_script() -> None:
    words = {word for path in SCRIPTS.values() for word in path.read_text().replace("(", " ").split()}
    assert set(PROGRAMS) <= words
