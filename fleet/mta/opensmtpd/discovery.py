"""Where OpenSMTPD is on a host, and what later operations need to know of it."""

from fleet.mta.errors import UnparsedOutput
from fleet.mta.host.commands import discovered_lines
from fleet.mta.opensmtpd import conf
from fleet.mta.records import HostFacts, InstanceFacts
from fleet.mta.steps import Command, Completed, Steps, run

MTA = "opensmtpd"
SPOOL = "/var/spool/smtpd"
"""Compiled in: smtpd.conf(5) has no setting for it."""


def discover(host: HostFacts, name: str) -> Steps[tuple[InstanceFacts, ...]]:
    """The one instance that a host can have: smtpd(8) has one spool and one control socket."""
    done = yield from run(Command((), script="opensmtpd_discover.sh"))
    return parse_instance(done, host, name)


def parse_instance(done: Completed, host: HostFacts, name: str) -> tuple[InstanceFacts, ...]:
    """The answer of opensmtpd_discover.sh. Raises UnparsedOutput and others."""
    lines = discovered_lines(done, "smtpd")
    if lines is None:
        return ()
    pairs = [(word, value) for word, _, value in (line.partition(" ") for line in lines)]
    fields = dict(reversed(pairs))
    if not fields.get("version") or not fields.get("config"):
        raise UnparsedOutput("the description of OpenSMTPD has no version or no configuration file")
    config = conf.statements([value for word, value in pairs if word == "conf"])
    addresses: dict[str, list[str]] = {}
    for word, value in pairs:
        if word == "address":
            interface, _, address = value.partition(" ")
            addresses.setdefault(interface, []).append(address)
    listed = conf.values(config)
    for word, value in pairs:
        if word == "entry":
            table, _, entry = value.partition(" ")
            listed.setdefault(table, []).append(entry)
    queue = [each.words[1] for each in config if each.words[0] == "queue" and len(each.words) > 1]
    listeners = conf.listeners(config, addresses)
    options = {
        "program": fields["smtpctl"],
        "smtpd": fields["smtpd"],
        "config_file": fields["config"],
        "tables": conf.tables(config),
        "listen": [place[:2] for place in listeners],
        "listeners": listeners,
        "own_domains": conf.own_domains(config, [value for word, value in pairs if word == "mailname"], listed),
        "open_domains": conf.open_domains(config, listed),
        "is_encrypted": "encryption" in queue,
        "log_source": host.log_source or "none",
    }
    directory = fields["config"].rpartition("/")[0] or "/"
    return (InstanceFacts(name, MTA, MTA, fields["version"], directory, (SPOOL,), ("smtpd",), options),)
