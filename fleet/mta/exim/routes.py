"""How an Exim routes an address: what `exim -bt` says, its routers' hosts with their MX preferences included."""

import re
from dataclasses import dataclass, field, replace

from fleet.mta.address import domain_of
from fleet.mta.bounds import count_of, port_of
from fleet.mta.errors import UnparsedOutput
from fleet.mta.host.commands import READ_SECONDS, Allowed, error_of, lines_of, reading, script_argv
from fleet.mta.records import InstanceFacts
from fleet.mta.routes.probe import Route, Routing
from fleet.mta.routes.resolve import Exchanger
from fleet.mta.steps import Completed, Steps, run

ROUTE = "exim_route.sh"
LATER = "cannot be resolved at this time"
FAILED = re.compile(rf"(.+?) (is undeliverable|{LATER})(?::\s*(.*))?")
DISCARDED = re.compile(r"(?:mail to )?(.+?) is (?:to be )?discarded")
ROUTED = re.compile(r"  (?:router = ([^,\s]+), )?transport = (\S+)")
HOST = re.compile(r"  host (\S+)\s+\[([^\]]*)\]\s*(?: ?MX=(\d+))?(?: ?port=(\d+))?( \*\* unusable \*\*)?\s*")


@dataclass
class Tested:
    """One address in the answer of -bt."""

    address: str
    via: list[str] = field(default_factory=list)
    transport: str = ""
    failure: str = ""
    is_discarded: bool = False
    hosts: list[Exchanger] = field(default_factory=list)


def sudo_commands(instance: InstanceFacts) -> list[Allowed]:
    """The address goes through stdin: `-bt` by itself would need a wildcard."""
    return [(READ_SECONDS, script_argv(ROUTE, instance.options["program"]))]


def find_routes(instance: InstanceFacts, recipient: str, sender: str) -> Steps[Routing]:
    """What `exim -f SENDER -bt` says. Raises UnparsedOutput for an answer that names no address."""
    words = (instance.options["program"],)
    stdin = f"{recipient}\n{sender}\n".encode()
    done = yield from run(reading(ROUTE, words, stdin))
    tested, hostname = parse_test(done)
    domains = instance.options.get("relay_domains", [])
    return Routing(tuple(_route(each, domains) for each in tested), hostname)


def parse_test(done: Completed) -> tuple[list[Tested], str]:
    """The addresses that -bt tells of, and the host's name."""
    lines = lines_of(done, ROUTE)
    if lines[:1] != ["test"]:
        raise error_of(done, ROUTE)
    hostname = next((line.removeprefix("hostname ") for line in lines if line.startswith("hostname ")), "localhost")
    ended = next((at for at, line in enumerate(lines) if line.startswith("tested ")), 0)
    tested: list[Tested] = []
    for line in lines[1:ended]:
        _take(tested, re.sub(r"^(> )+|^>$", "", line))
    if not tested or any(not (each.transport or each.failure or each.is_discarded) for each in tested):
        raise UnparsedOutput("exim -bt does not say where the address goes", output="\n".join(lines[1:ended])[:2000])
    return tested, hostname


def _take(tested: list[Tested], line: str) -> None:
    if host := HOST.fullmatch(line):
        _add_host(tested[-1], host)
    elif routed := ROUTED.fullmatch(line):
        tested[-1].transport = routed[2]
        if routed[1]:
            tested[-1].via.append(f"router {routed[1]}")
    elif line.startswith("    <-- "):
        tested[-1].via.append(f"from {line.removeprefix('    <-- ')}")
    elif failed := FAILED.fullmatch(line):
        tested.append(Tested(failed[1], failure=": ".join(filter(None, failed.group(2, 3)))))
    elif discarded := DISCARDED.fullmatch(line):
        tested.append(Tested(discarded[1], is_discarded=True))
    elif line.startswith("  ") and tested and tested[-1].failure:
        tested[-1].failure += f" {line.strip()}"
    elif line.strip() and not line.startswith((" ", "LOG:", "R: ")):
        address, _, place = line.partition(" -> ")
        tested.append(Tested(address, [f"to {place}"] if place else []))


def _add_host(each: Tested, host: re.Match[str]) -> None:
    preference = count_of(host[3]) if host[3] else None
    addresses = () if host[2] == "unknown" or host[5] else (host[2],)
    known = Exchanger(host[1], preference, addresses, port_of(host[4] or "25"))
    last = each.hosts[-1] if each.hosts else None
    if last and replace(last, addresses=()) == replace(known, addresses=()):
        each.hosts[-1] = replace(last, addresses=(*last.addresses, *addresses))
    else:
        each.hosts.append(known)


def _route(each: Tested, relay_domains: list[str]) -> Route:
    via = tuple(each.via)
    if each.failure:
        kind = "deferred" if each.failure.startswith(LATER) else "undeliverable"
        return Route(each.address, kind, "", via=via, detail=each.failure)
    if each.is_discarded:
        return Route(each.address, "local", "", via=via, detail="discarded")
    domain = domain_of(each.address)
    if not each.hosts:
        detail = f"{each.transport} names no hosts before it delivers"
        return Route(each.address, "local", each.transport, via=via, detail=detail)
    kind = "relay" if domain in relay_domains else "remote"
    return Route(each.address, kind, each.transport, domain, via, hosts=tuple(each.hosts))
