"""The main job in one command: the service, a fleet of real MX hosts of five MTAs, and a walk through the operations.

The hosts are those of tests/lab, as a second lab beside one that tests may be using. The demo has a data directory of
its own below `MXFLEET_DATA`, made anew each time. Stopping removes the hosts; their images are kept for the next time.
"""

import os
import shutil
import signal
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path

from deploy import logs, supervise
from deploy.child import python
from deploy.env import load
from tests.lab.root import objection

EX_UNAVAILABLE = 69
EX_NOPERM = 77
GRACE = 20.0
"""Seconds that the building of images has to end."""
HOSTS = ("pf1", "sm1", "ex1", "os1", "qm1")
LAB = {
    "MXFLEET_LAB_PREFIX": "10.78.0",
    "MXFLEET_LAB_LINK": "mxdemo0",
    "MXFLEET_LAB_DIR": "/dev/shm/mxfleet-demo",
}


RUN = Path("/run/mxfleet-demo")
"""Its lock is the machine's: all demos have the same hosts, so a second one would take them from the first."""


def main() -> int:
    """Start everything, walk, stay up until told to stop."""
    if os.geteuid() != 0 or not Path("/etc/debian_version").exists():
        print("mxfleet: the demo makes network namespaces: start it as root on Debian or Ubuntu", file=sys.stderr)
        return EX_NOPERM
    said = objection()
    if said:
        print(f"mxfleet: {said}", file=sys.stderr)
        return EX_UNAVAILABLE
    env = load()
    logs.apply(env.log)
    RUN.mkdir(mode=0o700, exist_ok=True)
    try:
        with supervise.only_one(RUN, "this machine"):
            supervise.must_be_free(env.listen)
            return _with_hosts(env.data)
    except supervise.Stop as stop:
        return stop.status


def _with_hosts(data: Path) -> int:
    demo = data / "demo"
    shutil.rmtree(demo, ignore_errors=True)
    os.environ |= {"MXFLEET_DATA": str(demo), **LAB}
    os.environ.setdefault("MXFLEET_ACCESS_LOG", "off")  # the walk is what is to be read
    os.environ.setdefault("MXFLEET_LAB_CACHE", str(data / "lab"))
    from tests.lab.lab import Lab

    lab = Lab()
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # until the supervisor watches, it means Ctrl-C as well
    print("mxfleet: starting the MX hosts, the first time builds their images (some minutes)", file=sys.stderr)
    try:
        return supervise.main(_walk) if _is_up() else EX_UNAVAILABLE
    except KeyboardInterrupt:
        return 0
    finally:
        lab.down()


def _is_up() -> bool:
    """Start the hosts, in a session of its own: whoever stops the demo then ends the building of images too."""
    child = subprocess.Popen(python("-m", "tests.lab.lab", "up", *HOSTS), start_new_session=True)
    try:
        return child.wait() == 0
    except KeyboardInterrupt:
        end(child)
        raise


def end(child: "subprocess.Popen[bytes]") -> None:
    """SIGTERM, upon which mmdebstrap takes its mounts away, and SIGKILL for what is left of the session."""
    deadline = time.monotonic() + GRACE
    with suppress(ProcessLookupError):
        os.killpg(child.pid, signal.SIGTERM)
        child.wait()
        while time.monotonic() < deadline:
            os.killpg(child.pid, 0)
            time.sleep(0.1)
        os.killpg(child.pid, signal.SIGKILL)


def _walk(supervisor: supervise.Supervisor) -> None:
    supervise.announce(supervisor)
    supervisor.start("demo", python("-m", "tests.lab.demo_walk"), is_once=True)


if __name__ == "__main__":
    sys.exit(main())
