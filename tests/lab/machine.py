"""One host as a set of namespaces: made from an image, thrown away at `stop`.

Its first process (tini) holds mount, pid, uts, ipc and network namespaces together: when it is killed, everything
that the host was is gone, without a mount or an interface left on the machine.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

from tests.lab import network
from tests.lab.config import DNS, DOMAIN, USER, LabError, cache_dir, run_dir
from tests.lab.hosts import HostSpec
from tests.lab.images import ensure_image
from tests.lab.processes import Process, only_child, run, spawn, wait_for
from tests.lab.root import MARKERS, guarded

# Runs with the machine's own programs, in the new namespaces; ends as the host's first process, in its own root.
# "volatile" leaves out every fsync below the overlay: seconds of waiting for a disk, for files that nobody keeps.
# /var/spool is no overlay: Postfix's queue IDs are inode numbers, and an overlay's are not those of the files.
INIT = f"""
set -e
image=$1 state=$2 name=$3
root=$state/root
mount -t overlay overlay -o "lowerdir=$image,upperdir=$state/upper,workdir=$state/work,volatile" "$root"
mount --bind "$state/spool" "$root/var/spool"
mount -t proc proc "$root/proc"
echo "$name" > "$root/proc/sys/kernel/hostname"
mount -t tmpfs -o mode=755 tmpfs "$root/run"
mkdir "$root{MARKERS}"
: > "$root{MARKERS}/$name"
mount -t tmpfs -o mode=755 tmpfs "$root/dev"
for node in null zero full random urandom tty; do
  : > "$root/dev/$node"
  mount --bind "/dev/$node" "$root/dev/$node"
done
mkdir "$root/dev/pts" "$root/dev/shm" "$root/run/sshd" "$root/run/lock"
mount -t devpts -o newinstance,ptmxmode=0666,mode=620,gid=5 devpts "$root/dev/pts"
mount -t tmpfs tmpfs "$root/dev/shm"
ln -s pts/ptmx "$root/dev/ptmx"
ln -s /proc/self/fd "$root/dev/fd"
for n in 0:stdin 1:stdout 2:stderr; do ln -s "/proc/self/fd/${{n%:*}}" "$root/dev/${{n#*:}}"; done
cd "$root"
mkdir -p .machine
pivot_root . .machine
exec /usr/sbin/chroot . /bin/sh -c 'umount -l /.machine; rmdir /.machine; exec /usr/bin/tini -- sleep infinity'
"""

# sshd keeps Debian's limits (MaxStartups, MaxSessions): the product has to live with them on real hosts.
PROVISION = f"""
set -e
cat > /etc/hosts <<EOF
127.0.0.1 localhost
$ADDRESS $NAME.$DOMAIN $NAME
EOF
echo "$NAME" > /etc/hostname
echo "nameserver {DNS}" > /etc/resolv.conf
add_user() {{
  useradd -m -s "$2" "$1"
  install -d -m 700 -o "$1" -g "$1" "/home/$1/.ssh"
  echo "$PUBLIC_KEY" > "/home/$1/.ssh/authorized_keys"
  chown "$1:$1" "/home/$1/.ssh/authorized_keys"
}}
add_user {USER} /bin/bash
for shell in $SHELLS; do add_user "${{shell}}user" "/usr/bin/$shell"; done
echo "{USER} ALL=(ALL:ALL) NOPASSWD: ALL" > /etc/sudoers.d/{USER}
chmod 440 /etc/sudoers.d/{USER}
echo "$HOST_KEY" | base64 -d > /etc/ssh/ssh_host_ed25519_key
chmod 600 /etc/ssh/ssh_host_ed25519_key
ssh-keygen -y -f /etc/ssh/ssh_host_ed25519_key > /etc/ssh/ssh_host_ed25519_key.pub
echo "HostKey /etc/ssh/ssh_host_ed25519_key" > /etc/ssh/sshd_config.d/lab.conf
cat > /etc/rsyslog.conf <<EOF
module(load="imuxsock")
\\$ActionFileDefaultTemplate RSYSLOG_FileFormat
\\$RepeatedMsgReduction off
\\$FileCreateMode 0640
\\$IncludeConfig /etc/rsyslog.d/*.conf
mail.* -/var/log/mail.log
auth,authpriv.* /var/log/auth.log
*.*;mail,auth,authpriv.none -/var/log/syslog
EOF
"""

SSHD = "/usr/sbin/sshd"
# rsyslogd sleeps a second when it puts itself into the background. What is logged before its socket is there is lost.
START = f"""
rsyslogd -n < /dev/null > /dev/null 2>&1 &
{SSHD}
until [ -S /dev/log ]; do sleep 0.01; done
"""


class Machine:
    """The namespaces of one host. Not a handle for tests: that is `lab.Host`."""

    def __init__(self, spec: HostSpec) -> None:
        self.spec = spec
        self.state = run_dir() / "hosts" / spec.name

    @property
    def process(self) -> Process | None:
        """The host's first process, or None when the host is not up."""
        process = Process.load(self.state / "init.json")
        return process if process is not None and process.is_alive else None

    @property
    def is_current(self) -> bool:
        """Whether it is up, on the network, and as its description and these scripts say today."""
        process, recipe = self.process, self.state / "recipe"
        is_described = recipe.exists() and recipe.read_text() == self._recipe()
        return process is not None and is_described and network.is_attached(process)

    def start(self) -> None:
        """Make the host anew and start everything on it. Takes a few seconds."""
        image = ensure_image(self.spec.suite, self.spec.packages, self.spec.preseed)
        self.stop()
        for part in ("upper", "work", "root"):
            (self.state / part).mkdir(parents=True)
        run(["cp", "-a", f"{image}/var/spool", str(self.state / "spool")])
        namespaces = ["unshare", "-n", "-m", "-p", "-u", "-i", "--fork", "--kill-child"]
        init = ["sh", "-c", INIT, "init", str(image), str(self.state), self.spec.name]
        parent = spawn([*namespaces, *init], self.state / "init.log")
        self._await_init(parent)
        network.attach(self.spec, self._process())
        self.sh(f"{PROVISION}\n{self.spec.configure}", environment=self._environment())
        self.sh(f"{START}\n{self.spec.start}")
        self.await_ready()
        (self.state / "recipe").write_text(self._recipe())

    def stop(self) -> None:
        stop_state(self.state)

    def await_ready(self) -> None:
        wait_for(lambda: self.run(self.spec.ready).returncode == 0, 20, f"the MTA of {self.spec.name}")
        wait_for(lambda: self.is_listening(22), 10, "sshd")

    def is_listening(self, port: int) -> bool:
        return self.run(f"ss -Hltn 'sport = :{port}' | grep -q .").returncode == 0

    def run(
        self,
        script: str,
        *,
        stdin: str | bytes | None = None,
        timeout: float = 120,
        environment: dict[str, str] | None = None,
        text: bool = True,
    ) -> subprocess.CompletedProcess:
        """Run a shell script as root inside the host."""
        command = self.command(script, environment)
        given = {"input": stdin} if stdin is not None else {"stdin": subprocess.DEVNULL}
        return subprocess.run(command, capture_output=True, text=text, timeout=timeout, **given)

    def sh(self, script: str, environment: dict[str, str] | None = None) -> str:
        """As `run`, for what has to succeed."""
        done = self.run(script, environment=environment)
        if done.returncode:
            raise LabError(f"{self.spec.name}: exit {done.returncode}: {done.stderr[-2000:]}\n{script[-500:]}")
        return done.stdout

    def command(self, script: str, environment: dict[str, str] | None = None) -> list[str]:
        """The argv that runs a shell script as root inside the host, with nothing of our own environment."""
        clean = {"PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", "HOME": "/root"}
        settings = [f"{name}={value}" for name, value in (clean | (environment or {})).items()]
        # -m alone leads to the namespace's root, which is the host's only where the lab did not start in a chroot.
        enter = ["nsenter", "-t", str(self._process().pid), "-m", "-p", "-u", "-i", "-n", "-r", "-w"]
        return [*enter, "env", "-i", *settings, "sh", "-c", guarded(script, self.spec.name)]

    def _process(self) -> Process:
        process = self.process
        if process is None:
            raise LabError(f"{self.spec.name} is not up: run `python -m tests.lab.lab up {self.spec.name}`")
        return process

    def _await_init(self, parent: int) -> None:
        def is_tini() -> bool:
            child = only_child(parent)
            return child is not None and Path(f"/proc/{child}/comm").read_text() == "tini\n"

        try:
            wait_for(is_tini, 10, f"the namespaces of {self.spec.name}")
        except LabError as error:
            raise LabError(f"{error}: {(self.state / 'init.log').read_text()[-2000:]}") from None
        Process.of(only_child(parent) or 0).save(self.state / "init.json")

    def _environment(self) -> dict[str, str]:
        return {
            "NAME": self.spec.name,
            "ADDRESS": self.spec.address,
            "DOMAIN": DOMAIN,
            "SHELLS": " ".join(self.spec.shells),
            "PUBLIC_KEY": ensure_key(USER).with_suffix(".pub").read_text(),
            "HOST_KEY": encoded(ensure_key(f"host-{self.spec.name}")),
        }

    def _recipe(self) -> str:
        text = repr((self.spec, INIT, PROVISION, START, self._environment()))
        return hashlib.sha256(text.encode()).hexdigest()


def stop_state(state: Path) -> None:
    """End the host whose state this is, also one that no description names any more, and remove the state."""
    process = Process.load(state / "init.json")
    if process is not None:
        process.stop()

    def is_gone() -> bool:
        shutil.rmtree(state, ignore_errors=True)
        return not state.exists()

    # The kernel may let go of a dead host's overlay a moment later.
    wait_for(is_gone, 5, f"the removal of {state}")


def ensure_key(name: str) -> Path:
    """The private key of that name. Kept with the images: a host that comes back is the same host to its clients."""
    path = cache_dir() / "keys" / name
    path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    with locked(path.parent / ".lock"):
        if not path.exists():
            run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", f"{name}@mxfleet-lab", "-f", str(path)])
    return path


def encoded(path: Path) -> str:
    return run(["base64", "-w0", str(path)])


@contextlib.contextmanager
def locked(path: Path) -> Iterator[None]:
    """One at a time, among threads and processes alike."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield
