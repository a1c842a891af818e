"""The lab's commands and its Python face.

python -m tests.lab.lab up [HOST...]       start these hosts, or all; does nothing for those that run
python -m tests.lab.lab status             what runs, as JSON
python -m tests.lab.lab exec HOST 'COMMAND'   as root inside the host
python -m tests.lab.lab ssh HOST [COMMAND]    as fleetops, over SSH
python -m tests.lab.lab inject HOST --from a@bulk.example --to r{i}@defer.test --n 100
python -m tests.lab.lab reset HOST...      back to how it was after `up`
python -m tests.lab.lab sink               what the sink accepted, as JSON lines
python -m tests.lab.lab down               everything away; images and keys stay in the cache
"""

from __future__ import annotations

import argparse
import contextlib
import dataclasses
import json
import os
import shutil
import socket
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from tests.lab import inject as injector
from tests.lab import network
from tests.lab.config import LANE, LINK, RELAY_CLIENT, USER, LabError, base_dir, cache_dir, run_dir
from tests.lab.hosts import ALL, HostSpec
from tests.lab.images import ensure_tools
from tests.lab.inject import Order, Result
from tests.lab.machine import SSHD, Machine, encoded, ensure_key, locked, stop_state
from tests.lab.processes import wait_for
from tests.lab.root import objection
from tests.lab.sink import Sink


class Host:
    """A running MX host, as tests and the demo use it."""

    ssh_port = 22
    user = USER

    def __init__(self, spec: HostSpec) -> None:
        self.spec = spec
        self.name = spec.name
        self.fqdn = spec.fqdn
        self.address = spec.address
        self.machine = Machine(spec)

    @property
    def private_key(self) -> str:
        """fleetops' private key (and that of the other shells' users), OpenSSH's PEM text."""
        return ensure_key(USER).read_text()

    @property
    def private_key_file(self) -> str:
        return str(ensure_key(USER))

    @property
    def host_key(self) -> str:
        """The public host key that the host had when it was started: "ssh-ed25519 AAAA..."."""
        return " ".join(ensure_key(f"host-{self.name}").with_suffix(".pub").read_text().split()[:2])

    def exec(self, command: str, **options: Any) -> subprocess.CompletedProcess:
        """Run a shell command as root inside the host. Options: stdin, timeout, environment, text."""
        return self.machine.run(command, **options)

    def sh(self, command: str) -> str:
        """As `exec`, for what has to succeed: its standard output. Raises LabError."""
        return self.machine.sh(command)

    def ssh_command(self, *command: str, user: str = USER) -> list[str]:
        known = cache_dir() / "keys" / f"known_hosts-{self.address}"
        if not known.exists():
            known.write_text(f"{self.address} {self.host_key}\n")
        options = ["-o", "BatchMode=yes", "-o", f"UserKnownHostsFile={known}", "-o", "IdentitiesOnly=yes"]
        return ["ssh", "-F", "none", "-i", self.private_key_file, *options, f"{user}@{self.address}", *command]

    def inject(
        self,
        order: Order | None = None,
        *,
        source: str = RELAY_CLIENT,
        inside: bool = False,
        port: int = 25,
        connections: int = 20,
        dialogue: bool = False,
        **fields: Any,
    ) -> Result:
        """Send mail to this host; `fields` are those of Order. `inside`: from the host itself, to its 127.0.0.1."""
        order = dataclasses.replace(order or Order(), **fields)
        place = ("127.0.0.1", "", self.net_namespace) if inside else (self.address, source, "")
        address, source, namespace = place
        return injector.inject(
            address, order, port=port, source=source, namespace=namespace, connections=connections, dialogue=dialogue
        )

    @property
    def net_namespace(self) -> str:
        process = self.machine.process
        return f"/proc/{process.pid}/ns/net" if process else ""

    def reset(self) -> None:
        """Back to how it was after `up`: empty queues, the same keys. 2 to 4 seconds."""
        with locked(_lock(self.name)):
            self.machine.start()

    def freeze(self) -> None:
        """Pull its cable: connections stall, new ones get no answer."""
        network.set_link(self.spec, "down")

    def thaw(self) -> None:
        network.set_link(self.spec, "up")

    def off(self) -> None:
        """End sshd and its sessions: connections are refused at once."""
        self.sh("pkill -KILL -x 'sshd|sshd-session|sshd-auth' || true")
        wait_for(lambda: not self.machine.is_listening(self.ssh_port), 5, f"the end of sshd on {self.name}")

    def on(self) -> None:
        if not self.machine.is_listening(self.ssh_port):
            self.sh(SSHD)
        self.machine.await_ready()

    def change_host_key(self) -> str:
        """Another host key, as a stranger in the middle would show; returns its public half."""
        self._restart_sshd(encoded(ensure_key(f"other-{self.name}")))
        return " ".join(ensure_key(f"other-{self.name}").with_suffix(".pub").read_text().split()[:2])

    def restore_host_key(self) -> None:
        self._restart_sshd(encoded(ensure_key(f"host-{self.name}")))

    def stop_mta(self) -> None:
        self.exec(self.spec.stop)

    def start_mta(self) -> None:
        self.sh(self.spec.start)
        self.machine.await_ready()

    def _restart_sshd(self, key: str) -> None:
        path = "/etc/ssh/ssh_host_ed25519_key"
        self.off()
        self.sh(f"echo {key} | base64 -d > {path} && ssh-keygen -y -f {path} > {path}.pub")
        self.on()


class Lab:
    """All of it. `up` first; then `host("pf1")`."""

    def __init__(self) -> None:
        self.sink = Sink()

    def up(self, *names: str) -> None:
        """Start these hosts, all when none is named, and whatever they need. Idempotent."""
        specs = [_spec(name) for name in names or ALL]
        _must_be_allowed()
        ensure_tools()
        with locked(_lock("up")):
            run_dir().mkdir(parents=True, exist_ok=True)
            network.ensure_network()
            with ThreadPoolExecutor(len(specs)) as pool:
                list(pool.map(_ensure, specs))

    def down(self) -> None:
        """Everything away, and the lanes that a killed run of the tests left."""
        _must_be_allowed()
        if not LANE:
            for left in base_dir().glob("lane-*"):
                environment = os.environ | {"MXFLEET_LAB_LANE": left.name.removeprefix("lane-")}
                subprocess.run([sys.executable, "-m", "tests.lab.lab", "down"], env=environment, check=True)
        with locked(_lock("up")):
            for state in (run_dir() / "hosts").glob("*"):
                stop_state(state)
            network.stop_network()
            _remove_run_dir()

    def host(self, name: str) -> Host:
        return Host(_spec(name))

    def hosts(self) -> list[Host]:
        """Those that are up."""
        return [Host(spec) for spec in ALL.values() if Machine(spec).process]

    def reset(self, *hosts: Host | str) -> None:
        for host in hosts:
            (host if isinstance(host, Host) else self.host(host)).reset()

    def status(self) -> dict[str, Any]:
        return {
            "network": {"up": network.is_network_up(), "link": LINK, "run_dir": str(run_dir())},
            "hosts": {name: _host_status(Host(spec)) for name, spec in ALL.items()},
        }


def _must_be_allowed() -> None:
    said = objection()
    if said:
        raise LabError(said)


def _spec(name: str) -> HostSpec:
    if name not in ALL:
        raise LabError(f"no host {name}; there are {', '.join(ALL)}")
    return ALL[name]


def _ensure(spec: HostSpec) -> None:
    with locked(_lock(spec.name)):
        machine = Machine(spec)
        if not machine.is_current:
            machine.start()


def _remove_run_dir() -> None:
    """Only what is the lab's: the directory may be one that was given, with other things in it."""
    shutil.rmtree(run_dir() / "hosts", ignore_errors=True)
    for pattern in ("switch.*", "services.*", "sink*.json*"):
        for file in run_dir().glob(pattern):
            file.unlink()
    with contextlib.suppress(OSError):
        run_dir().rmdir()


def _lock(name: str) -> Path:
    """Labs side by side do not wait for each other; not in the run directory, which `down` removes."""
    return cache_dir() / "locks" / f"{name}{str(run_dir()).replace('/', '-')}"


def _host_status(host: Host) -> dict[str, Any]:
    process = host.machine.process
    if process is None:
        return {"up": False}
    ports = {port: _is_open(host.address, port) for port in (22, *host.spec.smtp_ports)}
    return {"up": True, "address": host.address, "pid": process.pid, "suite": host.spec.suite, "open": ports}


def _is_open(address: str, port: int) -> bool:
    try:
        with socket.create_connection((address, port), timeout=1):
            return True
    except OSError:
        return False


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="lab", description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    commands = parser.add_subparsers(dest="command", required=True)
    for name in ("up", "reset"):
        commands.add_parser(name).add_argument("hosts", nargs="*")
    for name in ("down", "status", "sink"):
        commands.add_parser(name)
    for name in ("exec", "ssh"):
        sub = commands.add_parser(name)
        sub.add_argument("host")
        sub.add_argument("rest", nargs=argparse.REMAINDER)
        sub.add_argument("--user", default=USER)
    sub = commands.add_parser("inject")
    sub.add_argument("host")
    sub.add_argument("--inside", action="store_true", help="from the host itself, to its 127.0.0.1")
    injector.add_arguments(sub)
    return parser


def _run(lab: Lab, given: argparse.Namespace) -> int:
    match given.command:
        case "up":
            lab.up(*given.hosts)
        case "down":
            lab.down()
        case "reset":
            lab.reset(*given.hosts)
        case "status":
            print(json.dumps(lab.status(), indent=2))
        case "sink":
            for message in lab.sink.messages():
                print(json.dumps(message))
        case "exec" | "ssh":
            host = lab.host(given.host)
            inside = host.machine.command(" ".join(given.rest))
            command = inside if given.command == "exec" else host.ssh_command(*given.rest, user=given.user)
            return subprocess.run(command).returncode
        case "inject":
            host = lab.host(given.host)
            given.source = "" if given.inside else given.source or RELAY_CLIENT
            address = "127.0.0.1" if given.inside else host.address
            return injector.run_arguments(address, given, host.net_namespace if given.inside else "")
    return 0


def main() -> int:
    try:
        return _run(Lab(), _parser().parse_args())
    except LabError as error:
        print(f"lab: {error}", file=sys.stderr)
        return 69 if os.geteuid() == 0 else 77  # sysexits: EX_UNAVAILABLE, EX_NOPERM


if __name__ == "__main__":
    raise SystemExit(main())
