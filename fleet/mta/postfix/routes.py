"""How a Postfix instance routes an address: trivial-rewrite(8)'s rules over the tables, asked by postmap(1).

`sendmail -bv` would answer too, but as a report that it mails. ADDRESS_REWRITING_README, transport(5), virtual(5).
"""

import re
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import NamedTuple

from fleet.mta.address import above, domain_of
from fleet.mta.bounds import port_of
from fleet.mta.errors import RemoteError
from fleet.mta.host.commands import error_of, lines_of, reading
from fleet.mta.postfix.commands import ROUTE
from fleet.mta.records import InstanceFacts
from fleet.mta.routes.probe import Route, Routing
from fleet.mta.routes.resolve import Destination
from fleet.mta.steps import Command, Steps, run

FACTS = "postfix_route_facts.sh"
ROUNDS = 10  # of alias expansion; Postfix itself stops at virtual_alias_recursion_limit
MOST_RECIPIENTS = 50
# Tables of patterns are asked for the whole address only (regexp_table(5), pcre_table(5), tcp_table(5)).
PATTERNS = frozenset({"regexp", "pcre", "tcp", "cidr"})
PORTS = {"smtp": 25, "submission": 587, "submissions": 465, "smtps": 465}
CANONICAL = ("recipient_canonical_maps", "canonical_maps")
BY_SENDER = ("sender_dependent_relayhost_maps", "sender_dependent_default_transport_maps")
TABLES = (*CANONICAL, "virtual_alias_maps", "transport_maps", *BY_SENDER)
DOMAINS = ("mydestination", "virtual_alias_domains", "virtual_mailbox_domains", "relay_domains")
SETTINGS = (
    *TABLES,
    *DOMAINS,
    "local_transport",
    "virtual_transport",
    "relay_transport",
    "default_transport",
    "relayhost",
    "recipient_delimiter",
    "propagate_unmatched_extensions",
    "parent_domain_matches_subdomains",
    "myorigin",
    "smtp_helo_name",
    "smtp_host_lookup",
    "smtp_dns_support_level",
    "disable_dns_lookups",
    "empty_address_relayhost_maps_lookup_key",
    "empty_address_default_transport_maps_lookup_key",
)
WORD = re.compile(r"\{[^{}]*\}|[^,\s{}]+(?:\{[^{}]*\})?")
ASSIGNMENT = re.compile(r"([a-z0-9_]+) =(?: (.*))?")
NEXTHOP = re.compile(r"(\[[^\]]*\]|[^:\[\]]+)(?::([\w-]+))?")


class Hit(NamedTuple):
    """What a table says of a key. `step`: the parameter, table and key, for people."""

    value: str
    step: str
    key: str


@dataclass
class Tables:
    """What main.cf and its tables say. `values`: value by (table, key); `words`: the content of files of domains."""

    settings: dict[str, str]
    programs: dict[str, str]
    values: dict[tuple[str, str], str] = field(default_factory=dict)
    words: dict[str, list[str]] = field(default_factory=dict)
    looked_up: set[str] = field(default_factory=set)

    def maps(self, name: str) -> list[str]:
        return WORD.findall(self.settings.get(name, ""))

    def value(self, name: str, keys: Iterable[str], whole: str) -> Hit | None:
        """The first key that a table has, every table asked for a key in turn."""
        for key in keys:
            for table in self.maps(name):
                if table.partition(":")[0] in PATTERNS and key != whole:
                    continue
                value = self.values.get((table, key))
                if value is not None:
                    return Hit(value, f"{name} {table}: {key}", key)
        return None


def find_routes(instance: InstanceFacts, recipient: str, sender: str) -> Steps[Routing]:
    """Expand aliases, then resolve each recipient as trivial-rewrite does.

    Raises RemoteError where a table cannot be read.
    """
    tables = yield from _read_settings(instance)
    pending: list[tuple[str, tuple[str, ...]]] = [(recipient, ())]
    routes: list[Route] = []
    seen: set[str] = set()
    notes: list[str] = []
    while pending and len(seen) < MOST_RECIPIENTS:
        yield from _look_up(instance, tables, [address for address, _ in pending], sender)
        following: list[tuple[str, tuple[str, ...]]] = []
        for address, via in pending:
            expanded, steps = _rewritten(tables, address, via)
            if expanded == [address] or len(steps) > ROUNDS:
                routes.append(_route(tables, address, sender, steps))
            following += [(each, steps) for each in expanded if each != address and each not in seen]
            if address in expanded and expanded != [address]:
                routes.append(_route(tables, address, sender, steps))
            seen |= set(expanded)
        pending = following
    if not routes:
        routes.append(Route(recipient, "deferred", "", detail="the aliases run in a circle, cleanup(8) gives them up"))
    if pending:
        notes.append(f"{len(pending)} more recipients of the aliases were not followed")
    if not sender and any(tables.maps(name) for name in BY_SENDER):
        notes.append("the sender matters here too: smtp.probe takes it into account")
    settings = tables.settings
    with_hosts = "native" in settings.get("smtp_host_lookup", "") or _is_without_dns(settings)
    return Routing(tuple(routes), settings.get("smtp_helo_name", "localhost"), tuple(notes), with_hosts)


def _read_settings(instance: InstanceFacts) -> Steps[Tables]:
    done = yield from run(Command((*_script_words(instance), *SETTINGS), script=FACTS))
    lines = lines_of(done, FACTS)
    assignments = (ASSIGNMENT.fullmatch(line.removeprefix("setting ")) for line in lines if line.startswith("setting "))
    settings = {match[1]: match[2] or "" for match in assignments if match}
    rows = (line.split()[1:] for line in lines if line.startswith("service "))
    if "default_transport" not in settings:
        raise error_of(done, "postconf")
    return Tables(settings, {row[0]: row[7] for row in rows if len(row) > 7 and row[1] != "inet"})


def _script_words(instance: InstanceFacts) -> tuple[str, str]:
    return (instance.options["command_directory"], instance.config_dir)


def _look_up(instance: InstanceFacts, tables: Tables, addresses: list[str], sender: str) -> Steps[None]:
    """Every key of these addresses in every table, by one command."""
    names = [word.lstrip("!") for name in (*TABLES, *DOMAINS, "myorigin") for word in tables.maps(name)]
    maps = list(dict.fromkeys(name for name in names if ":" in name or name.startswith("/")))
    keys = list(dict.fromkeys(key for address in addresses for key in _every_key(tables, address)))
    keys += [key for key in _sender_keys(tables, sender) if key not in keys]
    keys = [key for key in keys if key not in tables.looked_up]
    if not maps or not keys:
        return
    tables.looked_up |= set(keys)
    stdin = "".join([*(f"map {name}\n" for name in maps), *(f"key {key}\n" for key in keys)])
    done = yield from run(reading(ROUTE, _script_words(instance), stdin.encode()))
    lines = lines_of(done, ROUTE)
    _take(tables, lines)
    missing = [name for name in maps if f"map {name}" not in lines]
    if missing:
        raise RemoteError(f"these tables of main.cf could not be asked: {', '.join(missing)}")


def _take(tables: Tables, lines: list[str]) -> None:
    table, output = "", ""
    for line in lines:
        word, _, rest = line.partition(" ")
        if word == "map":
            table = rest
        elif word == "found":
            key, tab, value = rest.partition("\t")
            output = value if tab else rest
            if tab:
                tables.values[table, key] = value.strip()
        elif word == "word":
            tables.words.setdefault(table, []).append(rest.lower())
        elif word == "status" and rest != "0":
            raise RemoteError(f"the table {table} could not be asked: {output[:500]}")


def _split(tables: Tables, address: str) -> tuple[str, str, str]:
    """(local part, local part without extension, domain), in lower case as the tables are asked."""
    local, _, domain = address.lower().rpartition("@")
    delimiters = tables.settings.get("recipient_delimiter", "")
    at = min((local.find(char, 1) for char in delimiters if local.find(char, 1) > 0), default=-1)
    is_system = local.startswith(("owner-",)) or local.endswith("-request") or local == "mailer-daemon"
    return local, local if at < 0 or is_system else local[:at], domain


def _address_keys(tables: Tables, address: str) -> list[str]:
    """user+extension@domain, user@domain, then the bare names for our own domains, then @domain (virtual(5))."""
    local, base, domain = _split(tables, address)
    keys = [f"{local}@{domain}", f"{base}@{domain}"]
    if domain == _origin(tables) or _is_in(tables, "mydestination", domain):
        keys += [local, base]
    return list(dict.fromkeys([*keys, f"@{domain}"]))


def _transport_keys(tables: Tables, address: str) -> list[str]:
    """transport(5): the address, its domain, the domains above it, and *."""
    local, base, domain = _split(tables, address)
    dot = "" if "transport_maps" in tables.maps("parent_domain_matches_subdomains") else "."
    return list(dict.fromkeys([f"{local}@{domain}", f"{base}@{domain}", domain, *above(domain, dot), "*"]))


def _every_key(tables: Tables, address: str) -> list[str]:
    local, base, domain = _split(tables, address)
    names = [local, base, f"@{domain}", *above(domain, ""), *above(domain, ".")]
    return list(dict.fromkeys([*_transport_keys(tables, address), *names]))


def _sender_keys(tables: Tables, sender: str) -> list[str]:
    if not sender:
        return []
    if sender == "<>":
        name = "empty_address_{}_maps_lookup_key"
        return [tables.settings.get(name.format(kind), "<>") for kind in ("relayhost", "default_transport")]
    local, base, domain = _split(tables, sender)
    return list(dict.fromkeys([f"{local}@{domain}", f"{base}@{domain}", f"@{domain}"]))


def _origin(tables: Tables) -> str:
    origin = tables.settings.get("myorigin", "")
    return tables.words.get(origin, [origin])[0].lower()


def _is_in(tables: Tables, name: str, domain: str) -> bool:
    """Whether a list of domains has it; the first element that fits decides, `!` turns it round (postconf(5))."""
    with_parents = name in tables.maps("parent_domain_matches_subdomains")
    parents = [*above(domain, "" if with_parents else ".")] if name == "relay_domains" else []
    for word in tables.maps(name):
        pattern = word.lstrip("!").lower()
        if pattern.startswith("/"):
            fits = not {domain, *parents}.isdisjoint(tables.words.get(word.lstrip("!"), []))
        elif ":" in pattern:
            table = word.lstrip("!")
            keys = [domain] if table.partition(":")[0] in PATTERNS else [domain, *parents]
            fits = any((table, key) in tables.values for key in keys)
        else:
            fits = pattern in (domain, *parents)
        if fits:
            return word.count("!", 0, len(word) - len(pattern)) % 2 == 0
    return False


def _rewritten(tables: Tables, address: str, via: tuple[str, ...]) -> tuple[list[str], tuple[str, ...]]:
    """What canonical and virtual alias tables make of an address: itself when they have nothing else."""
    if not via:
        for name in CANONICAL:
            hit = tables.value(name, _address_keys(tables, address), address.lower())
            if hit and _qualified(tables, address, hit, "canonical") not in ([address], []):
                return _qualified(tables, address, hit, "canonical"), (hit.step,)
    hit = tables.value("virtual_alias_maps", _address_keys(tables, address), address.lower())
    if hit is None:
        return [address], via
    expanded = _qualified(tables, address, hit, "virtual")
    return expanded or [address], via if expanded == [address] else (*via, hit.step)


def _qualified(tables: Tables, address: str, hit: Hit, kind: str) -> list[str]:
    """The addresses of a table's value, with the extension that its key left out (propagate_unmatched_extensions)."""
    local = address.rpartition("@")[0]
    _, base, domain = _split(tables, address)
    is_unmatched = hit.key in (base, f"{base}@{domain}") and kind in tables.maps("propagate_unmatched_extensions")
    extension = local[len(base) :] if is_unmatched else ""
    full = []
    for word in (word for word in re.split(r"[,\s]+", hit.value) if word):
        name, at, place = word.rpartition("@") if "@" in word else (word, "@", _origin(tables))
        full.append(f"{name or local}{extension}{at}{place}")
    return full


def _route(tables: Tables, address: str, sender: str, via: tuple[str, ...]) -> Route:
    """trivial-rewrite(8): the class by the domain, then transport_maps over everything."""
    domain = domain_of(address)
    kind, channel, nexthop, steps = _by_class(tables, domain, sender)
    hit = tables.value("transport_maps", _transport_keys(tables, address), address.lower())
    if hit:
        transport, _, host = hit.value.partition(":")
        steps = [*steps, hit.step]
        channel, nexthop = transport or channel, host or (domain if transport else nexthop)
    steps = [*via, *steps]
    agent = tables.programs.get(channel, "")
    if agent == "error":
        kind = "deferred" if channel == "retry" else "undeliverable"
        return Route(address, kind, channel, nexthop, tuple(steps), detail=nexthop)
    if agent != "smtp":
        detail = f"{channel} is delivered by {agent or 'a service that master.cf does not have'}, not by SMTP"
        return Route(address, kind, channel, nexthop, tuple(steps), detail=detail)
    by_mx = not _is_without_dns(tables.settings)
    hops = tuple(destination(hop, by_mx=by_mx) for hop in re.split(r"[,\s]+", nexthop) if hop)
    return Route(address, kind, channel, nexthop, tuple(steps), hops)


def _by_class(tables: Tables, domain: str, sender: str) -> tuple[str, str, str, list[str]]:
    settings = tables.settings
    if _is_in(tables, "mydestination", domain):
        return _fixed("local", settings["local_transport"], domain, "mydestination")
    if _is_in(tables, "virtual_alias_domains", domain):
        unknown = "5.1.1 User unknown in virtual alias table"
        return _fixed("virtual", f"error:{unknown}", domain, "virtual_alias_domains")
    if _is_in(tables, "virtual_mailbox_domains", domain):
        return _fixed("virtual", settings["virtual_transport"], domain, "virtual_mailbox_domains")
    by_sender = _sender_keys(tables, sender)
    kind, chosen, step = "remote", settings["default_transport"], "default_transport"
    if _is_in(tables, "relay_domains", domain):
        kind, chosen, step = "relay", settings["relay_transport"], "relay_domains"
    elif own := tables.value("sender_dependent_default_transport_maps", by_sender, sender.lower()):
        chosen, step = own.value, own.step
    steps, nexthop = [step], domain
    if own := tables.value("sender_dependent_relayhost_maps", by_sender, sender.lower()):
        nexthop = domain if own.value == "DUNNO" else own.value
        steps.append(own.step)
    elif settings.get("relayhost"):
        nexthop = settings["relayhost"]
        steps.append(f"relayhost {nexthop}")
    channel, _, host = chosen.partition(":")
    return kind, channel, host or nexthop, steps


def _fixed(kind: str, transport: str, domain: str, step: str) -> tuple[str, str, str, list[str]]:
    channel, _, host = transport.partition(":")
    return kind, channel, host or domain, [step]


def _is_without_dns(settings: dict[str, str]) -> bool:
    return settings.get("disable_dns_lookups") == "yes" or settings.get("smtp_dns_support_level") == "disabled"


def destination(nexthop: str, *, by_mx: bool = True) -> Destination:
    """`host`, `[host]` (no MX), either with `:port` (transport(5))."""
    match = NEXTHOP.fullmatch(nexthop)
    host, port = (match[1], match[2] or "25") if match else (nexthop, "25")
    number = port_of(port) if port.isdigit() else PORTS.get(port, 25)
    is_literal = host.startswith("[")
    inner = host.strip("[]") if is_literal and not re.fullmatch(r"[0-9a-fA-F.:]+|IPv6:.*", host.strip("[]")) else host
    return Destination(inner, number, by_mx and not is_literal)
