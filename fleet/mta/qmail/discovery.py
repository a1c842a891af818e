"""Which qmail a host has, and what later operations need to know of it: conf-split, services, domains."""

import re
import shlex
from contextlib import suppress
from dataclasses import dataclass, field
from getopt import GetoptError, getopt
from typing import Any

from fleet.mta.bounds import count_of, port_of
from fleet.mta.errors import SudoDenied, UnparsedOutput
from fleet.mta.host.commands import discovered_lines
from fleet.mta.records import HostFacts, InstanceFacts
from fleet.mta.steps import Command, Completed, Steps, run

DISCOVER = "qmail_discover.sh"
FRONT_ENDS = ("smtpfront-qmail", "qmail-smtpd")
# What starts qmail-send: qmail-start(8) itself, or the script "rc" that INSTALL has people make.
STARTERS = re.compile(r"(?:^|[\s/'\"])qmail-(?:start|send)(?:$|[\s'\";])")
SERVERS = {
    "tcpserver": "dDvqQhHrR1UXx:t:u:g:l:b:B:c:pPoO",
    "sslserver": "1346UXpPhHrRoOdDqQvVeEsSnNiImjJc:x:t:T:b:B:g:u:l:w:y:z:a:f:C:k:",
}
"""The options of tcpserver(1) and sslserver(1)."""
PORTS = {"smtp": 25, "smtps": 465, "submissions": 465, "submission": 587}


@dataclass
class Service:
    """A service of daemontools (supervise(8)): its directory, and the lines of its and its log's run files."""

    directory: str
    run: list[str] = field(default_factory=list)
    log: list[str] = field(default_factory=list)


@dataclass
class Home:
    """A qmail home directory. `split`: conf-split, 0 when the queue could not be seen. `version`: "1.03", or whose
    descendant it is, "" where its programs could not be read."""

    path: str
    version: str = ""
    split: int = 0
    has_split_todo: bool = False
    control: dict[str, list[str]] = field(default_factory=dict)


@dataclass
class Answer:
    homes: list[Home] = field(default_factory=list)
    services: list[Service] = field(default_factory=list)
    programs: dict[str, str] = field(default_factory=dict)
    is_partial: bool = False


def discover(host: HostFacts, name: str) -> Steps[tuple[InstanceFacts, ...]]:
    """The qmail of /var/qmail or of QMAILHOME. Raises UnparsedOutput and others.

    The queue is for qmail's own users, so a second look is taken as root where sudo allows it; without it conf-split
    stays unknown (0) and the scripts that act find it by themselves.
    """
    answer = parse_answer((yield from run(Command((), script=DISCOVER))))
    if answer.is_partial and not host.is_root and host.has_sudo:
        done = yield from run(Command((), script=DISCOVER, become=True, may_be_denied=True))
        with suppress(SudoDenied):
            answer = parse_answer(done)
    return tuple(_instance(name, home, answer, host) for home in answer.homes)


def parse_answer(done: Completed) -> Answer:
    """The answer of qmail_discover.sh. Raises UnparsedOutput and others."""
    answer = Answer()
    for line in discovered_lines(done, DISCOVER) or ():
        word, _, value = line.partition(" ")
        _take(answer, word, value)
    return answer


def _take(answer: Answer, word: str, value: str) -> None:
    if word == "home":
        answer.homes.append(Home(value))
    elif word == "queue":
        numbers = value.split()
        if len(numbers) == 2 and all(number.isdigit() for number in numbers):
            answer.homes[-1].split, answer.homes[-1].has_split_todo = count_of(numbers[0]), numbers[1] != "0"
        else:
            answer.is_partial = True
    elif word == "flavour":
        answer.homes[-1].version = "1.03" if value == "qmail" else value
    elif word == "control":
        name, _, text = value.partition(" ")
        answer.homes[-1].control.setdefault(name, []).append(text.strip())
    elif word == "program":
        name, _, path = value.partition(" ")
        answer.programs[name] = path
    elif word == "service":
        answer.services.append(Service(value))
    elif word == "unreadable":
        answer.is_partial = True
    elif word == "run":
        answer.services[-1].run.append(value)
    elif word == "log":
        answer.services[-1].log.append(value)
    else:
        raise UnparsedOutput(f"qmail's description has an unknown word {word!r}")


def _instance(host: str, home: Home, answer: Answer, facts: HostFacts) -> InstanceFacts:
    sender = next((each for each in answer.services if starts_qmail(each, home.path)), None)
    fronts = [(name, each) for each in answer.services for name in FRONT_ENDS if _mentions(each, name)]
    places = listeners(answer.services, [each for _, each in fronts])
    return InstanceFacts(
        host=host,
        name="qmail",
        mta="qmail",
        version=home.version,
        config_dir=f"{home.path}/control",
        queue_dirs=(f"{home.path}/queue",),
        front_ends=tuple(dict.fromkeys(name for name, _ in fronts)),
        options={
            "home": home.path,
            "split": home.split,
            "big_todo": home.has_split_todo,
            "service": sender.directory if sender else "",
            "svc": answer.programs.get("svc", ""),
            "svstat": answer.programs.get("svstat", ""),
            "own_domains": own_domains(home.control),
            "local_domains": local_domains(home.control),
            "virtual_domains": virtual_domains(home.control),
            "log_source": (log_directory(sender) if sender else "") or facts.log_source or "none",
            "listen": [place[:2] for place in places if not place[3]],
            "listeners": places,
            "front_end_services": [[name, each.directory] for name, each in fronts],
            "front_end_logs": sorted({log for _, each in fronts if (log := log_directory(each))}),
        },
    )


def starts_qmail(service: Service, home: str) -> bool:
    """Whether the service runs qmail-send: by qmail-start(8), or by the home's script `rc`."""
    return any(STARTERS.search(line) or f"{home}/rc" in line.split() for line in service.run)


def _mentions(service: Service, program: str) -> bool:
    return any(word.rpartition("/")[2] == program for line in service.run for word in words_of(line))


def words_of(line: str) -> list[str]:
    """A shell line's words; what cannot be split by shell rules is split at blanks."""
    try:
        return shlex.split(line)
    except ValueError:
        return line.split()


def log_directory(service: Service) -> str:
    """The directory that multilog(8) writes to, "" when the log's run file names none."""
    for line in service.log:
        words = [word.rstrip("/") for word in words_of(line)]
        names = [word.rpartition("/")[2] for word in words]
        if "multilog" not in names:
            continue
        for word in words[names.index("multilog") + 1 :]:
            if word.startswith("/"):
                return word
            if word.startswith("."):
                return f"{service.directory}/log/{word.removeprefix('./')}"
    return ""


def listeners(services: list[Service], fronts: list[Service]) -> list[list[Any]]:
    """[address, port, directory, "tls" where it begins with that] of each tcpserver(1) or sslserver(1).

    `fronts`: the services of qmail's own servers; of others only those count to which strangers bring mail, on port 25.
    """
    found: list[list[Any]] = []
    for service in services:
        for line in service.run:
            place = _listener(line, service)
            if place and place not in found and (service in fronts or place[1] == PORTS["smtp"]):
                found.append(place)
    return found


def _listener(line: str, service: Service) -> list[Any]:
    """Of the command line of a server; nothing of any other."""
    words = words_of(line)
    names = [word.rpartition("/")[2] for word in words]
    server = next((each for each in SERVERS if each in names), "")
    if not server:
        return []
    try:
        rest = getopt(words[names.index(server) + 1 :], SERVERS[server])[1]
    except GetoptError:
        return []
    if len(rest) < 2 or not (rest[1].isdigit() or rest[1] in PORTS):
        return []
    address = "0.0.0.0" if rest[0] == "0" else rest[0]  # noqa: S104 - what the host says of itself
    return [address, PORTS.get(rest[1]) or port_of(rest[1]), service.directory, "tls" if server == "sslserver" else ""]


def own_domains(control: dict[str, list[str]]) -> list[str]:
    """The domains whose mail this host takes (qmail-control(5)): me, locals, rcpthosts, virtualdomains.

    Entries for sub-domains (".domain") and for single addresses are no domains and are left out.
    """
    names = [*control.get("me", [])[:1], *control.get("locals", []), *control.get("rcpthosts", [])]
    names += [line.partition(":")[0] for line in control.get("virtualdomains", [])]
    return sorted({name.lower() for name in names if name and "@" not in name and not name.startswith(".")})


def local_domains(control: dict[str, list[str]]) -> list[str]:
    """The domains that virtualdomains is not asked about: locals, or me where there is no such file."""
    return sorted({name.lower() for name in control.get("locals", control.get("me", [])[:1]) if name})


def virtual_domains(control: dict[str, list[str]]) -> list[list[str]]:
    """[key, what is prepended] of each line of virtualdomains; nothing is prepended for exceptions."""
    lines = (line.partition(":") for line in control.get("virtualdomains", []))
    return [[key, prepend] for key, colon, prepend in lines if colon]
