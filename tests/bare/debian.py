"""A bare Debian with this checkout in it: neither Python nor pip nor sudo, nothing but what apt itself needs."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

from tests.lab.images import bootstrap, clear, ensure_tools

SOURCE = Path(__file__).parents[2]
WAY_OUT = ("etc/resolv.conf", "etc/pip.conf", "etc/ssl/certs/ca-certificates.crt")
OWN_CAS = "usr/local/share/ca-certificates"
"""With WAY_OUT, what says how this machine reaches its mirrors; a proxy is in the environment."""

# $1: the root, $2: a scratch directory, $3: a shell script, run in the checkout.
COMMON = """
set -e
prepare() {
  mount --rbind /dev "$1/dev"
  mount -t tmpfs tmpfs "$1/dev/shm"
  mount --rbind /sys "$1/sys"
  mount -t tmpfs tmpfs "$1/run"
  mount -t proc proc "$1/proc"
}
enter() { cd "$1"; pivot_root . mnt; umount -l /mnt; cd /; }
"""
PIVOT_ROOT = f"""{COMMON}
mount --bind "$1" "$1"
prepare "$1"
enter "$1"
exec env -C /src sh -c "$3"
"""
# The chroot and the machine around it are two overlays of the same Debian, of which nothing is kept.
CHROOT = f"""{COMMON}
mount -t tmpfs tmpfs "$2"
layer() {{
  mkdir -p "$2" "$3.upper" "$3.work"
  mount -t overlay overlay -o "lowerdir=$1,upperdir=$3.upper,workdir=$3.work" "$2"
}}
layer "$1" "$2/outer" "$2/1"
layer "$1" "$2/outer/chroot" "$2/2"
prepare "$2/outer"
prepare "$2/outer/chroot"
enter "$2/outer"
outside() {{ {{ find /etc -type f -exec sha256sum {{}} +; ls -A /home /root /run; }} | sort | sha256sum; }}
before=$(outside)
status=0
chroot /chroot env -C /src sh -c "$3" || status=$?
[ "$(outside)" = "$before" ] || {{ echo "the machine outside was changed"; exit 99; }}
exit $status
"""


class Bare:
    """The root directory; scripts run in it as root, with the machine's network, and processes of their own."""

    def __init__(self, suite: str, directory: Path) -> None:
        self.root = directory / suite
        self.scratch = directory / "scratch"
        self.scratch.mkdir()
        ensure_tools()
        bootstrap(self.root, suite, ["--variant=minbase"])
        for name in WAY_OUT:
            if (Path("/") / name).exists():
                (self.root / name).parent.mkdir(parents=True, exist_ok=True)
                shutil.copyfile(Path("/") / name, self.root / name)
        if (Path("/") / OWN_CAS).exists():
            shutil.copytree(Path("/") / OWN_CAS, self.root / OWN_CAS, dirs_exist_ok=True)
        (self.root / "src").mkdir()
        files = ["git", "-C", str(SOURCE), "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
        copy = ["tar", "-C", str(SOURCE), "--null", "-T", "-", "-c"]
        packed = subprocess.run(copy, input=subprocess.check_output(files), stdout=subprocess.PIPE, check=True)
        subprocess.run(["tar", "-C", str(self.root / "src"), "-x"], input=packed.stdout, check=True)

    def run(self, script: str, way: str = PIVOT_ROOT) -> subprocess.CompletedProcess[str]:
        """What a script came to, standard error among its output. `way`: PIVOT_ROOT or CHROOT."""
        space = ["unshare", "-m", "-p", "-u", "-i", "--fork", "--kill-child"]
        kept = {name: text for name, text in os.environ.items() if name.startswith("PIP_") or "proxy" in name.lower()}
        environment = kept | {"PATH": "/usr/sbin:/usr/bin:/sbin:/bin", "HOME": "/root"}
        return subprocess.run(
            [*space, "sh", "-c", way, "sh", str(self.root), str(self.scratch), script],
            env=environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )

    def remove(self) -> None:
        clear(self.root)
