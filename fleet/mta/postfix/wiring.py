"""Where an instance checks senders, and the one edit of main.cf that makes it check them with our map.

An access map can only refuse what nothing before it has let through, so it must stand first in
smtpd_sender_restrictions; postconf(5), access(5), SMTPD_ACCESS_README.
"""

import re
from dataclasses import dataclass
from itertools import pairwise

from fleet.mta.blocks.site import NoList
from fleet.mta.bounds import port_of
from fleet.mta.text import short_digest

# What block_file.sh can replace by rename; texthash has no map file.
EDITABLE = ("hash", "btree", "lmdb", "cdb", "texthash")
BUILT = ("hash", "lmdb", "btree", "cdb")
RESTRICTIONS = "smtpd_sender_restrictions"
OWN_NAME = "mxfleet_senders"

_DEFINED = re.compile(rf"^{RESTRICTIONS}[ \t]*=", re.MULTILINE)
_APPENDED = "# Added by mxfleet, so that it can block senders. Undoing the job that added it takes it out.\n"
_APPENDED_OPEN = "# Added by mxfleet behind a line without end ({}), so that it can block senders.\n"
_ADDED = r"^# Added by mxfleet(?: behind a line without end(?: \((\w+)\))?)?, so that it can block senders\..*\n"
_CONTINUES = re.compile(r"(?:[ \t]*(?:#.*)?\n)*[ \t]+[^\s#]")


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
            found = _access_map(words[index + 1])
            return found if found.type in EDITABLE and found.path.startswith("/") else None
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


def wire(main_cf: str, access_map: AccessMap) -> str:
    """main.cf with our check as the first element. Nothing else changes, and `unwire` gives the same bytes back.

    A last line without an end gets one; our comment remembers by a digest what the file was then.
    """
    defined = list(_DEFINED.finditer(main_cf))
    if defined:
        at = defined[-1].end()  # the last definition of a parameter counts
        return f"{main_cf[:at]} {element(access_map)},{main_cf[at:]}"
    line = f"{RESTRICTIONS} = {element(access_map)}\n"
    if main_cf and not main_cf.endswith("\n"):
        return f"{main_cf}\n{_APPENDED_OPEN.format(short_digest(main_cf))}{line}"
    return f"{main_cf}{_APPENDED}{line}"


def unwire(main_cf: str, access_map: AccessMap) -> str | None:
    """main.cf without our check, whatever else was edited since; None when it is not there as we wrote it."""
    line = f"{RESTRICTIONS} = {element(access_map)}\n"
    added = re.search(_ADDED + re.escape(line), main_cf, re.MULTILINE)
    if added:
        before, after = main_cf[: added.start()], main_cf[added.end() :]
        as_found = before.removesuffix("\n")
        if not after and added[1] == short_digest(as_found):
            return as_found
        return None if _CONTINUES.match(after) else before + after
    inserted = re.compile(rf"(^{RESTRICTIONS}[ \t]*=) {re.escape(element(access_map))},", re.MULTILINE)
    return inserted.sub(r"\1", main_cf, count=1) if inserted.search(main_cf) else None


def smtp_service(master: str, overrides: str) -> Service:
    """The service that takes mail from other hosts, from `postconf -M` and `postconf -P`. Raises NoList."""
    found = []
    for line in master.splitlines():
        fields = line.split()
        if len(fields) >= 8 and fields[1] == "inet" and fields[7] in ("smtpd", "postscreen"):
            address, _, port = fields[0].rpartition(":")
            number = {"smtp": 25, "submission": 587, "smtps": 465, "submissions": 465}.get(port, 0)
            smtpd = f"{fields[0]}/inet" if fields[7] == "smtpd" else "smtpd/pass"
            found.append((number or port_of(port or "0"), address.strip("[]"), smtpd))
    if not found:
        raise NoList("master.cf has no smtpd service that listens on the network")
    port_number, address, smtpd = min(found, key=lambda each: each[0] != 25)
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
