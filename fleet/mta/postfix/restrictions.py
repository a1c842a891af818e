"""Where an instance checks senders.

An access map can only refuse what nothing before it has let through, so it must stand first in
smtpd_sender_restrictions; postconf(5), access(5), SMTPD_ACCESS_README.
"""

from dataclasses import dataclass
from itertools import pairwise

from fleet.mta.blocks.site import NoList
from fleet.mta.postfix.services import words

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


def checked_maps(restrictions: str) -> tuple[AccessMap, ...]:
    """Every check_sender_access map of a restriction list, in order."""
    elements = words(restrictions)
    return tuple(
        _access_map(second) for first, second in pairwise(elements) if first == "check_sender_access" and ":" in second
    )


def wired_map(restrictions: str) -> AccessMap | None:
    """The map that decides first: nothing before it can let a sender pass. None when there is none we can edit."""
    elements = words(restrictions)
    for index, word in enumerate(elements):
        if word == "check_sender_access" and index + 1 < len(elements) and ":" in elements[index + 1]:
            access_map = _access_map(elements[index + 1])
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


def _access_map(word: str) -> AccessMap:
    kind, _, path = word.partition(":")
    return AccessMap(kind, path)
