"""The lab's own promises, on which the other lab tests build."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path

import pytest

from tests.lab.config import OUTSIDER
from tests.lab.images import clear
from tests.lab.lab import Host, Lab
from tests.lab.sink import Rule

pytestmark = pytest.mark.lab


def queue(host: Host, command: str = "postqueue -j") -> list[dict]:
    return [json.loads(line) for line in host.sh(command).splitlines()]


def ssh(host: Host, command: str) -> subprocess.CompletedProcess:
    return subprocess.run(host.ssh_command(command), capture_output=True, text=True, timeout=30)


def test_each_instance_has_its_own_queue(pf1: Host) -> None:
    outer = pf1.inject(n=3, sender="news{i}@bulk.example", recipients=("r{i}@defer.test",))
    inner = pf1.inject(recipients=("r@defer.test",), inside=True)
    assert {one["queue_id"] for one in queue(pf1, "postqueue -c /etc/postfixEXT -j")} == set(outer.ids)
    assert {one["queue_id"] for one in queue(pf1)} == set(inner.ids)


def test_the_sink_answers_per_domain_and_as_a_test_wants_it(lab: Lab, pf2: Host) -> None:
    pf2.inject(recipients=("a@ok.test",), data=b"Subject: x\r\n\r\n.dot\r\n")
    (message,) = lab.sink.wait(1, "a@ok.test")
    assert message["data"].endswith("\r\n\r\n.dot\r\n")
    with lab.sink.answering("defer.test", Rule()):
        pf2.inject(recipients=("a@defer.test",))
        assert lab.sink.wait(1, "a@defer.test")
    pf2.inject(sender="s@bulk.example", recipients=("a@reject.test",))
    (bounce,) = lab.sink.wait(1, "s@bulk.example")
    assert bounce["sender"] == ""


def test_fleetops_gets_in_with_its_key_and_may_use_sudo(pf3: Host) -> None:
    assert ssh(pf3, "sudo -n id -u").stdout == "0\n"
    pf3.sh("rm /etc/sudoers.d/fleetops")
    assert ssh(pf3, "sudo -n id -u").stderr.startswith("sudo: ")


def test_an_outsider_may_only_send_to_relay_domains(pf3: Host) -> None:
    probe = {"source": OUTSIDER, "stop_at": "rcpt"}
    assert pf3.inject(recipients=("a@ok.test",), **probe).accepted == 1
    assert pf3.inject(recipients=("a@else.test",), **probe).refused == 1


def test_a_host_can_be_off_and_can_be_another_host(pf2: Host) -> None:
    pf2.off()
    assert "Connection refused" in ssh(pf2, "true").stderr
    pf2.on()
    assert ssh(pf2, "true").returncode == 0
    assert pf2.change_host_key() != pf2.host_key
    assert "Host key verification failed" in ssh(pf2, "true").stderr
    pf2.restore_host_key()
    assert ssh(pf2, "true").returncode == 0


def test_what_a_killed_build_left_mounted_is_not_removed_with_it(tmp_path: Path) -> None:
    machine, root = tmp_path / "dev", tmp_path / "image.new"
    (root / "dev/inner").mkdir(parents=True)
    machine.mkdir()
    (machine / "null").touch()
    (machine / "inner").mkdir()
    subprocess.run(["mount", "--bind", machine, root / "dev"], check=True)
    subprocess.run(["mount", "--bind", machine, root / "dev/inner"], check=True)
    clear(root)
    assert not root.exists()
    assert (machine / "null").exists()
