"""Which Sendmail instances a host has: one for each configuration file with a queue of its own."""

import re
from dataclasses import replace
from typing import Any

from fleet.mta.bounds import port_of
from fleet.mta.errors import Refused
from fleet.mta.host.commands import discovered_lines
from fleet.mta.records import HostFacts, InstanceFacts
from fleet.mta.sendmail.parse import error_of, script_lines
from fleet.mta.steps import Command, Completed, Steps, run

CONFIG_DIRECTORY = "/etc/mail"
NO_CLIENT = "none"
IPV6 = re.compile("^IPv6:", re.IGNORECASE)
PATTERN = re.compile(r"/[A-Za-z0-9_./-]+\*?", re.ASCII)
PORTS = {"smtp": 25, "submission": 587, "msa": 587, "smtps": 465, "submissions": 465}


def discover(host: HostFacts, name: str) -> Steps[tuple[InstanceFacts, ...]]:
    """Every configuration file of /etc/mail, or of a running daemon's -C, that has a QueueDirectory (op.me).

    submit.cf (UseMSP) is no instance: its queue is the client queue of the default one. Files with the same
    QueueDirectory are one instance.
    """
    done = yield from run(Command((CONFIG_DIRECTORY,), script="sendmail_discover.sh", timeout=60))
    instances = parse_instances(done, host, name)
    expanded: tuple[InstanceFacts, ...] = ()
    for instance in instances:
        expanded += ((yield from _with_directories(instance)),)
    return expanded


def parse_instances(done: Completed, host: HostFacts, name: str) -> tuple[InstanceFacts, ...]:
    """The answer of sendmail_discover.sh. Raises UnparsedOutput and others."""
    lines = discovered_lines(done, "sendmail_discover.sh", error_of)
    if lines is None:
        return ()
    common: dict[str, str] = {}
    configs: dict[str, list[tuple[str, str]]] = {}
    pairs: list[tuple[str, str]] = []
    for line in lines:
        word, _, value = line.partition(" ")
        if word == "config":
            pairs = configs[value] = []
        elif word in {"line", "own", "relay"}:
            pairs.append((word, value))
        else:
            common[word] = value
    client = next((_patterns(pairs) for pairs in configs.values() if _is_client(pairs)), ())
    instances: dict[tuple[str, ...], InstanceFacts] = {}
    for path, pairs in configs.items():
        patterns = _patterns(pairs)
        if not _is_client(pairs) and patterns and patterns not in instances:
            is_default = not instances
            queue = client[0] if is_default and client and "*" not in client[0] else ""
            instances[patterns] = _instance(host, name, path, pairs, common, queue)
    return tuple(instances.values())


def _instance(
    host: HostFacts, name: str, path: str, pairs: list[tuple[str, str]], common: dict[str, str], client: str
) -> InstanceFacts:
    patterns = _patterns(pairs)
    maps, listeners = _maps(pairs), _listeners(pairs)
    directory, _, file = path.rpartition("/")
    options: dict[str, Any] = {
        "program": common.get("program", "/usr/sbin/sendmail"),
        "config_file": path,
        "client_queue": client,
        "queue_patterns": list(patterns),
        "has_flock": common.get("flock") == "yes",
        "access_map": maps.get("access", ""),
        "mailertable": maps.get("mailertable", ""),
        "maps": maps,
        "listen": [place[:2] for place in listeners],
        "listeners": listeners,
        "own_domains": sorted({value.lower() for word, value in pairs if word == "own"}),
        "relay_domains": sorted({value.lower() for word, value in pairs if word == "relay"}),
        "log_source": host.log_source,
    }
    return InstanceFacts(
        host=name,
        name=file.removesuffix(".cf"),
        mta="sendmail",
        version=common.get("version", ""),
        config_dir=directory,
        queue_dirs=patterns,
        options=options,
    )


def _with_directories(instance: InstanceFacts) -> Steps[InstanceFacts]:
    """The queue directories instead of their pattern, which only root may expand. Where sudo refuses, the pattern."""
    if not any("*" in pattern for pattern in instance.queue_dirs):
        return instance
    argv = ("dirs", NO_CLIENT, *instance.options["queue_patterns"])
    done = yield from run(Command(argv, script="sendmail_read.sh", become=True, may_be_denied=True))
    try:
        directories = script_lines(done, "sendmail_read.sh")
    except Refused:
        return instance
    return replace(instance, queue_dirs=tuple(directories) or instance.queue_dirs)


def _settings(pairs: list[tuple[str, str]], option: str) -> list[str]:
    wanted = re.compile(rf"O *{option} *= *(.*)", re.IGNORECASE)
    return [match[1].strip() for word, value in pairs if word == "line" and (match := wanted.fullmatch(value))]


def _is_client(pairs: list[tuple[str, str]]) -> bool:
    return any(value.lower().startswith("t") for value in _settings(pairs, "UseMSP"))


def _patterns(pairs: list[tuple[str, str]]) -> tuple[str, ...]:
    """QueueDirectory and the paths of queue groups (Q lines), which may be relative to its base (op.me, 5.10)."""
    main = _settings(pairs, "QueueDirectory")[-1:]
    base = main[0].rpartition("/")[0] if main and main[0].endswith("*") else (main or [""])[0]
    groups = [
        match[1]
        for word, value in pairs
        if word == "line" and value.startswith("Q") and (match := re.search(r"[,\s]P(?:ath)?=([^,\s]+)", value))
    ]
    every = main + [path if path.startswith("/") else f"{base}/{path}" for path in groups]
    return tuple(dict.fromkeys(path for path in every if PATTERN.fullmatch(path) and ".." not in path))


def _maps(pairs: list[tuple[str, str]]) -> dict[str, str]:
    """Map name to "type:file" from the K lines, the file without the suffix .db."""
    maps = {}
    for word, value in pairs:
        words = value.split()
        if word == "line" and value.startswith("K") and len(words) > 2 and words[-1].startswith("/"):
            maps[words[0][1:]] = f"{words[1]}:{words[-1].removesuffix('.db')}"
    return maps


def _listeners(pairs: list[tuple[str, str]]) -> list[list[Any]]:
    """[address, port, name, "tls" where it begins with that] of each DaemonPortOptions; without any, port 25."""
    listeners: list[list[Any]] = []
    for value in _settings(pairs, "DaemonPortOptions"):
        options = {
            key.strip().lower()[:1]: text.strip() for key, _, text in (item.partition("=") for item in value.split(","))
        }
        port = options.get("p", "smtp").lower()
        anywhere = "::" if options.get("f", "").lower() == "inet6" else "0.0.0.0"  # noqa: S104 - what is configured
        number = port_of(port) if port.isdigit() else PORTS.get(port, 25)
        mode = "tls" if "s" in options.get("m", "") else ""
        address = IPV6.sub("", options.get("a", anywhere))
        listeners.append([address, number, options.get("n", ""), mode])
    return listeners or [["0.0.0.0", 25, "", ""]]  # noqa: S104 - what is configured
