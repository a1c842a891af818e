"""The Exim of a host, and what later operations need to know of its configuration."""

import re
from collections.abc import Iterable, Sequence
from typing import Any

from fleet.mta.bounds import port_of
from fleet.mta.errors import UnparsedOutput
from fleet.mta.host.commands import discovered_lines
from fleet.mta.records import HostFacts, InstanceFacts
from fleet.mta.steps import Command, Completed, Steps, run

OPTIONS = (
    "config_file",
    "spool_directory",
    "split_spool_directory",
    "log_file_path",
    "syslog_processname",
    "timezone",
    "local_interfaces",
    "daemon_smtp_ports",
    "tls_on_connect_ports",
    "disable_ipv6",
    "exim_user",
    "message_logs",
    "timeout_frozen_after",
    "queue_list_requires_admin",
    "acl_smtp_mail",
    "acl_smtp_rcpt",
    "primary_hostname",
)
DEBIAN_DIRECTORY = "/etc/exim4"
PORTS = {"smtp": 25, "submission": 587, "submissions": 465, "smtps": 465, "ssmtp": 465, "urd": 465}
SETTING = re.compile(r"([a-z_0-9]+)(?: = (.*))?$")
ZONE = re.compile(r"[0-9A-Za-z/_+:,.<>-]+")
NAMED_LIST = re.compile(r"domainlist(?:_cache)? (\w+) = (.*)")
# Debian's ACL: senders are looked up in a file when there is one (exim4-config_files(5)).
OPTIONAL_FILE = re.compile(r"senders = \$\{if exists\{([^{}]+)\}\{([^{}]+)\}\{\}\}$")
VERBS = frozenset({"accept", "defer", "deny", "discard", "drop", "require", "warn"})


def discover(host: HostFacts, name: str) -> Steps[tuple[InstanceFacts, ...]]:
    """The one Exim of the host, by the configuration that its binary uses without -C."""
    done = yield from run(Command(OPTIONS, script="exim_discover.sh", max_output=4 << 20))
    return parse_instances(done, host, name)


def parse_instances(done: Completed, host: HostFacts, name: str) -> tuple[InstanceFacts, ...]:
    """The answer of exim_discover.sh. Raises MtaNotFound, UnparsedOutput and others."""
    lines = discovered_lines(done, "exim")
    if lines is None:
        return ()
    fields: dict[str, list[str]] = {}
    for line in lines:
        word, _, rest = line.partition(" ")
        fields.setdefault(word, []).append(rest)
    program, version = fields["program"][0], fields.get("version", [""])[0]
    settings = settings_of(fields.get("option", []))
    if not version or "spool_directory" not in settings:
        raise UnparsedOutput(
            "exim does not tell its version or its spool directory", hint=f"{program} -bV shows what is wrong"
        )
    config_file = settings.get("config_file", "")
    is_debian = config_file.startswith(("/var/lib/exim4/", f"{DEBIAN_DIRECTORY}/"))
    return (
        InstanceFacts(
            host=name,
            name="exim",
            mta="exim",
            version=version,
            config_dir=DEBIAN_DIRECTORY if is_debian else config_file.rpartition("/")[0],
            queue_dirs=(settings["spool_directory"],),
            front_ends=("exim",),
            options=_options(host, program, settings, fields),
        ),
    )


def settings_of(lines: Iterable[str]) -> dict[str, str]:
    """Settings as `exim -bP` prints them: `name = value`; a switch is `name` or `no_name`, given as "yes" and "no"."""
    settings = {}
    for line in lines:
        match = SETTING.fullmatch(line)
        if match is None:
            # -bP config_file prints the bare path
            settings["config_file"] = line
        elif match[2] is not None:
            settings[match[1]] = match[2]
        elif match[1].startswith("no_"):
            settings[match[1].removeprefix("no_")] = "no"
        elif not line.endswith("="):
            settings[match[1]] = "yes"
    return settings


def _options(host: HostFacts, program: str, settings: dict[str, str], fields: dict[str, list[str]]) -> dict[str, Any]:
    config = fields.get("config", [])
    places = listeners(settings, fields.get("daemon", []))
    return {
        "program": program,
        "config_file": settings.get("config_file", ""),
        "spool": settings["spool_directory"],
        "split_spool": settings.get("split_spool_directory") == "yes",
        "user": settings.get("exim_user", "Debian-exim"),
        "message_logs": settings.get("message_logs") != "no",
        "timeout_frozen_after": settings.get("timeout_frozen_after", "0s"),
        "hostname": settings.get("primary_hostname", ""),
        "own_domains": domains_of(config, "local_domains"),
        "relay_domains": domains_of(config, "relay_to_domains"),
        "log_source": log_source(settings, host.log_source),
        "listen": [place[:2] for place in places if not place[3]],
        "listeners": places,
        "log_zone": log_zone(settings),
        "blacklist_file": blacklist_file(settings, config),
    }


def domains_of(config: list[str], name: str) -> list[str]:
    """The domains of a named list, as far as the configuration names them itself; lookups are left out."""
    value = next((match[2] for line in config if (match := NAMED_LIST.fullmatch(line)) and match[1] == name), "")
    return sorted(
        {item.lower() for item in split_list(value) if re.fullmatch(r"[0-9A-Za-z-]+(\.[0-9A-Za-z-]+)+", item)}
    )


def split_list(text: str) -> list[str]:
    """An Exim list: colons, or another separator that a leading `<` names (spec, "Changing list separators")."""
    separator = ":"
    text = text.strip()
    if re.match(r"<[!-/:-@\[-`{-~]", text):
        separator, text = text[1], text[2:]
    doubled = "\0"
    items = text.replace(separator * 2, doubled).split(separator)
    return [item.strip().replace(doubled, separator) for item in items if item.strip()]


def log_source(settings: dict[str, str], syslog: str) -> str:
    """The main log: a file, the host's syslog where Exim logs there, or "none" for files that are named by date."""
    items = split_list(settings.get("log_file_path", ""))
    path = next((item for item in items if item.startswith("/")), "")
    if not path and items == ["syslog"]:
        return syslog or "none"
    path = path or f"{settings['spool_directory']}/log/%slog"
    path = path.replace("%s", "main")
    return "none" if "%" in path else path


def log_zone(settings: dict[str, str]) -> str:
    """The time zone of the log's stamps, "" for the host's: Exim has its own (spec, "timezone"), syslog the host's."""
    is_syslog = split_list(settings.get("log_file_path", "")) == ["syslog"]
    zone = settings.get("timezone", "")
    return zone if ZONE.fullmatch(zone) and not is_syslog else ""


def listeners(settings: dict[str, str], daemons: Sequence[str] = ()) -> list[list[Any]]:
    """[address, port, -oX where that decided, "tls" where it begins with that].

    `daemons`: command lines of those that run; without any, what one would do by the configuration.
    """
    found: list[list[Any]] = []
    for each in [_as_started(settings, line.split()) for line in daemons] or [settings]:
        ports, tls = _ports(each.get("daemon_smtp_ports", "smtp")), _ports(each.get("tls_on_connect_ports", ""))
        for item in split_list(each.get("local_interfaces", "<; ::0 ; 0.0.0.0")):
            address, port = _interface(item)
            for number in [port] if port else ports:
                mode = "tls" if number in tls else ""
                place = ["::" if address in {"::0", "::"} else address, number, each.get("-oX", ""), mode]
                is_ipv6 = ":" in address
                if place not in found and not (is_ipv6 and each.get("disable_ipv6") == "yes"):
                    found.append(place)
    return found


def _as_started(settings: dict[str, str], words: list[str]) -> dict[str, str]:
    """The settings with what -oX replaces: items with dots or colons local_interfaces, others daemon_smtp_ports."""
    given = next(
        (word[3:] or "".join(words[at + 1 : at + 2]) for at, word in enumerate(words) if word[:3] == "-oX"), ""
    )
    items = split_list(given)
    addresses = [item for item in items if "." in item or ":" in item]
    ports = [item for item in items if item not in addresses]
    return {
        **settings,
        **({"-oX": f"-oX {given}"} if given else {}),
        **({"daemon_smtp_ports": " : ".join(ports)} if ports else {}),
        **({"local_interfaces": "<; " + " ; ".join(addresses)} if addresses else {}),
    }


def _ports(text: str) -> list[int]:
    return [
        PORTS[item] if item in PORTS else port_of(item) for item in split_list(text) if item in PORTS or item.isdigit()
    ]


def _interface(item: str) -> tuple[str, int]:
    """`192.0.2.1`, `192.0.2.1.25`, `[2001:db8::1]:25`; without a port 0."""
    if bracketed := re.fullmatch(r"\[(.*)\](?::(\d+))?", item):
        return bracketed[1], port_of(bracketed[2] or "0")
    if dotted := re.fullmatch(r"(\d+\.\d+\.\d+\.\d+|[0-9a-fA-F:]*:[0-9a-fA-F:.]*?)\.(\d+)", item):
        return dotted[1], port_of(dotted[2])
    return item, 0


def blacklist_file(settings: dict[str, str], config: list[str]) -> str:
    """The file that a `deny` of the MAIL or RCPT ACL looks senders up in, when there is one; else an empty text."""
    acls = {settings.get("acl_smtp_mail"), settings.get("acl_smtp_rcpt")} - {None, ""}
    is_ours = False
    verb = ""
    for line in (each.strip() for each in config):
        if re.fullmatch(r"\w+:", line):
            is_ours = line[:-1] in acls
            continue
        word = line.split(" ", 1)[0]
        if word in VERBS:
            verb = word
            line = line[len(word) :].strip()
        match = OPTIONAL_FILE.fullmatch(line)
        if is_ours and verb == "deny" and match and match[1] == match[2] and _is_blacklist(match[1]):
            return match[1]
    return ""


def _is_blacklist(path: str) -> bool:
    """local_sender_callout stands in the same way before a `!verify`: it blocks only who does not answer."""
    return path.startswith("/") and path.endswith("/local_sender_blacklist")
