"""Debian roots for the hosts, made once with mmdebstrap and kept in the cache directory."""

from __future__ import annotations

import fcntl
import hashlib
import os
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from tests.lab.config import LabError, cache_dir
from tests.lab.hosts import ALL

KEYRING = "/usr/share/keyrings/debian-archive-keyring.gpg"
DEFAULT_MIRRORS = ("http://deb.debian.org/debian", "http://deb.debian.org/debian-security")
# Every host needs these; the product itself needs only a POSIX shell and coreutils there.
COMMON = ("openssh-server", "sudo", "procps", "iproute2", "rsyslog", "tini")
# program -> Debian package, for what the lab itself runs on the machine
TOOLS = {"mmdebstrap": "mmdebstrap", "ip": "iproute2", "ssh-keygen": "openssh-client", "nsenter": "util-linux"}


def ensure_tools(tools: Mapping[str, str] = TOOLS) -> None:
    """Install what is missing. Raises LabError when apt cannot help."""
    missing = [package for program, package in tools.items() if shutil.which(program) is None]
    if not Path(KEYRING).exists():
        missing.append("debian-archive-keyring")
    if not missing:
        return
    if shutil.which("apt-get") is None:
        raise LabError(f"the lab needs {', '.join(missing)}, and this machine has no apt-get to install them")
    environment = os.environ | {"DEBIAN_FRONTEND": "noninteractive"}
    for command in (["apt-get", "-q", "update"], ["apt-get", "-qy", "install", "--no-install-recommends", *missing]):
        done = subprocess.run(command, env=environment, capture_output=True, text=True)
        if done.returncode:
            raise LabError(f"{' '.join(command)}: {done.stderr.strip()}")


def ensure_images() -> None:
    """Those of all hosts, as many at once as there are processors: `python -m tests.lab.images`."""
    ensure_tools()
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        wanted = {(spec.suite, spec.packages, spec.preseed) for spec in ALL.values()}
        list(pool.map(lambda each: ensure_image(*each), sorted(wanted)))


def ensure_image(suite: str, packages: Iterable[str], preseed: Iterable[str] = ()) -> Path:
    """The root directory of that suite with those packages, built on first use (some seconds on top of its base)."""
    wanted = sorted({*COMMON, *packages})
    recipe = "\n".join([suite, *wanted, *preseed])
    image = cache_dir() / f"{suite}-{hashlib.sha256(recipe.encode()).hexdigest()[:10]}"
    label = f"{suite} with {', '.join(sorted(packages))}"
    return _ensure(image, label, lambda building: _build(building, suite, wanted, list(preseed)))


def _ensure_base(suite: str) -> Path:
    """What all images of a suite have in common, apt's lists included: bootstrapping is most of the work."""
    base = cache_dir() / f"base-{suite}-{hashlib.sha256(' '.join(COMMON).encode()).hexdigest()[:10]}"
    options = ["--variant=minbase", "--skip=cleanup/apt/lists", f"--include={','.join(COMMON)}"]
    return _ensure(base, f"{suite}, which the others are made of", lambda building: bootstrap(building, suite, options))


def _ensure(image: Path, label: str, build: Callable[[Path], None]) -> Path:
    cache_dir().mkdir(parents=True, exist_ok=True)
    with (cache_dir() / f"{image.name}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not image.exists():
            building, begun = image.with_suffix(".new"), time.monotonic()
            clear(building)
            build(building)
            building.rename(image)
            print(f"lab: image of {label}: {time.monotonic() - begun:.0f} s", file=sys.stderr, flush=True)
    return image


def _build(building: Path, suite: str, packages: list[str], preseed: list[str]) -> None:
    base = _ensure_base(suite)
    hooks = [f"--setup-hook=cp -a '{base}/.' \"$1\""]
    if preseed:
        answers = "\n".join(preseed).replace("'", "")
        hooks.append(f"--setup-hook=echo '{answers}' | chroot \"$1\" debconf-set-selections")
    bootstrap(building, suite, ["--variant=custom", "--skip=update", *hooks, f"--include={','.join(packages)}"])
    # A host makes its own keys and policies; a key that is in an image would be the same on every host.
    for stray in (building / "etc/ssh").glob("ssh_host_*"):
        stray.unlink()


def bootstrap(building: Path, suite: str, options: list[str]) -> None:
    """A root made by mmdebstrap, with the machine's own way to its mirrors. Raises LabError."""
    command = ["mmdebstrap", "--quiet", f"--keyring={KEYRING}", *(f"--aptopt={line}" for line in _apt_options())]
    # Manual pages and translations are half of a root's files, and nobody reads them here; nor need files outlive a
    # power cut before the image is whole.
    command += ["--dpkgopt=path-exclude=/usr/share/man/*", "--dpkgopt=path-exclude=/usr/share/locale/*"]
    command += ["--dpkgopt=force-unsafe-io", *options, suite, str(building), *_sources(suite)]
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode:
        clear(building)
        raise LabError(f"mmdebstrap {suite} failed:\n{done.stderr[-3000:]}")


def clear(root: Path) -> None:
    """Remove a root that was begun. A build that was killed leaves the machine's own /dev and /sys mounted in it."""
    lines = Path("/proc/self/mountinfo").read_text().splitlines()
    places = [line.split()[4] for line in lines]
    for place in sorted((place for place in places if place.startswith(f"{root.resolve()}/")), reverse=True):
        subprocess.run(["umount", "--lazy", place], check=True)
    shutil.rmtree(root, ignore_errors=True)


def _sources(suite: str) -> list[str]:
    main, security = mirrors(*_read_sources())
    return [f"deb {main} {suite} main", f"deb {security} {suite}-security main"]


def mirrors(*sources: str) -> tuple[str, str]:
    """(main, security) mirror as the machine's own apt sources name them, else Debian's."""
    given = os.environ.get("MXFLEET_LAB_MIRROR")
    found = [uri.rstrip("/") for text in sources for uri in re.findall(r"\bhttps?://[^\s#]+", text)]
    main = given or next((uri for uri in found if uri.endswith("/debian")), DEFAULT_MIRRORS[0])
    security = next((uri for uri in found if uri.endswith("/debian-security")), DEFAULT_MIRRORS[1])
    return main, security


def _read_sources() -> list[str]:
    places = [Path("/etc/apt/sources.list"), *sorted(Path("/etc/apt/sources.list.d").glob("*"))]
    texts = [place.read_text(errors="replace") for place in places if place.is_file()]
    return ["\n".join(line for line in text.splitlines() if not line.lstrip().startswith("#")) for text in texts]


def _apt_options() -> list[str]:
    """The machine's own way to its mirrors: proxies, retries and the checks that an old snapshot needs switched off."""
    dump = subprocess.run(["apt-config", "dump"], capture_output=True, text=True).stdout
    wanted = re.compile(r"Acquire::(https?::|Retries|ForceIPv|Check-)", re.IGNORECASE)
    return [line for line in dump.splitlines() if wanted.match(line) and not line.endswith('"";')]


if __name__ == "__main__":
    ensure_images()
