"""A private OpenSSH server on a high port of loopback, run by the tests themselves."""

import os
import shutil
import signal
import socket
import subprocess
import time
from contextlib import suppress
from dataclasses import dataclass, replace
from ipaddress import ip_network
from pathlib import Path

import psutil

from fleet.ssh.endpoint import AddressPolicy, Endpoint
from tests.services import start_tied

LOOPBACK = AddressPolicy(allowed=(ip_network("127.0.0.0/8"),))
# HOME: bash reads ~/.bashrc when sshd runs it, and what a developer has there may take seconds or wait for a lock.
CONFIG = """
Port {port}
ListenAddress 127.0.0.1
HostKey {directory}/host_ed25519
PidFile {directory}/sshd.pid
SetEnv HOME={directory}
AuthorizedKeysFile {directory}/authorized_keys
PasswordAuthentication no
KbdInteractiveAuthentication no
UsePAM no
StrictModes no
PermitRootLogin yes
MaxSessions 10
LogLevel VERBOSE
"""


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def keygen(path: Path, *options: str) -> Path:
    subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(path), *options], check=True)
    return path


def public(path: Path) -> str:
    return " ".join(path.with_name(path.name + ".pub").read_text().split()[:2])


def _name(process: psutil.Process) -> str:
    """Empty when it has ended meanwhile."""
    try:
        return process.name()
    except psutil.NoSuchProcess:
        return ""


@dataclass
class Sshd:
    directory: Path
    port: int
    username: str
    process: subprocess.Popen[bytes] | None = None

    @classmethod
    def prepared(cls, directory: Path, username: str = "root") -> "Sshd":
        directory.mkdir(parents=True, exist_ok=True)
        keygen(directory / "host_ed25519")
        keygen(directory / "client")
        shutil.copy(directory / "client.pub", directory / "authorized_keys")
        return cls(directory, free_port(), username)

    def start(self, extra: str = "", prefix: tuple[str, ...] = ()) -> "Sshd":
        """Start it and return once it listens. `prefix`: words before the program, which must end in exec."""
        if os.geteuid() == 0:
            Path("/run/sshd").mkdir(mode=0o755, exist_ok=True)
        config = self.directory / "sshd_config"
        config.write_text(extra + CONFIG.format(port=self.port, directory=self.directory))
        log = (self.directory / "log").open("ab")
        command = [*prefix, "/usr/sbin/sshd", "-D", "-e", "-f", str(config)]
        self.process = start_tied(command, stdout=log, stderr=log)
        for _ in range(200):
            with socket.socket() as probe:
                if probe.connect_ex(("127.0.0.1", self.port)) == 0:
                    return self
            time.sleep(0.02)
        raise AssertionError((self.directory / "log").read_text())

    def stop(self) -> None:
        """End the listener and the sessions it began."""
        if self.process is not None:
            self.cut()
            self.process.terminate()
            self.process.wait()
            self.process = None

    def cut(self) -> int:
        """Kill what serves the connections; the commands that they began go on. Returns how many there were."""
        children = self.children()
        for child in children:
            with suppress(ProcessLookupError):  # a session that ends by itself in this moment
                os.kill(child, signal.SIGKILL)
        return len(children)

    def children(self) -> list[int]:
        """sshd's own processes that serve connections: one each, since OpenSSH 9.8 one below another one."""
        assert self.process is not None
        started = psutil.Process(self.process.pid).children(recursive=True)
        return [child.pid for child in started if _name(child).startswith("sshd")]

    def log(self) -> str:
        return (self.directory / "log").read_text()

    def endpoint(self, **changes: object) -> Endpoint:
        endpoint = Endpoint(
            name="mx1.example.com",
            address="127.0.0.1",
            port=self.port,
            username=self.username,
            private_key=(self.directory / "client").read_bytes(),
            host_key=public(self.directory / "host_ed25519"),
        )
        return replace(endpoint, **changes)  # type: ignore[arg-type]
