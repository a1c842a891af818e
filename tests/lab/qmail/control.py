"""What tests do with the qmail host, besides what every host can."""

from __future__ import annotations

import shlex

from tests.lab.lab import Host
from tests.lab.qmail.layout import VIOLATIONS

LIBRARY = "/usr/local/lib/qmail-lab"
SERVICE = "/service/qmail-send"


def violations(host: Host) -> list[str]:
    """Every change to the queue that was not qmail's own while qmail-send ran: "TIME KIND PATH", oldest first."""
    return host.sh(f"cat {VIOLATIONS}").splitlines()


def forget_violations(host: Host) -> None:
    host.sh(f": > {VIOLATIONS}")


def stop_send(host: Host, seconds: float = 10) -> None:
    """svc -d, and wait until qmail-send has ended. Raises LabError when it does not in time."""
    _switch(host, "-d", ": down", seconds)


def start_send(host: Host) -> None:
    _switch(host, "-u", ": up", 10)
    host.machine.await_ready()


def fill(host: Host, count: int, *options: str) -> None:
    """Messages straight into the queue, for tests that need thousands; qmail-send has to be down. See fill.py."""
    arguments = shlex.join([str(count), *options])
    host.sh(f"cd {LIBRARY} && python3 -m tests.lab.qmail.fill {arguments}")


def _switch(host: Host, option: str, state: str, seconds: float) -> None:
    tries = round(seconds * 20)
    look = f"svstat {SERVICE} | grep -q '{state}'"
    host.sh(
        f"svc {option} {SERVICE}; for try in $(seq {tries}); do if {look}; then exit 0; fi; sleep 0.05; done; exit 1"
    )
