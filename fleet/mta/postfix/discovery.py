"""Which Postfix instances a host has, and what later operations need to know of them."""

import re
from typing import Any

from fleet.mta.host.commands import discovered_lines
from fleet.mta.postfix.logs import syslog_name
from fleet.mta.postfix.parse import error_of
from fleet.mta.postfix.restrictions import RESTRICTIONS
from fleet.mta.records import HostFacts, InstanceFacts
from fleet.mta.steps import Command, Completed, Steps, run

PARAMETERS = (
    "mail_version",
    "command_directory",
    "queue_directory",
    "data_directory",
    "multi_instance_name",
    "multi_instance_enable",
    "enable_long_queue_ids",
    "hash_queue_names",
    "syslog_name",
    "maillog_file",
    "authorized_mailq_users",
    "authorized_flush_users",
    "mail_owner",
    "inet_interfaces",
    "myhostname",
    "fast_flush_domains",
    "relay_domains",
    "mynetworks",
    "mydestination",
    "recipient_delimiter",
    "smtpd_delay_reject",
    "parent_domain_matches_subdomains",
    "default_database_type",
    RESTRICTIONS,
    "virtual_alias_domains",
    "virtual_mailbox_domains",
)
OWN = ("mydestination", "virtual_alias_domains", "virtual_mailbox_domains")
ANYBODY = "static:anyone"
ASSIGNMENT = re.compile(r"([a-z0-9_]+) =(?: (.*))?")


def discover(host: HostFacts, name: str) -> Steps[tuple[InstanceFacts, ...]]:
    """Every instance: the default one and those of multi_instance_directories (MULTI_INSTANCE_README)."""
    done = yield from run(Command(PARAMETERS, script="postfix_discover.sh"))
    return parse_instances(done, host, name)


def parse_instances(done: Completed, host: HostFacts, name: str) -> tuple[InstanceFacts, ...]:
    """The answer of postfix_discover.sh. Raises MtaNotFound, UnparsedOutput and others."""
    lines = discovered_lines(done, "postconf", error_of)
    if lines is None:
        return ()
    by_directory: dict[str, dict[str, str]] = {}
    settings: dict[str, str] = {}
    for line in lines:
        if line.startswith("instance "):
            settings = by_directory[line.removeprefix("instance ")] = {}
        elif line == "hold flat":
            settings["hold"] = "flat"
        elif line.partition(" = ")[0].endswith(f"/{RESTRICTIONS}"):
            settings[line.partition(" = ")[0]] = line.partition(" = ")[2]
        elif assignment := ASSIGNMENT.fullmatch(line):
            settings[assignment[1]] = assignment[2] or ""
    instances = tuple(
        _instance(host, name, directory, settings)
        for directory, settings in by_directory.items()
        if {"mail_version", "queue_directory", "command_directory"} <= settings.keys()
    )
    names = {syslog_name(each) for each in instances}
    for each in instances:
        each.options["other_syslog_names"] = sorted(names - {syslog_name(each)})
    return instances


def _instance(host: HostFacts, name: str, directory: str, settings: dict[str, str]) -> InstanceFacts:
    return InstanceFacts(
        host=name,
        name=directory.rstrip("/").rpartition("/")[2],
        mta="postfix",
        version=settings["mail_version"],
        config_dir=directory,
        queue_dirs=(settings["queue_directory"],),
        front_ends=("smtpd",),
        options=_options(host, settings),
    )


def _options(host: HostFacts, settings: dict[str, str]) -> dict[str, Any]:
    hashed = re.split(r"[,\s]+", settings.get("hash_queue_names", ""))
    return {
        **{key: settings[key] for key in PARAMETERS if key in settings},
        "list_as_root": settings.get("authorized_mailq_users", ANYBODY) != ANYBODY,
        "flush_as_root": settings.get("authorized_flush_users", ANYBODY) != ANYBODY,
        "has_long_ids": settings.get("enable_long_queue_ids") == "yes",
        "can_quarantine": settings.get("hold") == "flat" and "hold" not in hashed,
        "service_restrictions": [settings[key] for key in settings if key.endswith(f"/{RESTRICTIONS}")],
        "own_domains": own_domains(settings),
        "log_source": settings.get("maillog_file") or host.log_source,
    }


def own_domains(settings: dict[str, str]) -> list[str]:
    """The domains whose mail ends here, as far as main.cf names them itself; tables and parameters are left out."""
    words = re.split(r"[,\s]+", " ".join(settings.get(parameter, "") for parameter in OWN))
    return sorted({word.lower() for word in words if "." in word and not set(word) & set("/:$[]")})
