"""Which addresses may be connected to."""

from ipaddress import ip_address, ip_network

import pytest

from fleet.ssh.endpoint import AddressPolicy, Endpoint, literal

POLICY = AddressPolicy(
    allowed=(ip_network("10.0.0.0/8"), ip_network("2001:db8::/32"), ip_network("::/0")),
    denied=(ip_network("10.9.0.0/16"), ip_network("169.254.169.254/32"), ip_network("127.0.0.0/8")),
)


@pytest.mark.parametrize("address", ["10.1.2.3", "2001:db8::1"])
def test_an_allowed_address_meets_no_objection(address: str) -> None:
    assert POLICY.objection(ip_address(address)) is None


@pytest.mark.parametrize(
    "address",
    ["10.9.1.1", "192.0.2.1", "169.254.169.254", "::ffff:127.0.0.1", "::ffff:10.9.0.1", "64:ff9b::7f00:1", "127.0.0.1"],
)
def test_a_forbidden_address_is_named_also_inside_ipv6(address: str) -> None:
    assert str(ip_address(address)) in (POLICY.objection(ip_address(address)) or "")


def test_without_a_list_everything_that_is_not_denied_is_allowed() -> None:
    assert AddressPolicy().objection(ip_address("192.0.2.1")) is None


@pytest.mark.parametrize(
    ("address", "why"),
    [
        ("2002:7f00:1::1", "leads to 127.0.0.1"),  # 6to4
        ("2002:a00:1::1", "leads to 10.0.0.1"),
        ("64:ff9b::a00:1", "leads to 10.0.0.1"),  # NAT64
        ("64:ff9b::a9fe:a9fe", "leads to 169.254.169.254"),
        ("2001:0:7f00:1::ffff:ffff", "leads to 127.0.0.1"),  # Teredo: its server
        ("2001:0:808:808::80ff:fffe", "leads to 127.0.0.1"),  # and its client, with all bits inverted
        ("::7f00:1", "leads to 127.0.0.1"),
        ("::ffff:0:7f00:1", "leads to 127.0.0.1"),
    ],
)
def test_what_is_carried_on_to_a_local_address_is_forbidden(address: str, why: str) -> None:
    for policy in (AddressPolicy(), AddressPolicy(allowed=(ip_network("::/0"), ip_network("0.0.0.0/0")))):
        assert why in (policy.objection(ip_address(address)) or "")


def test_what_is_carried_on_to_a_public_address_is_judged_as_that_too() -> None:
    policy = AddressPolicy(denied=(ip_network("198.51.99.0/24"),))
    assert policy.objection(ip_address("64:ff9b::808:808")) is None
    assert "198.51.99.0/24" in (policy.objection(ip_address("2002:c633:6301::1")) or "")


def test_only_an_allowed_network_inside_a_forbidden_range_opens_it() -> None:
    denied = (ip_network("127.0.0.0/8"), ip_network("fd00:ec2::/32"))
    wide = AddressPolicy((ip_network("0.0.0.0/0"), ip_network("fd00::/8")), denied)
    assert wide.objection(ip_address("fd00::1")) is None
    assert "fd00:ec2::/32" in (wide.objection(ip_address("fd00:ec2::254")) or "")
    assert "127.0.0.0/8" in (wide.objection(ip_address("127.77.0.1")) or "")
    narrow = AddressPolicy((ip_network("127.77.0.0/16"),), denied)
    assert narrow.objection(ip_address("127.77.0.1")) is None
    assert narrow.objection(ip_address("127.0.0.1"))


def test_an_allowed_ipv4_network_allows_no_tunnel_to_it() -> None:
    policy = AddressPolicy((ip_network("8.8.8.0/24"),))
    assert policy.objection(ip_address("::ffff:8.8.8.8")) is None
    assert "outside" in (policy.objection(ip_address("2002:808:808::1")) or "")


@pytest.mark.parametrize("text", ["127.1", "0x7f.1", "2130706433", "mx1", "0177.0.0.1", "10.0.0.1 "])
def test_short_and_odd_forms_are_no_addresses(text: str) -> None:
    assert literal(text) is None


def test_an_endpoint_never_prints_its_key() -> None:
    assert "PRIVATE" not in repr(Endpoint("mx1", "10.0.0.1", 22, "ops", b"PRIVATE", "PRIVATE cert"))
