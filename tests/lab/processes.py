"""Processes that the lab started, found again by pid and start time, so that no foreign process is ever killed."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path

from tests.lab.config import LabError
from tests.lab.waiting import PATIENCE, tries


@dataclass(frozen=True, slots=True)
class Process:
    """A pid alone is not an identity: pids are used again. The start time of this boot makes it one."""

    pid: int
    started: str
    boot: str

    @classmethod
    def of(cls, pid: int) -> Process:
        return cls(pid, _start_time(pid), _boot())

    @classmethod
    def load(cls, path: Path) -> Process | None:
        try:
            return cls(**json.loads(path.read_text()))
        except (FileNotFoundError, ValueError, TypeError):
            return None

    def save(self, path: Path) -> None:
        path.write_text(json.dumps(asdict(self)))

    @property
    def is_alive(self) -> bool:
        return self.started != "" and self.boot == _boot() and _start_time(self.pid) == self.started

    def stop(self, number: signal.Signals = signal.SIGKILL) -> None:
        """End it and wait until it is gone. The default suits a namespace's first process: the rest dies with it."""
        if not self.is_alive:
            return
        with contextlib.suppress(ProcessLookupError):
            os.kill(self.pid, number)
        wait_for(lambda: not self.is_alive, 10, f"the end of process {self.pid}")


def _boot() -> str:
    return Path("/proc/sys/kernel/random/boot_id").read_text().strip()


def _start_time(pid: int) -> str:
    """Field 22 of /proc/PID/stat (proc(5)); empty when there is no such process, or only its zombie."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except (FileNotFoundError, ProcessLookupError):
        return ""
    return "" if fields[0] in "ZX" else fields[19]


def wait_for(condition: Callable[[], bool], seconds: float, what: str) -> None:
    for _ in tries(seconds, 0.02):
        if condition():
            return
    raise LabError(f"waited {seconds * PATIENCE:g} s in vain for {what}")


def spawn(command: list[str], log: Path) -> int:
    """Start a process that outlives this one; its output goes to the log."""
    with log.open("ab") as output:
        child = subprocess.Popen(
            command, stdin=subprocess.DEVNULL, stdout=output, stderr=output, start_new_session=True, cwd="/"
        )
    return child.pid


def only_child(pid: int) -> int | None:
    """The pid, as seen from here, of what `unshare --fork` started."""
    try:
        children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    except (FileNotFoundError, ProcessLookupError):
        return None
    return int(children[0]) if children else None


def run(command: list[str], text: str | None = None) -> str:
    """Run a command that has to succeed; its standard output."""
    done = subprocess.run(command, input=text, capture_output=True, text=True)
    if done.returncode:
        raise LabError(f"{' '.join(command)}: exit {done.returncode}: {(done.stderr or done.stdout).strip()[-2000:]}")
    return done.stdout
