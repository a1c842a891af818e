"""Where a host may be: checked when it is saved, and by the transport for each address that a name resolves to."""

import re
import socket
from collections.abc import Callable
from contextlib import suppress
from ipaddress import IPv4Address, ip_address, ip_network

from django.conf import settings

from fleet.ssh.endpoint import Address, AddressPolicy, plain_form
from jobs.errors import Invalid

NEVER = tuple(
    ip_network(text)
    for text in (
        "0.0.0.0/8",
        "127.0.0.0/8",
        "169.254.0.0/16",
        "100.100.100.200/32",
        "168.63.129.16/32",
        "192.0.0.0/24",
        "224.0.0.0/3",
        "::/128",
        "::1/128",
        "64:ff9b:1::/48",
        "fd00:ec2::/32",
        "fd20:ce::/32",
        "fd00:c1::/32",
        "fe80::/10",
        "fec0::/10",
        "ff00::/8",
    )
)
"""This host itself, link-local and site-local, translation of local use (RFC 8215), multicast and reserved (RFC 6890);
and where clouds keep credentials, by their documentation: 100.100.100.200 Alibaba, 168.63.129.16 Azure, 192.0.0.192 and
fd00:c1:: Oracle, fd00:ec2:: Amazon, fd20:ce:: Google."""

LABEL = re.compile(r"[a-z0-9_]([a-z0-9_-]{0,61}[a-z0-9])?")
EXPECTED = "expected a host name or an IP address, without user, port or path"
NUMBER = re.compile(r"(0x[0-9a-f]*|[0-9]+)")
LOCAL_NAMES = ("localhost", "localhost.localdomain", "ip6-localhost", "ip6-loopback")
CLUSTER = (".localhost", ".svc", ".cluster.local")
MOST = 253


def address_policy() -> AddressPolicy:
    """The installation's policy: what MXFLEET_ALLOWED_NETWORKS and its own database and broker make of the default."""
    return AddressPolicy(settings.ENV.allowed_networks, NEVER, settings.ENV.own_services)


def own_addresses() -> set[Address]:
    """What the database and the broker resolve to now. One without an address is judged at the connection."""
    found: set[Address] = set()
    for name in settings.ENV.own_services:
        with suppress(OSError):
            answers = socket.getaddrinfo(name, None, type=socket.SOCK_STREAM)
            found |= {plain_form(ip_address(str(answer[4][0]).partition("%")[0])) for answer in answers}
    return found


def check_address(text: str, own: Callable[[], set[Address]] = own_addresses) -> None:
    """Raise Invalid unless `text` is a host name or an IP address at which a host may be.

    A name is not resolved here: the transport judges what it resolves to, and connects to exactly that. `own`: where
    this service's own servers are, for who checks many and looks that up once.
    """
    literal = _literal(text)
    if literal is not None:
        objection = address_policy().objection(literal)
        if objection is None and plain_form(literal) in own():
            objection = f"{literal} is where this service's own database or broker is"
        if objection:
            raise _forbidden(objection)
        if str(literal) != text.lower():
            raise Invalid.field("address", "invalid", f"write this address as {literal}")
        return
    _check_name(text.lower(), {name.lower() for name in settings.ENV.own_services})


def _check_name(name: str, own: set[str]) -> None:
    labels = name.removesuffix(".").split(".")
    if len(name) > MOST or not all(LABEL.fullmatch(label) for label in labels):
        raise Invalid.field("address", "invalid", EXPECTED)
    bare = ".".join(labels)
    if bare in own:
        raise _forbidden(f"{bare} is where this service's own database or broker is")
    if bare in LOCAL_NAMES or bare.endswith(CLUSTER):
        objection = address_policy().objection(ip_address("127.0.0.1"))
        if objection or bare.endswith(CLUSTER):
            raise _forbidden(f"{bare} is a name of the service's own machine or cluster")


def _literal(text: str) -> Address | None:
    """The address that `text` is, also in the odd forms of inet_aton(3) such as 127.1, 2130706433 and 0x7f.1."""
    try:
        return None if "%" in text else ip_address(text)
    except ValueError:
        pass
    last = text.lower().removesuffix(".").rpartition(".")[2]
    if not NUMBER.fullmatch(last):
        return None
    try:
        return IPv4Address(socket.inet_aton(text.removesuffix(".")))
    except (OSError, UnicodeError):
        if all(LABEL.fullmatch(label) for label in text.lower().removesuffix(".").split(".")):
            detail = "not an IP address, and a host name must not end in a number"
            raise Invalid.field("address", "invalid", detail) from None
        raise Invalid.field("address", "invalid", EXPECTED) from None


def _forbidden(detail: str) -> Invalid:
    return Invalid.field("address", "forbidden_range", detail)
