"""A newcomer's hour: a Debian with sshd and Postfix, from the installer to a proven block and its undo, by the API."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from tests.lab.lab import Host, Lab
from tests.lab.service import Json, Person, Queue, Service, fresh

pytestmark = [pytest.mark.lab, pytest.mark.timeout(240)]
SPAMMER = "newsletter@sillyplace.test"
ALL_FILES = (
    "find / -xdev \\( -path /tmp -o -path /var -o -path /etc/postfix -o -path '/etc/*-' \\) -prune -o "
    "! -type d -printf '%p %m %u %g ' \\( -type f -exec sha256sum {} \\; -o -print \\) ; "
    "find /home /usr/local -type d ! -path /usr/local/libexec -printf '%p %m %u %g\\n'"
)
"""All but what mail changes, and the backups of accounts; of directories those where the installer makes some."""


class Newcomer:
    """Who has a token of the service, and root on the host."""

    def __init__(self, service: Service, host: Host, directory: Path) -> None:
        self.admin = Person(service.url, (service.data / "admin-token").read_text().strip())
        self.admin.post("customers/", {"slug": "novum", "name": "Novum"})
        roles = [{"role": "approver", "customer": "novum"}]
        self.admin.post("users/", {"username": "nora", "roles": roles})
        self.nora = Person(service.url, service.first_token("nora"))
        self.host = host
        key = directory / "key"
        subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", key], check=True)
        self.admin.post("credentials/", {"name": "own", "customer": "novum", "private_key": key.read_text()})
        body = {"name": "novice", "customer": "novum", "address": host.address, "username": "mxfleet"}
        self.admin.post("hosts/", body | {"credential": "own", "become": "sudo"})

    def install(self, shell: str = "sh", action: str = "") -> str:
        """What the installer of now says, run by that shell."""
        text = self.admin.ask("GET", "hosts/novice/installer/").text
        done = self.host.exec(f"cat > /tmp/installer && {shell} /tmp/installer {action}", stdin=text)
        assert done.returncode == 0, done.stdout + done.stderr
        return str(done.stdout)

    def trust(self) -> None:
        scanned = self.admin.post("hosts/novice/scan-host-key/", {})
        assert scanned["fingerprint"] in self.install(), "the installer tells what to compare"
        self.admin.patch("hosts/novice/", {"host_key": scanned["host_key"]})

    def check(self) -> dict[str, str]:
        """What is amiss, with what to do."""
        job = self.admin.ended(self.admin.post("hosts/novice/check/", {}, Prefer="wait=30"))
        result = self.admin.only_run(job)["result"]
        assert result["ok"] is all(check["ok"] for check in result["checks"])
        return {check["name"]: check["hint"] for check in result["checks"] if not check["ok"]}

    def discover(self) -> None:
        self.admin.ended(self.admin.post("hosts/novice/discover/", {}, Prefer="wait=30"))

    def agreed(self, job: Json) -> Json:
        """The job, once Nora agreed to it where somebody has to."""
        if job["state"] == "awaiting_approval":
            self.nora.approve(job)
            job = self.admin.wait(job, until=frozenset({"succeeded", "failed"}))
        return self.admin.ended(job)


def test_from_the_installer_to_a_proven_block_and_its_undo(lab: Lab, service: Service, tmp_path: Path) -> None:
    queue = fresh(lab, "pf3/postfix")
    try:
        queue.host.sh("rm /etc/sudoers.d/fleetops")
        before = queue.host.sh(ALL_FILES)
        newcomer = Newcomer(service, queue.host, tmp_path)
        let_in(newcomer)
        block_and_unblock(newcomer, queue)
        newcomer.admin.patch("hosts/novice/", {"enabled": False})
        queue.host.sh("pkill -u mxfleet; true")
        newcomer.install("/tmp/busybox ash", "uninstall")
        assert newcomer.install(action="uninstall") == "mxfleet: nothing changed\n"
        assert queue.host.sh(ALL_FILES) == before
    finally:
        queue.host.reset()


def let_in(newcomer: Newcomer) -> None:
    """By three shells: the account, then the rules, then nothing more."""
    first = newcomer.install()
    assert "mxfleet: MTAs here: postfix\n" in first
    assert "mxfleet: no rules for sudo: discover novice" in first
    newcomer.trust()
    newcomer.discover()
    assert set(newcomer.check()) == {"sudo", "root", "log"}
    assert "wrote /etc/sudoers.d/mxfleet" in newcomer.install("bash")
    busybox = Path("/bin/busybox").read_bytes()
    newcomer.host.exec("install -m 755 /dev/stdin /tmp/busybox", stdin=busybox, text=False)
    again = newcomer.install("/tmp/busybox ash")
    assert again.splitlines() == ["mxfleet: MTAs here: postfix", "mxfleet: nothing changed"]
    assert newcomer.check() == {}
    assert newcomer.admin.get("hosts/novice/")["scripts"] == "current"
    assert newcomer.host.sh("postqueue -j") == "", "sudo mailed nobody about what it was asked"


def block_and_unblock(newcomer: Newcomer, queue: Queue) -> None:
    config = queue.config_files()
    assert queue.knock(SPAMMER) == ["250"]
    blocked = newcomer.agreed(newcomer.admin.job("sender.block", "novice/postfix", pattern=SPAMMER))
    assert queue.knock(SPAMMER)[0].startswith("550 5.7.1")
    assert newcomer.admin.only_run(blocked)["evidence"]["after"]
    newcomer.agreed(newcomer.admin.undo(blocked))
    assert queue.knock(SPAMMER) == ["250"]
    assert queue.config_files() == config
