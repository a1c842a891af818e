"""The guides say what is so: a reader who types them gets what they show."""

from __future__ import annotations

import os
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from tests.lab import guides
from tests.lab.lab import Host, Lab
from tests.lab.service import People, Person, Service, fresh

pytestmark = [pytest.mark.lab, pytest.mark.timeout(240)]
ROOT = Path(__file__).parents[2]
DOCS = ROOT / "docs"


def checkout(service: Service, directory: Path) -> Path:
    """A directory that looks like the checkout in which `deploy/run` runs."""
    (directory / "var").mkdir()
    (directory / "var/venv").symlink_to(sys.prefix)
    for name in ("manage.py", "deploy"):
        (directory / name).symlink_to(ROOT / name)
    (directory / "var/admin-token").symlink_to(service.data / "admin-token")
    return directory


def follow(page: str, service: Service, directory: Path, **more: str) -> None:
    address = service.url.removeprefix("http://")
    guides.follow(DOCS / page, directory, service.environment() | more, address)


def test_an_integrator_gets_what_the_guide_shows(lab: Lab, service: Service, people: People, tmp_path: Path) -> None:
    queue = fresh(lab, "pf1/postfixEXT")
    queue.inject(50, "newsletter@bulk.example", size=20_000)
    queue.inject(5, "friend@ok.test")
    demo = checkout(service, tmp_path) / "var/demo"
    demo.mkdir()
    for name, token in (("admin", people.admin.token), ("peter", people.bob.token)):
        (demo / f"{name}-token").write_text(token)
    follow("integrators.md", service, tmp_path)


def test_who_has_many_customers_gets_what_the_guide_shows(lab: Lab, service: Service, tmp_path: Path) -> None:
    first = {"mx1": fresh(lab, "pf2/postfix"), "mx2": fresh(lab, "pf3/postfix")}
    directory = checkout(service, tmp_path)
    files = directory / "var/nordwind"
    files.mkdir()
    write_files(files, {name: queue.host.address for name, queue in first.items()})
    for queue in first.values():
        queue.host.sh("rm /etc/sudoers.d/fleetops")
    first["mx1"].inject(12, "news@bulk.example")
    programs = directory / "programs"
    root_shells(programs, [queue.host for queue in first.values()])
    try:
        follow("msp.md", service, directory, PATH=f"{programs}:{os.environ['PATH']}")
    finally:
        stand_down(service)
        for queue in first.values():
            queue.host.reset()


def write_files(directory: Path, addresses: dict[str, str]) -> None:
    """What the reader has: the list of hosts, its first draft, and two keys of a host that was rebuilt."""
    names = [f"mx{number}" for number in range(1, 51)]
    rows = [f"{name},{addresses.get(name, f'{name}.nordwind.example')},,mx,{wave_of(name)}" for name in names]
    head = "name,address,port,labels.role,labels.wave"
    (directory / "hosts.csv").write_text("\n".join([head, *rows, ""]))
    rows[1] = "mx2,root@mx2,,mx,1"
    rows[5] = "mx6,mx6.nordwind.example,many,mx,2"
    rows[7] = rows[6]
    (directory / "draft.csv").write_text("\n".join([head, *rows, ""]))
    for which in ("first", "rebuilt"):
        key = directory / f"mx51-{which}"
        subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", "mx51", "-f", key], check=True)


def wave_of(name: str) -> int:
    return 1 if name in ("mx1", "mx2") else 2


def root_shells(directory: Path, hosts: list[Host]) -> None:
    """A program `ssh` that is root's way to these hosts, whose sshd lets in nobody but accounts with our key."""
    cases = [f"{host.address}) exec {shlex.join(host.machine.command('COMMAND'))} ;;" for host in hosts]
    text = "\n".join(["#!/bin/sh", "address=${1#root@}", "shift", "case $address in", *cases, "esac", "exit 255", ""])
    directory.mkdir()
    (directory / "ssh").write_text(text.replace("COMMAND", "sh -s"))
    (directory / "ssh").chmod(0o755)


def stand_down(service: Service) -> None:
    """The service leaves the customer's hosts alone, most of which are not there."""
    admin = Person(service.url, (service.data / "admin-token").read_text().strip())
    count = len(admin.all("hosts/?customer=nordwind&fields=name"))
    admin.patch("hosts/?customer=nordwind", {"expected": count, "changes": {"enabled": False}})
