"""`address.test` and `smtp.probe`, the same for every MTA; each adapter only says how it routes an address.

A probe is a dialogue without DATA. It is not a delivery: no TLS is negotiated, nobody logs in, and the connection comes
from the host's default source address, whatever the MTA would use.
"""

from collections.abc import Callable
from dataclasses import dataclass

from fleet.mta.operations import AddressTest, SmtpProbe
from fleet.mta.records import Context, Ended, InstanceFacts, Result
from fleet.mta.results.reading import (
    AddressTestResult,
    Exchange,
    MailRoute,
    ProbeAttempt,
    ProbeOutcome,
    RouteHost,
    SmtpProbeResult,
)
from fleet.mta.routes.resolve import Destination, Exchanger, Resolution, Resolved, Resolver, find, read_resolver
from fleet.mta.steps import FORWARDING_PROHIBITED, Dialogue, Steps, Transcript, talk

MOST_ROUTES = 20
MOST_ATTEMPTS = 5
ATTEMPT_SECONDS = 20
STAGES = ("greeting", "EHLO", "MAIL", "RCPT")
NOT_A_DELIVERY = (
    "no TLS was negotiated and nobody logged in; a host that wants either may answer otherwise",
    "the connection came from the host's default source address, whatever the MTA would use",
)


@dataclass(frozen=True, slots=True)
class Route:
    """How one recipient leaves. `kind`: local, virtual, relay, remote; undeliverable or deferred where the MTA says no.

    `transport`: the MTA's own word. `via`: the steps that led here. `destinations`: next hops in their order, none when
    nobody is asked over the network. `hosts`: where the MTA itself has named them.
    """

    recipient: str
    kind: str
    transport: str
    nexthop: str = ""
    via: tuple[str, ...] = ()
    destinations: tuple[Destination, ...] = ()
    hosts: tuple[Exchanger, ...] = ()
    detail: str = ""


@dataclass(frozen=True, slots=True)
class Routing:
    """What an MTA says of an address. `helo`: how it greets. `with_hosts`: it reads /etc/hosts before it asks DNS."""

    routes: tuple[Route, ...]
    helo: str
    notes: tuple[str, ...] = ()
    with_hosts: bool = False


FindRoutes = Callable[[InstanceFacts, str, str], Steps[Routing]]
"""(instance, recipient, sender) to Routing. The sender "" is unknown, "<>" the null sender."""

Settled = tuple[Route, Resolved]


def address_test(
    find_routes: FindRoutes, instance: InstanceFacts, operation: AddressTest, context: Context
) -> Steps[Result]:
    """`address.test`: how the MTA routes the address; nothing is sent."""
    routing = yield from find_routes(instance, operation.address, "")
    settled = yield from _settled(routing)
    data: AddressTestResult = {
        "address": operation.address,
        "routes": [_as_json(route, resolved) for route, resolved in settled],
        "notes": [*routing.notes, *_cut(routing)],
    }
    return Result(Ended.SUCCEEDED, data=data)


def smtp_probe(
    find_routes: FindRoutes, instance: InstanceFacts, operation: SmtpProbe, context: Context
) -> Steps[Result]:
    """`smtp.probe`: ask the hosts of the first route that leaves by SMTP, in their order."""
    routing = yield from find_routes(instance, operation.recipient, operation.sender)
    settled = yield from _settled(routing)
    route, resolved = next((each for each in settled if each[1].hosts), settled[0])
    outcome = yield from _probed(routing.helo, operation.sender, route, resolved)
    notes = [*routing.notes, *_cut(routing)]
    if len(settled) > 1:
        notes.append(f"{operation.recipient} stands for {len(settled)} recipients; {route.recipient} was asked for")
    if outcome["dialogue"]:
        notes += NOT_A_DELIVERY
    data: SmtpProbeResult = {
        "from": operation.sender,
        "to": operation.recipient,
        "route": _as_json(route, resolved),
        **outcome,
        "notes": notes,
    }
    return Result(Ended.SUCCEEDED, data=data)


def _cut(routing: Routing) -> list[str]:
    more = len(routing.routes) - MOST_ROUTES
    return [f"{more} more recipients are not shown"] if more > 0 else []


def _settled(routing: Routing) -> Steps[list[Settled]]:
    resolver: Resolver | None = None
    settled: list[Settled] = []
    for route in routing.routes[:MOST_ROUTES]:
        if route.hosts:
            kind = Resolution.ADDRESS if route.hosts[0].preference is None else Resolution.MX
            settled.append((route, Resolved(kind, route.hosts)))
        elif not route.destinations:
            settled.append((route, Resolved(Resolution.NONE, detail=route.detail)))
        else:
            resolver = resolver or (yield from read_resolver(with_hosts=routing.with_hosts))
            resolved = yield from _resolve_all(resolver, route.destinations, routing.helo)
            settled.append((route, resolved))
    return settled


def _resolve_all(resolver: Resolver, destinations: tuple[Destination, ...], own_name: str) -> Steps[Resolved]:
    resolved = yield from find(resolver, destinations[0], (own_name,))
    for destination in destinations[1:]:
        more = yield from find(resolver, destination, (own_name,))
        best = resolved if resolved.hosts else more
        detail = "; ".join(filter(None, (resolved.detail, more.detail)))
        resolved = Resolved(best.resolution, (*resolved.hosts, *more.hosts), detail)
    return resolved


def _as_json(route: Route, resolved: Resolved) -> MailRoute:
    hosts: list[RouteHost] = [
        {"name": host.name, "preference": host.preference, "addresses": list(host.addresses), "port": host.port}
        for host in resolved.hosts
    ]
    return {
        "recipient": route.recipient,
        "class": route.kind,
        "transport": route.transport,
        "nexthop": route.nexthop,
        "via": list(route.via),
        "resolution": str(resolved.resolution),
        "detail": resolved.detail,
        "hosts": hosts,
    }


def _probed(helo: str, sender: str, route: Route, resolved: Resolved) -> Steps[ProbeOutcome]:
    """Of the first host that settles it."""
    attempts: list[ProbeAttempt] = []
    last: ProbeOutcome = {
        "attempts": attempts,
        "dialogue": [],
        "verdict": _without_hosts(route, resolved),
        "reason": resolved.detail,
    }
    targets = [(host, address) for host in resolved.hosts for address in host.addresses]
    for host, address in targets[:MOST_ATTEMPTS]:
        transcript = yield from _dialogue(address, host.port, helo, sender, route.recipient)
        verdict, reason = verdict_of(transcript)
        dialogue: list[Exchange] = [{"sent": sent, "reply": reply} for sent, reply in transcript.exchanges]
        is_settled = bool(verdict) and not reason.startswith(STAGES[0])
        attempts.append(
            {"host": host.name, "address": address, "port": host.port, "error": "" if is_settled else reason}
        )
        last |= {"dialogue": dialogue, "verdict": verdict or "unreachable", "reason": reason}
        if FORWARDING_PROHIBITED in transcript.error:
            last["verdict"] = "unknown"
            break
        if is_settled:
            break
    return last


def _without_hosts(route: Route, resolved: Resolved) -> str:
    if FORWARDING_PROHIBITED in resolved.detail:
        return "unknown"
    if route.kind == "deferred":
        return "deferred"
    if resolved.resolution is Resolution.NULL_MX or route.kind == "undeliverable":
        return "refused"
    return "not_remote" if resolved.resolution is Resolution.NONE else "unreachable"


def _dialogue(address: str, port: int, helo: str, sender: str, recipient: str) -> Steps[Transcript]:
    """EHLO first; a server that does not know it is greeted with HELO, as every MTA does (RFC 5321 3.2)."""
    transcript = yield from talk(Dialogue(address, port, _lines("EHLO", helo, sender, recipient), ATTEMPT_SECONDS))
    if len(transcript.exchanges) > 1 and transcript.exchanges[1][1].startswith("5"):
        transcript = yield from talk(Dialogue(address, port, _lines("HELO", helo, sender, recipient), ATTEMPT_SECONDS))
    return transcript


def _lines(greet: str, helo: str, sender: str, recipient: str) -> tuple[str, ...]:
    path = sender if sender == "<>" else f"<{sender}>"
    utf8 = "" if (sender + recipient).isascii() else " SMTPUTF8"
    return (f"{greet} {helo}", f"MAIL FROM:{path}{utf8}", f"RCPT TO:<{recipient}>", "RSET", "QUIT")


def verdict_of(transcript: Transcript) -> tuple[str, str]:
    """(verdict, reason) of a dialogue; an empty verdict when it broke off before RCPT was answered."""
    for stage, (_, reply) in zip(STAGES, transcript.exchanges, strict=False):
        if reply[:1] in ("4", "5"):
            return {"4": "deferred", "5": "refused"}[reply[0]], f"{stage}: {reply}"
        if reply[:1] != "2":
            return "", f"{stage}: {reply!r} is no answer (RFC 5321 4.2)"
    if len(transcript.exchanges) < len(STAGES):
        return "", transcript.error or "the dialogue broke off"
    return "accepted", f"RCPT: {transcript.exchanges[3][1]}"
