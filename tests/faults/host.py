"""A mail host for the fault rounds: a real sshd in a mount namespace of its own, where Postfix's names are mta.py.

It shares the machine's network, so all hosts are ports of loopback; needs root. What lies where is read from outside.
"""

import json
import os
import shutil
import signal
import sys
import time
from contextlib import suppress
from hashlib import sha256
from pathlib import Path
from typing import Any

from tests.faults.mta import PROGRAMS, QUEUES
from tests.faults.smtpd import Smtpd
from tests.ssh.sshd import Sshd, free_port, keygen, public

# bash reads ~/.bashrc for each command that sshd begins, and a developer's may do anything there.
SPACE = (
    "for file in ~/.bashrc ~/.bash_profile ~/.profile; do [ ! -f $file ] || mount --bind /dev/null $file || exit; done;"
    ' mount -t tmpfs tmpfs /run && mkdir /run/sshd && ln -s "$0" /run/mta &&'
    ' mount -t overlay overlay -o "lowerdir=$0/bin:/usr/sbin" /usr/sbin && exec "$@"'
)
MORE_CONNECTIONS = "MaxStartups 200\n"
# A module, so that its compiled form is kept; isolated and without site, because the start is most of what it costs.
START = "#!{python} -IS\nimport sys\nsys.path.insert(0, '{library}')\nimport mta\nsys.exit(mta.main())\n"
QUARANTINE = "mxfleet-quarantine"
SPEED = 0.002
"""Seconds per message while nothing is to be cut."""


class Host:
    """`key`: the client's key, the same for all hosts. Queue IDs never repeat, so one names its round."""

    def __init__(self, directory: Path, name: str, key: Path, number: int) -> None:
        self.directory = directory / name
        self.name = name
        self.instance = f"{name}/postfix"
        self.spool = self.directory / "spool"
        self.sshd = Sshd(self.directory / "ssh", free_port(), "root")
        self._next = (number + 1) << 24
        for place in ("bin", "ssh", "etc/postfix", f"spool/{QUARANTINE}", *(f"spool/{queue}" for queue in QUEUES)):
            (self.directory / place).mkdir(parents=True)
        (self.directory / "spool" / QUARANTINE).chmod(0o700)  # as we make it on a host
        keygen(self.sshd.directory / "host_ed25519")
        shutil.copy(key.with_name(key.name + ".pub"), self.sshd.directory / "authorized_keys")
        self._install()

    def _install(self) -> None:
        library = self.directory / "lib"
        library.mkdir()
        shutil.copy(Path(__file__).parent / "mta.py", library)
        for name in PROGRAMS:
            program = self.directory / "bin" / name
            program.write_text(START.format(python=Path(sys.executable).resolve(), library=library))
            program.chmod(0o755)
        self.smtpd = Smtpd(self.directory / "etc/postfix/senders.db")
        (self.directory / "etc/postfix/main.cf").touch()
        master = f"127.0.0.1:{self.smtpd.port} inet n - y - - smtpd\n"
        (self.directory / "etc/postfix/master.cf").write_text(master)
        for name in ("senders", "senders.db"):
            (self.directory / "etc/postfix" / name).touch()
        self.set_pause(SPEED)

    def start(self) -> None:
        self.sshd.start(
            MORE_CONNECTIONS,
            (
                "setpriv",
                "--pdeathsig",
                "KILL",
                "unshare",
                "-m",
                "--propagation",
                "private",
                "/bin/sh",
                "-c",
                SPACE,
                str(self.directory),
            ),
        )
        self.space = os.readlink(f"/proc/{self._pid}/ns/mnt")

    def stop(self) -> None:
        """End everything that runs on the host."""
        for pid in self._processes():
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        self.sshd.stop()
        self.smtpd.stop()

    @property
    def _pid(self) -> int:
        assert self.sshd.process is not None
        return self.sshd.process.pid

    def _processes(self) -> list[int]:
        """All in the host's namespace but the listener."""
        found = []
        for pid in (int(name) for name in os.listdir("/proc") if name.isdigit()):
            with suppress(OSError):
                if pid != self._pid and os.readlink(f"/proc/{pid}/ns/mnt") == self.space:
                    found.append(pid)
        return found

    @property
    def is_busy(self) -> bool:
        """Whether a command runs, whoever began it; connections alone are none."""
        return bool(set(self._processes()) - set(self.sshd.children()))

    @property
    def host_key(self) -> str:
        return public(self.sshd.directory / "host_ed25519")

    def cut(self) -> int:
        """Kill what serves the connections; the commands that they began go on. Returns how many there were."""
        return self.sshd.cut()

    def set_pause(self, seconds: float) -> None:
        """How slow each message is from now on."""
        new = self.directory / "pause.new"
        new.write_text(str(seconds))
        new.rename(self.directory / "pause")

    def fill(self, count: int, sender: str) -> dict[str, str]:
        """New deferred messages; queue ID -> SHA-256 of each."""
        found = {}
        for number in range(count):
            self._next += 1
            name = f"{self._next:010X}"
            head = {"sender": sender, "recipients": [f"r{number}@defer.test"], "arrival_time": int(time.time()) - 3600}
            data = json.dumps(head).encode() + b"\nSubject: bulk\n\n" + os.urandom(32).hex().encode() + b"\n"
            (self.spool / "deferred" / name).write_bytes(data)
            found[name] = sha256(data).hexdigest()
        return found

    def clear(self) -> None:
        """Empty the queue; the quarantine stays."""
        for queue in QUEUES:
            for path in (self.spool / queue).iterdir():
                path.unlink()

    def queued(self) -> dict[str, list[tuple[str, str]]]:
        """Queue ID -> (queue, SHA-256) of each file that has this name."""
        return self._files(*(self.spool / queue for queue in QUEUES))

    def kept(self) -> dict[str, list[tuple[str, str]]]:
        """Queue ID -> (job, SHA-256) of each file in quarantine."""
        return self._files(*(path for path in (self.spool / QUARANTINE).iterdir() if path.is_dir()))

    @staticmethod
    def _files(*directories: Path) -> dict[str, list[tuple[str, str]]]:
        found: dict[str, list[tuple[str, str]]] = {}
        for directory in directories:
            for path in directory.iterdir():
                found.setdefault(path.name, []).append((directory.name, sha256(path.read_bytes()).hexdigest()))
        return found

    def blocks(self, sender: str) -> bool:
        """Whether mail of this sender is refused now."""
        return not self.smtpd.judge(sender).startswith("2")

    def effects(self, ids: Any = None) -> list[dict[str, Any]]:
        """What was done here, in order; of these queue IDs, or all of it."""
        path = self.directory / "effects"
        lines = path.read_text().splitlines() if path.exists() else []
        rows = [json.loads(line) for line in lines]
        return [row for row in rows if ids is None or row["id"] in ids]
