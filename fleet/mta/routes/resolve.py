"""Where mail for a name goes by DNS, asked of the host's own nameserver through the SSH connection.

RFC 5321 5.1 (MX, implicit MX, loops), RFC 7505 (null MX), RFC 1035. A name that does not exist and a nameserver that
does not know are told apart: the first is final, the second is not.
"""

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from enum import StrEnum
from ipaddress import ip_address

import dns.exception
import dns.message
import dns.name
import dns.rcode
import dns.rdatatype

from fleet.mta.host.commands import lines_of
from fleet.mta.steps import Command, DnsQuery, Steps, ask, run

MOST_EXCHANGERS = 10
DEFAULT_SERVER = "127.0.0.1"  # resolv.conf(5): without a nameserver line the local machine is asked
LITERAL = re.compile(r"\[(?:IPv6:)?([0-9A-Fa-f.:]+)\]")


class Resolution(StrEnum):
    """How the hosts of a route were found, or why there are none."""

    MX = "mx"
    IMPLICIT_MX = "implicit_mx"
    ADDRESS = "address"
    NULL_MX = "null_mx"
    NXDOMAIN = "nxdomain"
    NO_ADDRESS = "no_address"
    LOOP = "loop"
    FAILED = "failed"
    NONE = "none"


@dataclass(frozen=True, slots=True)
class Destination:
    """A next hop. `by_mx`: by its MX records, otherwise by its addresses. `fallback`: hosts as its MTA finds them."""

    host: str
    port: int = 25
    by_mx: bool = True
    fallback: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Exchanger:
    """A host that takes mail. `preference` None: it does not come from an MX record."""

    name: str
    preference: int | None
    addresses: tuple[str, ...] = ()
    port: int = 25


@dataclass(frozen=True, slots=True)
class Resolved:
    """The hosts in the order in which an MTA tries them; equal preferences by name, where MTAs draw lots."""

    resolution: Resolution
    hosts: tuple[Exchanger, ...] = ()
    detail: str = ""


@dataclass(frozen=True, slots=True)
class Resolver:
    """The host's nameservers, and the names of its /etc/hosts where this MTA looks there before DNS."""

    servers: tuple[str, ...]
    hosts: dict[str, tuple[str, ...]] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class _Answer:
    """`name`: the canonical one. `problem`: nobody answered, or the answer settles nothing."""

    name: str
    exists: bool = True
    records: tuple[tuple[int, str], ...] = ()
    problem: str = ""


def read_resolver(*, with_hosts: bool) -> Steps[Resolver]:
    """The host's resolv.conf and hosts files. Raises RemoteError, UnparsedOutput."""
    done = yield from run(Command((), script="host_resolver.sh"))
    servers: list[str] = []
    hosts: dict[str, tuple[str, ...]] = {}
    for words in (line.split() for line in lines_of(done, "host_resolver.sh")):
        if words[0] == "nameserver" and len(words) == 2:
            servers.append(words[1])
        elif words[0] == "host" and with_hosts and _is_address(words[1]):
            for name in words[2:]:
                hosts[name.lower()] = (*hosts.get(name.lower(), ()), words[1])
    return Resolver(tuple(servers) or (DEFAULT_SERVER,), hosts)


def find(resolver: Resolver, destination: Destination, own_names: Iterable[str] = ()) -> Steps[Resolved]:
    """The hosts that an MTA tries for this next hop. `own_names`: where it finds itself it goes no further."""
    literal = LITERAL.fullmatch(destination.host)
    address = literal[1] if literal else destination.host
    if _is_address(address):
        return Resolved(Resolution.ADDRESS, (Exchanger(destination.host, None, (address,), destination.port),))
    name = destination.host.strip("[]").rstrip(".").lower()
    if destination.by_mx:
        resolved = yield from _by_mx(resolver, name)
        if resolved.resolution is Resolution.FAILED and destination.fallback:
            hosts = tuple(Exchanger(host.rstrip("."), None) for host in destination.fallback)
            resolved = Resolved(Resolution.MX, hosts, f"as the MTA itself looks them up; {resolved.detail}")
    else:
        resolved = Resolved(Resolution.ADDRESS, (Exchanger(name, None),))
    resolved = _short_of_ourselves(resolved, {own.rstrip(".").lower() for own in own_names})
    if not resolved.hosts:
        return resolved
    resolved = yield from _with_addresses(resolver, resolved)
    return replace(resolved, hosts=tuple(replace(host, port=destination.port) for host in resolved.hosts))


def _by_mx(resolver: Resolver, domain: str) -> Steps[Resolved]:
    [answer] = yield from _query(resolver, [(domain, "MX")])
    if answer.problem:
        return Resolved(Resolution.FAILED, detail=f"MX of {domain}: {answer.problem}")
    if not answer.exists:
        return Resolved(Resolution.NXDOMAIN, detail=f"{domain} does not exist")
    if not answer.records:
        return Resolved(Resolution.IMPLICIT_MX, (Exchanger(answer.name, 0),))
    if [name for _, name in answer.records] == [""]:
        return Resolved(Resolution.NULL_MX, detail=f"{domain} accepts no mail (RFC 7505)")
    hosts = tuple(Exchanger(name, preference) for preference, name in answer.records if name)
    more = len(hosts) - MOST_EXCHANGERS
    return Resolved(Resolution.MX, hosts[:MOST_EXCHANGERS], f"{more} more hosts are not shown" if more > 0 else "")


def _short_of_ourselves(resolved: Resolved, own_names: set[str]) -> Resolved:
    """Only what is preferred to ourselves (RFC 5321 5.1)."""
    ours = [host for host in resolved.hosts if host.name in own_names]
    if not ours or resolved.resolution is not Resolution.MX or ours[0].preference is None:
        return resolved
    limit = ours[0].preference
    hosts = tuple(host for host in resolved.hosts if host.preference is not None and host.preference < limit)
    detail = f"this host is listed itself, as {ours[0].name} with preference {limit}"
    return Resolved(resolved.resolution if hosts else Resolution.LOOP, hosts, detail)


def _with_addresses(resolver: Resolver, resolved: Resolved) -> Steps[Resolved]:
    names = list(dict.fromkeys(host.name for host in resolved.hosts if host.name not in resolver.hosts))
    answers = yield from _query(resolver, [(name, kind) for name in names for kind in ("A", "AAAA")])
    known = dict(resolver.hosts)
    problems: list[str] = []
    for name, four, six in zip(names, answers[::2], answers[1::2], strict=True):
        known[name] = tuple(address for _, address in (*four.records, *six.records))
        if not known[name] and (four.problem or six.problem):
            problems.append(f"{name}: {four.problem or six.problem}")
    if problems:
        by_getent = yield from _by_getent(name for name in names if not known[name])
        known |= by_getent
    hosts = tuple(replace(host, addresses=known[host.name]) for host in resolved.hosts)
    detail = "; ".join(filter(None, (resolved.detail, *problems)))
    if any(host.addresses for host in hosts):
        return replace(resolved, hosts=hosts, detail=detail)
    if problems:
        return Resolved(Resolution.FAILED, hosts, detail)
    return Resolved(Resolution.NO_ADDRESS, hosts, detail or "none of these hosts has an address")


def _by_getent(names: Iterable[str]) -> Steps[dict[str, tuple[str, ...]]]:
    """The addresses by the host's own getent(1), where its nameserver cannot be asked by us."""
    done = yield from run(Command((), script="host_addresses.sh", stdin="".join(f"{n}\n" for n in names).encode()))
    known: dict[str, tuple[str, ...]] = {}
    for name, _, address in (line.partition(" ") for line in lines_of(done, "host_addresses.sh")):
        if _is_address(address):
            known[name] = (*known.get(name, ()), address)
    return known


def _query(resolver: Resolver, questions: Sequence[tuple[str, str]]) -> Steps[list[_Answer]]:
    """One answer for each (name, type). The next nameserver is asked for what the one before did not settle."""
    answers = [_Answer(name, problem="no such name can be asked for") for name, _ in questions]
    packets = {at: packet for at, (name, kind) in enumerate(questions) if (packet := _packet(at, name, kind))}
    for server in resolver.servers:
        if not packets:
            break
        reply = yield from ask(DnsQuery(server, tuple(packets.values())))
        answered = list(zip(packets, reply.packets, strict=False))
        for at, packet in answered:
            answers[at] = _read(at, *questions[at], packet)
        for at in list(packets)[len(answered) :]:
            answers[at] = _Answer(questions[at][0], problem=reply.error)
        packets = {at: packet for at, packet in packets.items() if answers[at].problem}
    return answers


def _packet(number: int, name: str, kind: str) -> bytes | None:
    try:
        return dns.message.make_query(f"{name}.", kind, id=number, use_edns=False).to_wire()
    except (dns.exception.DNSException, UnicodeError):
        return None


def _read(number: int, name: str, kind: str, packet: bytes) -> _Answer:
    try:
        message = dns.message.from_wire(packet)
        is_ours = message.id == number and message.question == dns.message.make_query(f"{name}.", kind).question
        if not is_ours or not isinstance(message, dns.message.QueryMessage):
            return _Answer(name, problem="an answer to another question")
        if message.rcode() not in (dns.rcode.NOERROR, dns.rcode.NXDOMAIN):
            return _Answer(name, problem=dns.rcode.to_text(message.rcode()))
        chain = message.resolve_chaining()
    except dns.exception.DNSException as error:
        return _Answer(name, problem=f"an answer that cannot be read: {type(error).__name__}")
    canonical = _text(chain.canonical_name)
    if message.rcode() == dns.rcode.NXDOMAIN:
        return _Answer(canonical, exists=False)
    records = []
    for record in chain.answer or ():
        if kind == "MX":
            records.append((record.preference, _text(record.exchange)))
        else:
            records.append((0, record.address))
    return _Answer(canonical, records=tuple(sorted(records)))


def _text(name: dns.name.Name) -> str:
    return name.to_text(omit_final_dot=True).lower() if name != dns.name.root else ""


def _is_address(text: str) -> bool:
    try:
        ip_address(text)
    except ValueError:
        return False
    return True
