"""How qmail routes an address: qmail-send(8)'s and qmail-remote(8)'s own rules over the files of control/.

rewrite() of qmail-send.c: percenthack, locals, virtualdomains; main() of qmail-remote.c: smtproutes, then MX.
"""

from dataclasses import dataclass, field

from fleet.mta.address import above, domain_of
from fleet.mta.bounds import port_of
from fleet.mta.errors import RemoteError, UnparsedOutput
from fleet.mta.host.commands import lines_of
from fleet.mta.qmail.virtual import virtual_keys
from fleet.mta.records import InstanceFacts
from fleet.mta.routes.probe import Route, Routing
from fleet.mta.routes.resolve import Destination
from fleet.mta.steps import Command, Completed, Steps, run

CONTROL = "qmail_control.sh"
MOST_PERCENTS = 20


@dataclass
class Control:
    """The lines of each control file that is there, without comments and trailing blanks."""

    files: dict[str, list[str]] = field(default_factory=dict)

    def first(self, name: str) -> str:
        return next(iter(self.files.get(name, [])), "")

    def keys(self, name: str) -> set[str]:
        return {line.lower() for line in self.files.get(name, [])}

    def values(self, name: str) -> dict[str, str]:
        """`key:value` lines; of several with one key the last counts, as constmap finds it first."""
        pairs = (line.partition(":") for line in self.files.get(name, []))
        return {key.lower(): value for key, colon, value in pairs if colon}


def find_routes(instance: InstanceFacts, recipient: str, sender: str) -> Steps[Routing]:
    """locals, virtualdomains and smtproutes as qmail-send and qmail-remote read them.

    Raises RemoteError where a control file cannot be read, UnparsedOutput without control/me.
    """
    control = parse_control((yield from run(Command((instance.config_dir,), script=CONTROL, max_output=8 << 20))))
    notes = []
    if "virtualdomains" in control.files or "locals" in control.files:
        notes.append("qmail-send reads locals and virtualdomains when it starts or gets HUP; these are the files now")
    return Routing((route(control, recipient),), control.first("helohost") or control.first("me"), tuple(notes))


def parse_control(done: Completed) -> Control:
    """What qmail_control.sh printed."""
    control = Control()
    name = ""
    for line in lines_of(done, CONTROL):
        word, _, text = line.partition(" ")
        if word == "file":
            name = text
            control.files[name] = []
        elif word == "line" and name:
            text = text.rstrip(" \t")
            if text and not text.startswith("#"):
                control.files[name].append(text)
        elif word == "unreadable":
            raise RemoteError(f"this account may not read control/{text}", hint="qmail needs them readable for all")
    if not control.first("me"):
        raise UnparsedOutput("control/me is missing or empty; qmail itself stops without it")
    return control


def route(control: Control, recipient: str) -> Route:
    """Where qmail sends the recipient."""
    address, via = _without_percents(control, recipient)
    domain = domain_of(address)
    own = control.keys("locals") if "locals" in control.files else {control.first("me").lower()}
    if domain in own:
        step = "locals" if "locals" in control.files else "me"
        return Route(address, "local", "local", "", (*via, f"{step}: {domain}"), detail="delivered by qmail-local")
    virtual = control.values("virtualdomains")
    for key in virtual_keys(address):
        prepended = virtual.get(key)
        if prepended is None:
            continue
        via = (*via, f"virtualdomains: {key}:{prepended}")
        if not prepended:
            break
        detail = f"delivered by qmail-local as {prepended}-{address}"
        return Route(address, "virtual", "local", prepended, via, detail=detail)
    return _remote(control, address, domain, via)


def _remote(control: Control, address: str, domain: str, via: tuple[str, ...]) -> Route:
    routes = control.values("smtproutes")
    for key in (domain, *above(domain), ""):
        if key not in routes:
            continue
        relay, _, port = routes[key].partition(":")
        via = (*via, f"smtproutes: {key}:{routes[key]}")
        if not relay:
            break
        hop = Destination(relay, port_of(port) if port.isdigit() else 25, by_mx=False)
        return Route(address, "remote", "remote", routes[key], via, (hop,))
    return Route(address, "remote", "remote", domain, via, (Destination(domain),))


def _without_percents(control: Control, address: str) -> tuple[str, tuple[str, ...]]:
    """user%domain@gateway is user@domain for the gateways of percenthack."""
    via: tuple[str, ...] = ()
    gateways = control.keys("percenthack")
    for _ in range(MOST_PERCENTS):
        local, _, domain = address.rpartition("@")
        if domain.lower() not in gateways or "%" not in local:
            break
        via = (*via, f"percenthack: {domain}")
        user, _, inner = local.rpartition("%")
        address = f"{user}@{inner}"
    return address, via
