"""Many hosts' keys looked at at once, each compared with what could prove it. Nothing is trusted by that."""

from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

from fleet.models import Host
from fleet.mta.errors import FleetError
from fleet.ssh.comparison import Evidence, Verdict, by_authority, by_list, by_sshfp, verdict_of
from fleet.ssh.endpoint import Endpoint
from fleet.ssh.hostkeys import HostKey
from fleet.ssh.sshfp import Nameserver, nameservers
from jobs.worker.endpoints import endpoint_for
from jobs.worker.runner import engine, let_go

AT_ONCE = 20


@dataclass(frozen=True, slots=True)
class Scanned:
    """What a host showed, or why it showed nothing. `is_trusted`: it is the key that is pinned already."""

    host: str
    verdict: Verdict
    key: HostKey | None = None
    evidence: tuple[Evidence, ...] = ()
    is_trusted: bool = False
    error: FleetError | None = None


def scan(hosts: Sequence[Host], given: Mapping[str, Sequence[str]]) -> list[Scanned]:
    """In the order of the hosts. `given`: by a host's name the fingerprints that somebody says it has."""
    jumps = [endpoint_for(host.jump_host) if host.jump_host else None for host in hosts]
    servers = nameservers()
    let_go()
    with ThreadPoolExecutor(AT_ONCE) as threads:
        lists = [given.get(host.name) for host in hosts]
        return list(threads.map(_scanned, hosts, jumps, lists, [servers] * len(hosts)))


def _scanned(host: Host, jump: Endpoint | None, given: Sequence[str] | None, servers: Sequence[Nameserver]) -> Scanned:
    """Reads nothing from the database: it runs in a thread of its own."""
    try:
        key = engine().scan_host_key(host.address, host.port, jump)
        evidence = [by_sshfp(key, host.address, servers)]
        if given is not None:
            evidence.append(by_list(key, given))
        if host.host_ca:
            certified = engine().scan_certified_key(
                host.address, host.port, jump, name=host.name, username=host.username, authority=host.host_ca
            )
            evidence.append(by_authority(key, certified))
    except FleetError as error:
        return Scanned(host.name, Verdict.UNPROVEN, error=error)
    return Scanned(host.name, verdict_of(evidence), key, tuple(evidence), host.host_key == key.host_key)
