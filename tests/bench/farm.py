"""Up to 500 addresses on loopback, served by one real sshd, with programs in place of Postfix's."""

import json
import os
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from tests.ssh.sshd import free_port, keygen, public

# The wildcard address, because sshd takes 16 ListenAddress lines at most; the key is good from loopback only.
CONFIG = """
Port {port}
ListenAddress 0.0.0.0
HostKey {directory}/host_ed25519
PidFile none
AuthorizedKeysFile {directory}/authorized_keys
PasswordAuthentication no
KbdInteractiveAuthentication no
UsePAM no
StrictModes no
PermitRootLogin yes
MaxStartups 1000
MaxSessions 10
LogLevel FATAL
"""
CLIENT = """
Host *
  User root
  Port {port}
  IdentityFile {directory}/client
  IdentitiesOnly yes
  UserKnownHostsFile {directory}/known_hosts
  GlobalKnownHostsFile /dev/null
  StrictHostKeyChecking yes
  HostKeyAlias farm
  LogLevel ERROR
"""
CURVE = "  KexAlgorithms curve25519-sha256\n"
MASTER = CURVE + "  ControlMaster auto\n  ControlPath {directory}/m/%h\n  ControlPersist 600\n"
# In a mount namespace with a passwd of its own: what this machine's root reads at login is no part of the measurement.
# So are programs in /usr/local/sbin: there is our postconf, which discovery asks for.
START = (
    'mount --bind "$0/passwd" /etc/passwd && mount --bind "$0/sbin" /usr/local/sbin'
    ' && exec /usr/sbin/sshd -D -e -f "$0/sshd_config"'
)
POSTCONF = """case "$*" in
"-h config_directory") echo /etc/postfix ;;
"-h multi_instance_directories" | *" -xP "*) ;;
*" -xh "*) echo {directory}/queue ;;
*)
    echo 'mail_version = 3.7.11'
    echo 'command_directory = {directory}/small'
    echo 'queue_directory = {directory}/queue'
    ;;
esac"""
LARGE = 5_000_000
"""Bytes of the large listing."""


@dataclass(frozen=True)
class Farm:
    """`pid` is sshd's. Client configurations are `plain`, `curve` and `master` in the directory."""

    directory: Path
    port: int
    pid: int

    def address(self, number: int) -> str:
        return f"127.77.{number // 250}.{number % 250 + 1}"

    def addresses(self, count: int) -> list[str]:
        return [self.address(number) for number in range(count)]

    def config(self, name: str) -> Path:
        """An ssh_config(5) file."""
        return self.directory / name

    def program(self, size: str) -> str:
        """The directory of a `postqueue` that lists one message ("small"), or 5 MB of them ("large")."""
        return str(self.directory / size)

    def postqueue(self, size: str) -> str:
        """The listing's command line."""
        return f"{self.program(size)}/postqueue -c /etc/postfix -j"

    def open_masters(self, count: int) -> None:
        """One ControlMaster per address, in the background."""
        (self.directory / "m").mkdir(exist_ok=True)
        self._with_masters(count, "-fNM")

    def close_masters(self, count: int) -> None:
        self._with_masters(count, "-q", "-O", "exit")

    def _with_masters(self, count: int, *options: str) -> None:
        subprocess.run(
            ["xargs", "-P16", "-n1", "ssh", "-F", str(self.config("master")), *options],
            input="\n".join(self.addresses(count)), text=True, check=False,
            stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
        )  # fmt: skip


def line(number: int) -> str:
    """A line of postqueue -j about a deferred message, of 330 bytes on the average."""
    sender = f"news-{number % 7}@bulk{number % 97}.example" if number % 3 else "MAILER-DAEMON"
    reason = (
        f"connect to mx{number % 40}.customer.example[192.0.2.{number % 250}]:25: Connection timed out, "
        "while sending RCPT TO"
    )
    message = {
        "queue_name": "deferred",
        "queue_id": f"{number + 0x3F5D000000:010X}",
        "arrival_time": 1_795_172_000 + number % 5000,
        "message_size": 700 + number % 9000,
        "forced_expire": False,
        "sender": sender,
        "recipients": [{"address": f"user{number:07d}@customer{number % 211}.example", "delay_reason": reason}],
    }
    return json.dumps(message) + "\n"


@contextmanager
def farm() -> Iterator[Farm]:
    """A farm that lives as long as the block. Needs root, as sshd does to serve logins with any account's shell."""
    if os.geteuid():
        raise SystemExit("the benchmark's farm needs root: its sshd lets root log in")
    directory = Path(tempfile.mkdtemp(prefix="mxf-farm-", dir="/tmp"))
    port = free_port()
    _write(directory, port)
    Path("/run/sshd").mkdir(mode=0o755, exist_ok=True)
    process = subprocess.Popen(["unshare", "-m", "sh", "-c", START, str(directory)])
    try:
        _await(port)
        yield Farm(directory, port, process.pid)
    finally:
        for child in _children(process.pid):
            os.kill(child, signal.SIGKILL)
        process.terminate()
        process.wait()
        shutil.rmtree(directory, ignore_errors=True)


def _write(directory: Path, port: int) -> None:
    keygen(directory / "host_ed25519")
    keygen(directory / "client")
    words = {"directory": directory, "port": port}
    (directory / "authorized_keys").write_text(f'from="127.0.0.0/8" {public(directory / "client")}\n')
    (directory / "known_hosts").write_text(f"farm {public(directory / 'host_ed25519')}\n")
    (directory / "sshd_config").write_text(CONFIG.format(**words))
    for name, extra in (("plain", ""), ("curve", CURVE), ("master", MASTER)):
        (directory / name).write_text((CLIENT + extra).format(**words))
    others = [each for each in Path("/etc/passwd").read_text().splitlines() if not each.startswith("root:")]
    (directory / "passwd").write_text("\n".join([f"root:x:0:0:root:{directory}:/bin/sh", *others, ""]))
    count = round(LARGE / (sum(len(line(number)) for number in range(1000)) / 1000))
    (directory / "listing").write_text("".join(line(number) for number in range(count)))
    (directory / "queue" / "hold").mkdir(parents=True)
    _program(directory / "small" / "postqueue", f"echo '{line(1).strip()}'")
    _program(directory / "large" / "postqueue", f"exec cat {directory}/listing")
    _program(directory / "sbin" / "postconf", POSTCONF.format(directory=directory))


def _program(path: Path, text: str) -> None:
    path.parent.mkdir()
    path.write_text(f"#!/bin/sh\n{text}\n")
    path.chmod(0o755)


def _children(pid: int) -> list[int]:
    return [int(word) for word in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


def _await(port: int) -> None:
    until = time.monotonic() + 10
    while True:
        with socket.socket() as probe:
            if probe.connect_ex(("127.77.0.1", port)) == 0:
                return
        if time.monotonic() > until:
            raise SystemExit("the farm's sshd does not answer")
        time.sleep(0.05)
