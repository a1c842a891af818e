"""Where the lab may work: on a machine whose `/` it can come back to, and inside roots that it made itself.

Entering a mount namespace, which is how a host is reached, leads to that namespace's root: out of any chroot. What was
meant for the host would then change the machine around the chroot. Three bars against that: the lab does not start in a
chroot, a host is entered with the root of its own first process, and each script first looks for the host's marker.
Imports nothing of the lab: the demo asks before it has set the lab's variables.
"""

from __future__ import annotations

import os
import shlex
import subprocess

MARKERS = "/run/mxfleet-lab"
"""A directory in the root of each host, with a file of the host's name."""
EX_SOFTWARE = 70
HERE = ("nsenter", "--mount=/proc/self/ns/mnt", "stat", "--format=%d:%i", "/")


def objection() -> str:
    """Why the lab may not start here, or nothing: `/` has to be what one finds who enters our own mount namespace."""
    if os.geteuid() != 0:
        return "the lab needs root: it makes namespaces, mounts and a network link"
    seen = os.stat("/")
    done = subprocess.run(HERE, capture_output=True, text=True, cwd="/")
    if done.stdout.strip() == f"{seen.st_dev}:{seen.st_ino}":
        return ""
    return (
        "/ is not the root of this mount namespace, as in a plain chroot, from which the lab would reach the machine "
        f"outside ({done.stderr.strip() or 'it has another root'}); use a container, a virtual machine or pivot_root"
    )


def guarded(script: str, host: str) -> str:
    """The script, behind a look whether it runs in the root of that host at all."""
    marker = shlex.quote(f"{MARKERS}/{host}")
    refusal = f"{{ echo 'this is not the root of {host}, nothing was done' >&2; exit {EX_SOFTWARE}; }}"
    return f"[ -f {marker} ] || {refusal}\n{script}"
