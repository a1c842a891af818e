"""Where a host is, who we are there, and which addresses may be connected to at all."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address

Address = IPv4Address | IPv6Address
Network = IPv4Network | IPv6Network

IN_LAST_BITS = (
    IPv6Network("64:ff9b::/96"),  # NAT64 (RFC 6052)
    IPv6Network("::ffff:0:0:0/96"),  # stateless translation (RFC 2765)
    IPv6Network("::/96"),  # "IPv4-compatible" (RFC 4291 2.5.5.1)
)
"""Whose last 32 bits are the IPv4 address that a packet may be carried on to."""


@dataclass(frozen=True)
class Endpoint:
    """One account on one host.

    `name`: the inventory's name, which host certificates must carry. `address`: host name or IP. `private_key`: PEM,
    not encrypted. `certificate`: "" or an OpenSSH certificate line. `host_key`: "" or "TYPE BASE64". `host_ca`: "" or
    a public key line. `become`: "none" or "sudo". `jump`: the host that the connection goes through. `helpers`:
    (script name, sha256 hex) of the scripts that are installed, root-owned, under /usr/local/libexec/mxfleet/.
    """

    name: str
    address: str
    port: int
    username: str
    private_key: bytes = field(repr=False)
    certificate: str = field(default="", repr=False)
    host_key: str = ""
    host_ca: str = ""
    become: str = "none"
    jump: "Endpoint | None" = None
    helpers: frozenset[tuple[str, str]] = frozenset()


@dataclass(frozen=True)
class AddressPolicy:
    """Which addresses may be connected to. `allowed` None: every one that is not denied.

    What is denied stays so inside a wider allowed network; one that lies inside the denied range opens its part of it.
    `own`: names or addresses of this service's database and broker, judged by what they resolve to.
    """

    allowed: tuple[Network, ...] | None = None
    denied: tuple[Network, ...] = ()
    own: tuple[str, ...] = ()

    def objection(self, address: Address) -> str | None:
        """Why `address` may not be connected to, or None. An IPv4 address inside an IPv6 one is judged as well."""
        plain, carried = plain_form(address), carried_by(address)
        for form in (plain, *carried):
            for network in self.denied:
                if _inside(form, [network]) and not self._opens(network, form):
                    return f"{address} is in the forbidden range {network}"
        for form in carried:
            if not form.is_global:
                return f"{address} leads to {form}, which is no public address"
        if self.allowed is not None and not _inside(plain, self.allowed):
            return f"{address} is outside the allowed ranges"
        return None

    def _opens(self, denied: Network, address: Address) -> bool:
        part = [network for network in self.allowed or () if _is_part(network, denied)]
        return _inside(address, part)


def _inside(address: Address, networks: Sequence[Network]) -> bool:
    return any(address.version == network.version and address in network for network in networks)


def _is_part(network: Network, whole: Network) -> bool:
    return network.version == whole.version and network.prefixlen >= whole.prefixlen and network[0] in whole


def plain_form(address: Address) -> Address:
    """The same place without the IPv6 spelling of an IPv4 address (RFC 4291 2.5.5.2)."""
    return (address.ipv4_mapped or address) if isinstance(address, IPv6Address) else address


def carried_by(address: Address) -> tuple[IPv4Address, ...]:
    """The IPv4 addresses to which translators and tunnels take packets for this one: NAT64, 6to4, Teredo and older."""
    if not isinstance(address, IPv6Address):
        return ()
    if _inside(address, IN_LAST_BITS):
        return (IPv4Address(int(address) & 0xFFFFFFFF),)
    return (*((address.sixtofour,) if address.sixtofour else ()), *(address.teredo or ()))


def literal(text: str) -> Address | None:
    """The address that `text` is, or None for a host name. Short forms ("127.1") are no addresses here."""
    try:
        return ip_address(text)
    except ValueError:
        return None
