"""From where a request came."""

from collections.abc import Iterable
from ipaddress import IPv4Network, IPv6Address, IPv6Network, ip_address

FORWARDING = frozenset({"forwarded", "via", "x-real-ip", "x-client-ip", "x-cluster-client-ip", "true-client-ip"})
FORWARDED = ("x-forwarded", "x-original-forwarded", "cf-connecting-ip")


def is_forwarding(header: str) -> bool:
    """Whether a header of that name tells that somebody stood between."""
    name = header.lower()
    return name in FORWARDING or name.startswith(FORWARDED)


def is_inside(source: str, networks: Iterable[IPv4Network | IPv6Network]) -> bool:
    """Whether the address is in one of the networks; an IPv4 address in IPv6 clothes (RFC 4291 2.5.5.2) is itself."""
    try:
        address = ip_address(source)
    except ValueError:
        return False
    if isinstance(address, IPv6Address) and address.ipv4_mapped:
        address = address.ipv4_mapped
    return any(address in network for network in networks)
