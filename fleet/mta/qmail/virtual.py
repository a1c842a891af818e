"""Addresses of virtual domains: qmail-send writes user@domain as prepend-user@domain (qmail-send(8), virtualdomains).

rewrite() of qmail-send.c: not for domains in control/locals; the first of the keys that stands in the file counts,
and an empty prepend is an exception.
"""

from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass, field

from fleet.mta.address import above, domain_of
from fleet.mta.records import InstanceFacts


@dataclass(frozen=True, slots=True)
class Virtual:
    """What the host's files say, keys in lower case. `own`: the domains of control/locals."""

    own: frozenset[str] = frozenset()
    prepends: dict[str, str] = field(default_factory=dict)
    of_users: dict[str, set[str]] = field(default_factory=dict)

    @classmethod
    def of(cls, instance: InstanceFacts) -> "Virtual":
        """As discovery found it."""
        prepends = {key.lower(): prepend for key, prepend in instance.options.get("virtual_domains", ())}
        of_users = defaultdict(set)
        for key, prepend in prepends.items():
            if "@" in key:
                of_users[domain_of(key)].add(prepend)
        return cls(frozenset(instance.options.get("local_domains", ())), prepends, dict(of_users))

    def known(self, stored: str) -> str:
        """The address that people know of one in local/ or in a line about it; itself where it is none of these, or
        could have been made from two addresses."""
        local, at, domain = stored.rpartition("@")
        folded = domain.lower()
        if not self.prepends or not at or folded in self.own:
            return stored
        keys = (folded, *above(folded), "")
        prepends = {self.prepends[key] for key in keys if key in self.prepends} | self.of_users.get(folded, set())
        found = set()
        for prepend in filter(None, prepends):
            address = f"{local.removeprefix(f'{prepend}-')}@{domain}"
            if local.startswith(f"{prepend}-") and self._prepend_of(address) == prepend:
                found.add(address)
        return found.pop() if len(found) == 1 else stored

    def _prepend_of(self, address: str) -> str:
        return next((self.prepends[key] for key in virtual_keys(address) if key in self.prepends), "")


NONE = Virtual()


def virtual_keys(address: str) -> Iterator[str]:
    """The address, its domain, what follows each dot (with the dot), and the empty key for all."""
    domain = domain_of(address)
    yield address.lower()
    yield domain
    yield from above(domain)
    yield ""
