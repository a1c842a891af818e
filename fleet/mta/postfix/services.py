"""The SMTP servers of master.cf(5): where each listens, what answers there, and its own parameters."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from fleet.mta.blocks.listeners import ANY_ADDRESS, is_loopback, reachable
from fleet.mta.blocks.site import NoList
from fleet.mta.bounds import port_of

PORTS = {"smtp": 25, "mail": 25, "submission": 587, "msa": 587, "smtps": 465, "submissions": 465, "ssmtp": 465}
SMTP = 25
SUBMISSION = (587, 465)
SERVERS = ("smtpd", "postscreen")


@dataclass(frozen=True, slots=True)
class Service:
    """A server of master.cf that listens on the network. `name`: as postconf -P has it, such as `smtp/inet`.

    `address`: "" is every one of inet_interfaces. `port`: 0 for a name that we do not know. `smtpd`: the service that
    judges senders, another one behind postscreen(8), "" where it is not Postfix's. `overrides`: its own parameters.
    """

    name: str
    address: str
    port: int
    smtpd: str
    overrides: dict[str, str]

    @property
    def shown(self) -> str:
        return self.name if self.smtpd in (self.name, "") else f"{self.name}, behind it {self.smtpd}"


def services_of(master: str, overrides: str, settings: Mapping[str, str]) -> tuple[Service, ...]:
    """From `postconf -M` and `postconf -P`; those that master_service_disable has switched off are left out.

    `settings`: of main.cf. Raises NoList where nothing takes mail.
    """
    disabled = words(settings.get("master_service_disable", ""))
    rows = [fields for line in master.splitlines() if len(fields := line.split()) >= 8 and fields[1] == "inet"]
    services = tuple(
        _service(fields[0], fields[7], overrides, settings)
        for fields in rows
        if not _is_disabled(fields[0], disabled) and (fields[7] in SERVERS or _place(fields[0])[1] == SMTP)
    )
    if not any(each.smtpd for each in services):
        raise NoList("master.cf has no smtpd service that listens on the network")
    return services


def _service(listener: str, program: str, overrides: str, settings: Mapping[str, str]) -> Service:
    name = f"{listener}/inet"
    smtpd = {"smtpd": name, "postscreen": ""}.get(program, "")
    if program == "postscreen":
        default = settings.get("smtpd_service_name") or "smtpd"
        smtpd = f"{_parameters(name, overrides).get('smtpd_service_name', default)}/pass"
    return Service(name, *_place(listener), smtpd, _parameters(smtpd, overrides) if smtpd else {})


def _place(listener: str) -> tuple[str, int]:
    """Address and port of `smtp`, `25`, `192.0.2.1:smtp`, `[::1]:25`, `mx.example.com:25`."""
    address, _, port = listener.rpartition(":")
    return address.strip("[]"), PORTS.get(port) or port_of(port if port.isdigit() else "0")


def _parameters(name: str, overrides: str) -> dict[str, str]:
    prefix = f"{name}/"
    lines = (line.removeprefix(prefix) for line in overrides.splitlines() if line.startswith(prefix))
    return {key.strip(): value.strip() for key, found, value in (line.partition("=") for line in lines) if found}


def _is_disabled(listener: str, disabled: Sequence[str]) -> bool:
    """By type or by name and type; the first pattern that fits decides, postconf(5)."""
    fits = ("inet", f"{listener}/inet", f"{listener}.inet")
    return next((not each.startswith("!") for each in disabled if each.lstrip("!") in fits), False)


def words(text: str) -> tuple[str, ...]:
    return tuple(word for word in re.split(r"[,\s]+", text) if word)


def of_strangers(services: Sequence[Service], addresses: Mapping[str, str]) -> tuple[Service, ...]:
    """Those by which mail of other hosts comes in: on port 25, on loopback only where that is all.

    `addresses`: where each is reached, by name. Where none outside is on port 25, it may be led to another port, but to
    those of submission; else the first one that Postfix itself answers.
    """
    outer = [each for each in services if not is_loopback(addresses[each.name])]
    return tuple(
        [each for each in outer if each.port == SMTP]
        or [each for each in outer if each.smtpd and each.port not in SUBMISSION]
        or [each for each in services if each.port == SMTP]
        or [each for each in services if each.smtpd][:1]
    )


def address_of(service: Service, settings: Mapping[str, str], host_addresses: str) -> str:
    """Where the service is reached; loopback, whose clients are often exempt, only where that is all.

    An address in master.cf counts by itself, whatever inet_interfaces says.
    """
    if service.address not in ANY_ADDRESS:
        return service.address
    protocols = words(settings.get("inet_protocols", "all"))
    host = [each for each in host_addresses.split() if _speaks(each, protocols)]
    interfaces = [word.strip("[]") for word in words(settings.get("inet_interfaces", "all"))]
    if service.address or "all" in interfaces:
        interfaces = host
    outer = [each for each in interfaces if not is_loopback(each)]
    return reachable(service.address, outer)


def _speaks(address: str, protocols: Sequence[str]) -> bool:
    return "all" in protocols or ("ipv6" if ":" in address else "ipv4") in protocols
