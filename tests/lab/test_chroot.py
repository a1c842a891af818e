"""In a plain chroot the lab and the demo refuse to start, and even a host that was started changes nothing outside.

The machine around the chroot is one to sacrifice: this one's files under an overlay, entered by pivot_root, with
namespaces of its own. The chroot is a mount of its own, because only there pivot_root(2) works and a host can be made.
"""

from __future__ import annotations

import shlex
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.lab.config import cache_dir
from tests.lab.hosts import ALL
from tests.lab.images import ensure_image
from tests.lab.root import EX_SOFTWARE, guarded, objection

pytestmark = pytest.mark.lab
ROOT = Path(__file__).parents[2]
SPEC = ALL["pf1"]
# $1: a directory. Then: what the commands read, which may lie on other file systems than /.
OUTER = """
set -e
scratch=$1
shift
mount -t tmpfs tmpfs "$scratch"
mkdir "$scratch/upper" "$scratch/work" "$scratch/outer"
outer=$scratch/outer
mount -t overlay overlay -o "lowerdir=/,upperdir=$scratch/upper,workdir=$scratch/work" "$outer"
bind() { mkdir -p "$2"; mount --rbind "$1" "$2"; }
for place in /dev /sys "$@"; do bind "$place" "$outer$place"; done
mount -t proc proc "$outer/proc"
cd "$outer"
pivot_root . mnt
umount -l /mnt
ip link set lo up
mount -t tmpfs tmpfs /mnt
for place in /*; do
  case $place in
  /etc) cp -a /etc /mnt ;;
  /home | /mnt | /root | /run | /tmp) mkdir "/mnt$place" ;;
  *) if [ -L "$place" ]; then cp -a "$place" /mnt; elif [ -d "$place" ]; then bind "$place" "/mnt$place"; fi ;;
  esac
done
for place in "$@"; do [ -e "/mnt$place" ] || bind "$place" "/mnt$place"; done
outside() { { find /etc -xdev -type f -exec sha256sum {} +; ls -A /home /root /var/spool; } | sort | sha256sum; }
before=$(outside)
"""
VERDICT = """
[ "$(outside)" = "$before" ] && echo 'outside: as before' || echo 'outside: changed'
"""


@dataclass(frozen=True)
class Outcome:
    status: int
    said: str
    is_unchanged: bool


def sacrificed(scratch: Path, command: list[str], *, in_chroot: bool) -> Outcome:
    """What a command came to in the chroot, or beside it in its outer machine, and whether that one is unchanged."""
    places = {str(ROOT), str(Path(sys.prefix).resolve()), sys.base_prefix, str(cache_dir())}
    lab = ["MXFLEET_LAB_DIR=/lab", "MXFLEET_LAB_LANE=0", f"MXFLEET_LAB_CACHE={cache_dir()}"]
    entered = ["chroot", "/mnt"] if in_chroot else []
    line = shlex.join([*entered, "env", "-C", str(ROOT), *lab, "MXFLEET_DATA=/tmp/data", *command])
    script = f'{OUTER}\nstatus=0\n{line} 2>&1 || status=$?\necho "status: $status"\n{VERDICT}'
    namespaces = ["unshare", "-m", "-p", "-n", "-u", "-i", "--fork", "--kill-child"]
    done = subprocess.run(
        [*namespaces, "sh", "-c", script, "sh", str(scratch), *sorted(places)], capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr + done.stdout
    *said, status, verdict = done.stdout.splitlines()
    return Outcome(int(status.removeprefix("status: ")), "\n".join(said), verdict == "outside: as before")


@pytest.mark.parametrize("command", ["tests.lab.lab up pf1", "tests.lab.lab down", "tests.lab.demo"])
def test_in_a_plain_chroot_nothing_starts_and_nothing_outside_changes(tmp_path: Path, command: str) -> None:
    outcome = sacrificed(tmp_path, [sys.executable, "-m", *command.split()], in_chroot=True)
    assert outcome.status == 69
    assert "plain chroot" in outcome.said
    assert outcome.is_unchanged


def test_a_host_that_was_started_in_a_chroot_all_the_same_changes_nothing_outside(tmp_path: Path) -> None:
    ensure_image(SPEC.suite, SPEC.packages, SPEC.preseed)
    code = (
        "from tests.lab.config import run_dir; from tests.lab.hosts import ALL; from tests.lab.machine import Machine\n"
        "run_dir().mkdir(); machine = Machine(ALL['pf1']); machine.start()\n"
        "print(machine.sh('cat /etc/hostname; id -un fleetops; pwd'), end='')"
    )
    outcome = sacrificed(tmp_path, [sys.executable, "-c", code], in_chroot=True)
    assert (outcome.status, outcome.said) == (0, "pf1\nfleetops\n/")
    assert outcome.is_unchanged


def test_a_tree_that_was_entered_by_pivot_root_is_no_chroot(tmp_path: Path) -> None:
    code = "from tests.lab.root import objection; print(objection() or 'none')"
    assert objection() == ""
    assert sacrificed(tmp_path, [sys.executable, "-c", code], in_chroot=False).said == "none"


def test_a_script_of_the_lab_does_nothing_where_its_host_is_not(tmp_path: Path) -> None:
    canary = tmp_path / "canary"
    done = subprocess.run(["sh", "-c", guarded(f"touch {canary}", "pf1")], capture_output=True, text=True)
    assert done.returncode == EX_SOFTWARE
    assert "not the root of pf1" in done.stderr
    assert not canary.exists()
