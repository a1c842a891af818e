"""The lab's network: a bridge in a namespace of its own, one link from it to the machine, one to each host.

The bridge is not in the machine's namespace because a firewall there (Docker's, for one) may also filter bridged
packets, and because a port 25 or 53 that is taken on the machine must not matter to the sink.
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

from tests.lab.config import DNS, LINK, OUTSIDER, PREFIX, RELAY_CLIENT, SINKS, LabError, run_dir
from tests.lab.hosts import HostSpec
from tests.lab.processes import Process, only_child, run, spawn, wait_for

# Fixed addresses: a bridge takes the lowest MAC of its ports, so it would change with every host that comes or goes.
BRIDGE_MAC = "02:4d:58:00:01:00"
LINK_MAC = "02:4d:58:00:01:01"


def ensure_network() -> Process:
    """The running switch (its namespace's first process), started together with sink and DNS when it is not there."""
    switch = Process.load(_switch_file())
    if switch is None or not switch.is_alive:
        switch = _start_switch()
    services = Process.load(_services_file())
    if services is None or not services.is_alive:
        _start_services(switch)
    return switch


def stop_network() -> None:
    for file in (_services_file(), _switch_file()):
        process = Process.load(file)
        if process is not None:
            process.stop()
    # The namespace, and the bridge with it, goes when its last process has gone; that of the link may take longer.
    subprocess.run(["ip", "link", "del", LINK], capture_output=True)


def is_network_up() -> bool:
    found = [Process.load(file) for file in (_switch_file(), _services_file())]
    return all(process is not None and process.is_alive for process in found)


def attach(spec: HostSpec, host: Process) -> None:
    """Give the host its eth0, plugged into the bridge."""
    port, switch = port_of(spec), ensure_network()
    subprocess.run(_in_switch(switch, "ip", "link", "del", port), capture_output=True)
    _ipv6_off(host)
    peer = ["peer", "name", "eth0", "address", spec.mac, "netns", str(host.pid)]
    mac = f"02:4d:58:00:02:{spec.number:02x}"
    run(_in_switch(switch, "ip", "link", "add", port, "address", mac, "type", "veth", *peer))
    run(_in_switch(switch, "ip", "link", "set", port, "master", "br0", "up"))
    inside = ["nsenter", "-t", str(host.pid), "-n", "ip"]
    run([*inside, "-batch", "-"], f"link set lo up\naddr add {spec.address}/24 dev eth0\nlink set eth0 up\n")


def is_attached(host: Process) -> bool:
    """Whether the host has its eth0: the interface goes with the bridge's namespace, when that was killed."""
    command = ["nsenter", "-t", str(host.pid), "-n", "ip", "link", "show", "eth0"]
    return subprocess.run(command, capture_output=True).returncode == 0


def set_link(spec: HostSpec, state: str) -> None:
    """Pull ("down") or plug ("up") the host's cable."""
    run(_in_switch(ensure_network(), "ip", "link", "set", port_of(spec), state))


def port_of(spec: HostSpec) -> str:
    return f"h-{spec.name}"


def _start_switch() -> Process:
    stop_network()
    parent = spawn(["unshare", "-n", "--fork", "--kill-child", "sleep", "infinity"], run_dir() / "switch.log")
    wait_for(lambda: only_child(parent) is not None, 5, "the switch's namespace")
    switch = Process.of(only_child(parent) or 0)
    if not switch.is_alive:
        raise LabError(f"no network namespace: see {run_dir() / 'switch.log'}")
    switch.save(_switch_file())
    _ipv6_off(switch)
    services = "".join(f"addr add {address}/24 dev br0\n" for address in (DNS, *SINKS.values()))
    run(
        [
            "ip",
            "link",
            "add",
            LINK,
            "address",
            LINK_MAC,
            "type",
            "veth",
            "peer",
            "name",
            "out",
            "netns",
            str(switch.pid),
        ]
    )
    bridge = f"link add br0 address {BRIDGE_MAC} type bridge forward_delay 0\nlink set out master br0 up\n"
    run(_in_switch(switch, "ip", "-batch", "-"), f"link set lo up\n{bridge}{services}link set br0 up\n")
    Path(f"/proc/sys/net/ipv6/conf/{LINK}/disable_ipv6").write_text("1")
    ours = "".join(f"addr add {address}/24 dev {LINK}\n" for address in (RELAY_CLIENT, OUTSIDER, f"{PREFIX}.3"))
    run(["ip", "-batch", "-"], f"{ours}link set {LINK} up\n")
    return switch


def _start_services(switch: Process) -> None:
    """Sink and DNS, on the bridge's own addresses."""
    top = Path(__file__).parents[2]
    command = ["env", f"PYTHONPATH={top}", sys.executable, "-m", "tests.lab.services"]
    ready = run_dir() / "services.ready"
    ready.unlink(missing_ok=True)
    pid = spawn(_in_switch(switch, *command, str(run_dir())), run_dir() / "services.log")
    Process.of(pid).save(_services_file())  # nsenter without --fork replaces itself: the pid stays
    wait_for(ready.exists, 10, f"sink and DNS (see {run_dir() / 'services.log'})")


def _ipv6_off(process: Process) -> None:
    script = "for f in /proc/sys/net/ipv6/conf/*/disable_ipv6; do echo 1 > $f; done"
    if os.path.isdir("/proc/sys/net/ipv6"):
        run(["nsenter", "-t", str(process.pid), "-n", "sh", "-c", script])


def _in_switch(switch: Process, *command: str) -> list[str]:
    return ["nsenter", "-t", str(switch.pid), "-n", *command]


def _switch_file() -> Path:
    return run_dir() / "switch.json"


def _services_file() -> Path:
    return run_dir() / "services.json"
