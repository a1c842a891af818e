"""How a Sendmail routes an address: what `sendmail -bv` says, its mailers and MX look-ups by address test mode."""

import re
from dataclasses import dataclass, field

from fleet.mta.bounds import port_of
from fleet.mta.errors import UnparsedOutput
from fleet.mta.host.commands import READ_SECONDS, Allowed, lines_of, reading, script_argv
from fleet.mta.records import InstanceFacts
from fleet.mta.routes.probe import Route, Routing
from fleet.mta.routes.resolve import Destination
from fleet.mta.steps import Completed, Steps, run

ROUTE = "sendmail_route.sh"
DELIVERABLE = re.compile(r"(.*)\.\.\. deliverable: mailer ([^,]+)(?:, host ([^,]*))?, user (.*)")
REFUSED = re.compile(r"(.*)\.\.\. (.+)")
# sysexits' EX_TEMPFAIL and EX_NOHOST in Sendmail's words (sysexits.c)
LATER = re.compile(r"lookup failure|deferred|temporar|transient|timeout|try again", re.IGNORECASE)
MAILER = re.compile(r"mailer \d+ \(([^)]+)\): P=(\S+) .*? A=(.*)")
EXCHANGERS = re.compile(r"getmxrr\(([^,)]*)[^)]*\) returns \d+ value\(s\):")


@dataclass
class Answer:
    """`mailers`: path and arguments by name; `exchangers`: MX hosts by domain, as Sendmail itself sorts them."""

    verified: list[str] = field(default_factory=list)
    mailers: dict[str, tuple[str, str]] = field(default_factory=dict)
    exchangers: dict[str, list[str]] = field(default_factory=dict)
    name: str = ""


def sudo_commands(instance: InstanceFacts) -> list[Allowed]:
    """The address goes through stdin; access and alias maps are not for everybody's eyes."""
    return [(READ_SECONDS, script_argv(ROUTE, *_words(instance)))]


def _words(instance: InstanceFacts) -> tuple[str, str]:
    return (instance.options["program"], instance.options["config_file"])


def find_routes(instance: InstanceFacts, recipient: str, sender: str) -> Steps[Routing]:
    """Aliases, mailertable and rulesets as delivery applies them, but for the sender, which -bv does not know.

    Raises UnparsedOutput.
    """
    stdin = f"{recipient}\n".encode()
    done = yield from run(reading(ROUTE, _words(instance), stdin))
    answer = parse_answer(done)
    routes = tuple(_route(instance, answer, line) for line in answer.verified)
    notes = ("sendmail -bv knows no sender: rules that depend on it are not applied",) if sender else ()
    return Routing(routes, answer.name or "localhost", notes, with_hosts=True)


def parse_answer(done: Completed) -> Answer:
    """What sendmail_route.sh printed. Raises UnparsedOutput when -bv named no address."""
    lines = lines_of(done, ROUTE)
    answer = Answer()
    domain = ""
    for line in lines:
        word, _, text = line.partition(" ")
        if word == "verify" and REFUSED.fullmatch(text):
            answer.verified.append(text)
        elif word == "test":
            domain = _take_test(answer, re.sub(r"^(> )+", "", text), domain)
    if not answer.verified or not answer.mailers:
        raise UnparsedOutput("sendmail -bv does not say where the address goes", output="\n".join(lines)[:2000])
    return answer


def _take_test(answer: Answer, text: str, domain: str) -> str:
    """The domain whose MX hosts follow."""
    if mailer := MAILER.fullmatch(text):
        answer.mailers[mailer[1]] = (mailer[2], mailer[3])
    elif listed := EXCHANGERS.fullmatch(text):
        domain = listed[1].rstrip(".").lower()
        answer.exchangers[domain] = []
        return domain
    elif text.startswith("\t") and domain:
        answer.exchangers[domain].append(text.strip())
        return domain
    elif answer.mailers and not answer.name and re.fullmatch(r"[\w.-]+", text):
        answer.name = text
    return ""


def _route(instance: InstanceFacts, answer: Answer, line: str) -> Route:
    match = DELIVERABLE.fullmatch(line)
    if match is None:
        refused = REFUSED.fullmatch(line)
        address, text = (refused[1], refused[2]) if refused else (line, line)
        return Route(address, "deferred" if LATER.search(text) else "undeliverable", "", detail=text)
    mailer, host, user = match[2], match[3] or "", match[4]
    path, arguments = answer.mailers.get(mailer, ("", ""))
    via = () if user.lower() == match[1].lower() else (f"{match[1]} -> {user}",)
    if path not in ("[IPC]", "[TCP]") or not arguments.startswith("TCP "):
        detail = f"mailer {mailer} delivers by {path or 'an unknown program'}, not by SMTP"
        return Route(user, "local", mailer, host, via, detail=detail)
    domain = user.rpartition("@")[2].rstrip(".").lower()
    kind = "relay" if domain in instance.options.get("relay_domains", []) else "remote"
    last = arguments.split()[-1]
    port = port_of(last) if last.isdigit() else 25
    hops = tuple(_destination(answer, each, port) for each in re.split(r":(?![^\[]*\])", host) if each)
    return Route(user, kind, mailer, host, via, hops)


def _destination(answer: Answer, host: str, port: int) -> Destination:
    """A name in brackets is taken without MX; a literal stays one."""
    if host.startswith("["):
        is_literal = re.fullmatch(r"\[(IPv6:)?[0-9A-Fa-f.:]+\]", host)
        return Destination(host if is_literal else host.strip("[]"), port, by_mx=False)
    name = host.rstrip(".")
    return Destination(name, port, fallback=tuple(answer.exchangers.get(name.lower(), ())))
