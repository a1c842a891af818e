"""Where an instance checks senders.

An access map can only refuse what nothing before it has let through, so it must stand first in
smtpd_sender_restrictions; postconf(5), access(5), SMTPD_ACCESS_README.
"""

import re
from dataclasses import dataclass
from itertools import pairwise

from fleet.mta.blocks.site import NoList
from fleet.mta.bounds import port_of

# What block_file.sh can replace by rename; texthash has no map file.
EDITABLE = ("hash", "btree", "lmdb", "cdb", "texthash")
BUILT = ("hash", "lmdb", "btree", "cdb")
RESTRICTIONS = "smtpd_sender_restrictions"
OWN_NAME = "mxfleet_senders"


@dataclass(frozen=True, slots=True)
class AccessMap:
    """An access map of smtpd: `type` as in hash:FILE, `path` of its source."""

    type: str
    path: str

    @property
    def name(self) -> str:
        return f"{self.type}:{self.path}"


@dataclass(frozen=True, slots=True)
class Service:
    """An smtp server of master.cf: where it listens ("" is every inet_interfaces), and its own parameters."""

    address: str
    port: int
    overrides: dict[str, str]


def checked_maps(restrictions: str) -> tuple[AccessMap, ...]:
    """Every check_sender_access map of a restriction list, in order."""
    words = _words(restrictions)
    return tuple(
        _access_map(second) for first, second in pairwise(words) if first == "check_sender_access" and ":" in second
    )


def wired_map(restrictions: str) -> AccessMap | None:
    """The map that decides first: nothing before it can let a sender pass. None when there is none we can edit."""
    words = _words(restrictions)
    for index, word in enumerate(words):
        if word == "check_sender_access" and index + 1 < len(words) and ":" in words[index + 1]:
            access_map = _access_map(words[index + 1])
            return access_map if access_map.type in EDITABLE and access_map.path.startswith("/") else None
        if not word.startswith("reject_"):
            return None
    return None


def own_map(config_dir: str, default_type: str, types: frozenset[str]) -> AccessMap:
    """The map we would make. Raises NoList when this Postfix can build no indexed map."""
    usable = [kind for kind in (default_type, *BUILT) if kind in types and kind in BUILT]
    if not usable:
        raise NoList(f"this Postfix has no indexed map type (of {', '.join(BUILT)}) to keep a block list in")
    return AccessMap(usable[0], f"{config_dir}/{OWN_NAME}")


def element(access_map: AccessMap) -> str:
    return f"check_sender_access {access_map.name}"


def smtp_service(master: str, overrides: str) -> Service:
    """The service that takes mail from other hosts, from `postconf -M` and `postconf -P`. Raises NoList."""
    services = []
    for line in master.splitlines():
        fields = line.split()
        if len(fields) >= 8 and fields[1] == "inet" and fields[7] in ("smtpd", "postscreen"):
            address, _, port = fields[0].rpartition(":")
            number = {"smtp": 25, "submission": 587, "smtps": 465, "submissions": 465}.get(port, 0)
            smtpd = f"{fields[0]}/inet" if fields[7] == "smtpd" else "smtpd/pass"
            services.append((number or port_of(port or "0"), address.strip("[]"), smtpd))
    if not services:
        raise NoList("master.cf has no smtpd service that listens on the network")
    port_number, address, smtpd = min(services, key=lambda each: each[0] != 25)
    prefix = f"{smtpd}/"
    pairs = [line.removeprefix(prefix).split("=", 1) for line in overrides.splitlines() if line.startswith(prefix)]
    return Service(address, port_number, {pair[0].strip(): pair[1].strip() for pair in pairs if len(pair) == 2})


def listening_address(service: Service, inet_interfaces: str, host_addresses: str) -> str:
    """Where that service can be reached; loopback, whose clients are often exempt, only where that is all."""
    if service.address:
        return service.address
    words = [word.strip("[]") for word in re.split(r"[,\s]+", inet_interfaces) if word]
    if "all" in words:
        words = host_addresses.split()
    outer = [
        word for word in words if not word.startswith("127.") and word not in ("::1", "localhost", "loopback-only")
    ]
    plain = [word for word in outer if not word.startswith("fe80:")]
    return (plain or ["127.0.0.1"])[0]


def _words(restrictions: str) -> list[str]:
    return [word for word in re.split(r"[,\s]+", restrictions) if word]


def _access_map(word: str) -> AccessMap:
    kind, _, path = word.partition(":")
    return AccessMap(kind, path)
