"""Where a host is, who we are there, and which addresses may be connected to at all."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address

Address = IPv4Address | IPv6Address
Network = IPv4Network | IPv6Network

NAT64 = IPv6Network("64:ff9b::/96")  # RFC 6052: the last 32 bits are an IPv4 address


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
    """Which addresses may be connected to. `allowed` None: every one that is not denied."""

    allowed: tuple[Network, ...] | None = None
    denied: tuple[Network, ...] = ()

    def objection(self, address: Address) -> str | None:
        """Why `address` may not be connected to, or None. An IPv4 address inside an IPv6 one is judged as both."""
        for form in _forms(address):
            for network in self.denied:
                if form.version == network.version and form in network:
                    return f"{address} is in the forbidden range {network}"
        if self.allowed is not None and not any(_inside(form, self.allowed) for form in _forms(address)):
            return f"{address} is outside the allowed ranges"
        return None


def _inside(address: Address, networks: Sequence[Network]) -> bool:
    return any(address.version == network.version and address in network for network in networks)


def _forms(address: Address) -> tuple[Address, ...]:
    if isinstance(address, IPv6Address):
        if address.ipv4_mapped is not None:
            return address, address.ipv4_mapped
        if address in NAT64:
            return address, IPv4Address(int(address) & 0xFFFFFFFF)
    return (address,)


def literal(text: str) -> Address | None:
    """The address that `text` is, or None for a host name. Short forms ("127.1") are no addresses here."""
    try:
        return ip_address(text)
    except ValueError:
        return None
