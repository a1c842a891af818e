"""300 hosts from a file to discovered, checked and found: what the service's part of that work takes, step by step."""

import csv
import io
import time
from collections.abc import Callable
from typing import Any

from tests.bench.farm import Farm
from tests.bench.measure import cpu_of, table, verdict
from tests.bench.service import Service, service
from tests.bench.settings import alone
from tests.ssh.sshd import public

HOSTS = 300
AT_ONCE = 100
"""As many hosts as one request asks for their keys."""
GOAL = 300
"""Seconds for all of it."""
CUSTOMER = "msp"
API = "/api/v1/"


def run(farm: Farm) -> str:
    """Measure once on each database, and tell in Markdown."""
    tables = []
    for database in ("postgresql", "sqlite"):
        with service(farm, database) as made:
            tables.append(_measured(made, farm, database))
    return "\n\n".join(tables)


def _measured(service: Service, farm: Farm, database: str) -> str:
    _prepare(service, farm)
    hosts = {f"new{number:03d}": address for number, address in enumerate(farm.addresses(HOSTS))}
    keys: dict[str, str] = {}
    steps: dict[str, Callable[[], Any]] = {
        "file of hosts, dry run": lambda: _import(service, _file(hosts, farm), "dry_run=true"),
        "file of hosts": lambda: _import(service, _file(hosts, farm)),
        "their keys, asked for and compared": lambda: keys.update(_scanned(service, farm, list(hosts))),
        "file of hosts with keys": lambda: _import(service, _file(hosts, farm, keys)),
        "`host.discover`": lambda: _job(service, "host.discover"),
        "the same file again": lambda: _import(service, _file(hosts, farm, keys)),
        "`host.check`": lambda: _job(service, "host.check"),
        "found by status, label and search": lambda: _find(service, list(hosts)),
    }
    rows, total = [], 0.0
    for name, step in steps.items():
        before, begun = cpu_of(service.pids), time.monotonic()
        step()
        wall = time.monotonic() - begun
        total += wall
        rows.append([name, f"{wall:.2f}", f"{cpu_of(service.pids) - before:.2f}", ""])
    rows.append(["all", f"{total:.1f}", "", verdict(total, GOAL, at_least=False)])
    return table((f"{HOSTS} hosts, {database}", "wall s", "CPU s", "goal"), rows)


def _prepare(service: Service, farm: Farm) -> None:
    """The customer, its credential, and what its hosts have in common."""
    key = (farm.directory / "client").read_text()
    service.call("POST", f"{API}customers/", {"slug": CUSTOMER, "name": CUSTOMER})
    service.call("POST", f"{API}credentials/", {"name": CUSTOMER, "customer": CUSTOMER, "private_key": key})
    defaults = {"username": "root", "credential": CUSTOMER, "port": farm.port}
    service.call("PATCH", f"{API}customers/{CUSTOMER}/", {"defaults": defaults})


def _file(hosts: dict[str, str], farm: Farm, keys: dict[str, str] | None = None) -> str:
    """CSV."""
    out = io.StringIO()
    writer = csv.writer(out)
    writer.writerow(["name", "address", "labels.rack", "host_key"])
    for number, (name, address) in enumerate(hosts.items()):
        writer.writerow([name, address, f"r{number % 10}", (keys or {}).get(name, "")])
    return out.getvalue()


def _import(service: Service, content: str, query: str = "") -> dict[str, Any]:
    return service.call("POST", f"{API}hosts/import/?customer={CUSTOMER}&{query}", content)


def _scanned(service: Service, farm: Farm, names: list[str]) -> dict[str, str]:
    """The key of each, as it is when the list that was given has it."""
    known = public(farm.directory / "host_ed25519")
    found = {}
    for start in range(0, len(names), AT_ONCE):
        part = names[start : start + AT_ONCE]
        body = {"hosts": part, "keys": {name: [known] for name in part}}
        answer = service.call("POST", f"{API}hosts/scan-host-keys/", body)
        found.update({each["host"]: each["host_key"] for each in answer["results"] if each["verdict"] == "matches"})
    assert len(found) == len(names), f"{len(found)} of {len(names)} showed their key"
    return found


def _job(service: Service, operation: str) -> None:
    service.job(operation, {"customers": [CUSTOMER]}, {}, HOSTS)


def _find(service: Service, names: list[str]) -> None:
    """All are there, with what was discovered; a few by label and by search."""
    found = _all(service, f"hosts/?customer={CUSTOMER}&status=ok&limit=200")
    assert [each["name"] for each in found] == names
    assert len(_all(service, f"instances/?customer={CUSTOMER}&limit=200")) == HOSTS
    assert len(_all(service, f"hosts/?customer={CUSTOMER}&label=rack%3Dr7")) == HOSTS // 10
    assert len(_all(service, f"hosts/?customer={CUSTOMER}&search=new299")) == 1
    assert len(_all(service, "runs/?operation=host.check&state=succeeded&limit=200")) == HOSTS


def _all(service: Service, path: str) -> list[dict[str, Any]]:
    """What a list has, page by page."""
    found: list[dict[str, Any]] = []
    following: str | None = API + path
    while following:
        page = service.call("GET", following[following.index(API) :])
        found += page["results"]
        following = page["next"]
    return found


if __name__ == "__main__":
    alone(run)
