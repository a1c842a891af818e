"""Where the lab keeps things and which addresses it uses. Standard library only: the demo imports this too."""

from __future__ import annotations

import os
from pathlib import Path

from tests.lab.lanes import lane, name_of, network_of

LANE = lane()  # a second lab beside the first, for a process that runs tests: see lanes.py
# A /24; change it where that network is already taken.
PREFIX = network_of(os.environ.get("MXFLEET_LAB_PREFIX", "10.77.0"), LANE)
DOMAIN = "lab.test"
USER = "fleetops"

# The only interface that the lab adds to the machine's own network namespace.
LINK = name_of(os.environ.get("MXFLEET_LAB_LINK", "mxl0"), LANE)
RELAY_CLIENT = f"{PREFIX}.1"  # in the hosts' mynetworks
OUTSIDER = f"{PREFIX}.2"  # an ordinary client: may only send to RELAY_DOMAINS
DNS = f"{PREFIX}.53"

# The sink's domains, each with its own address, so that a domain's answer is chosen by where the client connects.
SINKS = {
    "ok.test": f"{PREFIX}.201",
    "defer.test": f"{PREFIX}.202",
    "reject.test": f"{PREFIX}.203",
    "slow.test": f"{PREFIX}.204",
    "ok2.test": f"{PREFIX}.205",
    "other.test": f"{PREFIX}.206",
    "bulk.example": f"{PREFIX}.207",  # the usual sender: so that a bounce arrives somewhere and can be seen
}


class LabError(RuntimeError):
    """The lab cannot do what was asked; the text says what to do about it."""


def cache_dir() -> Path:
    """Images and keys: they outlive `down`, so that the next `up` is quick and host keys stay the same."""
    return Path(os.environ.get("MXFLEET_LAB_CACHE", "/var/cache/mxfleet-lab"))


def run_dir() -> Path:
    """Pids, overlays and spools of the running lab. `down` removes it."""
    return base_dir() / name_of("lane", LANE) if LANE else base_dir()


def base_dir() -> Path:
    """The directory of the lab that is no lane, which holds those of the lanes."""
    given = os.environ.get("MXFLEET_LAB_DIR")
    if given:
        return Path(given)
    # An overlay's upper directory cannot lie on another overlay, which is what a container's /var/tmp often is.
    return Path("/dev/shm/mxfleet-lab" if _file_system("/var/tmp") == "overlay" else "/var/tmp/mxfleet-lab")


def _file_system(path: str) -> str:
    best = ("", "")
    for line in Path("/proc/self/mounts").read_text().splitlines():
        _, target, kind, *_ = line.split(" ")
        if (path + "/").startswith(target.rstrip("/") + "/") and len(target) >= len(best[0]):
            best = (target, kind)
    return best[1]
