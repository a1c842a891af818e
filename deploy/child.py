"""One child process of the supervisor: started in a session of its own, started again when it dies, stopped whole."""

import ctypes
import os
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass

PR_SET_PDEATHSIG = 1
BACKOFF = (1.0, 2.0, 5.0, 10.0, 30.0)
STEADY = 60.0
"""Seconds after which a child counts as healthy, so that its next death begins with the shortest pause."""

_prctl = ctypes.CDLL(None, use_errno=True).prctl


@dataclass
class Child:
    """A program and its state; times are those of time.monotonic(). One that `is_once` may end and stays ended."""

    name: str
    argv: Sequence[str]
    is_once: bool = False
    process: subprocess.Popen[bytes] | None = None
    started: float = 0.0
    deaths: int = 0
    restart_at: float | None = None

    def start(self) -> None:
        """Start it. It gets SIGTERM from the kernel when the supervisor dies, however that dies."""
        parent = os.getpid()
        self.process = subprocess.Popen(
            self.argv,
            stdin=subprocess.DEVNULL,
            start_new_session=True,
            preexec_fn=lambda: tie_to(parent),
        )
        self.started = time.monotonic()
        self.restart_at = None

    def tend(self, now: float) -> int | None:
        """Start it again when its pause is over. Returns the exit status when a death is first seen, else None."""
        if self.restart_at is not None:
            if now >= self.restart_at:
                self.start()
            return None
        if self.process is None or self.process.poll() is None or self.is_once:
            return None
        self.deaths = 1 if now - self.started > STEADY else self.deaths + 1
        self.restart_at = now + BACKOFF[min(self.deaths, len(BACKOFF)) - 1]
        return self.process.returncode

    @property
    def is_alive(self) -> bool:
        return self.process is not None and self.process.poll() is None

    def signal(self, number: int) -> None:
        """Send a signal to it, if it lives; SIGKILL goes to all of its session's processes."""
        self.restart_at = None
        if self.process is None or not self.is_alive:
            return
        try:
            (os.killpg if number == signal.SIGKILL else os.kill)(self.process.pid, number)
        except ProcessLookupError:
            return


def tie_to(parent: int, number: signal.Signals = signal.SIGTERM) -> None:
    """Runs in the child before exec: unblock what the parent blocks, get a signal when it dies, end if it is gone."""
    signal.pthread_sigmask(signal.SIG_SETMASK, [])
    _prctl(PR_SET_PDEATHSIG, number)
    if os.getppid() != parent:
        os._exit(1)


def described(status: int) -> str:
    """An exit status in words."""
    return f"killed by {signal.Signals(-status).name}" if status < 0 else f"exit status {status}"


def python(*arguments: str) -> list[str]:
    return [sys.executable, *arguments]
