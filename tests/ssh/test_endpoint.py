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


@pytest.mark.parametrize("text", ["127.1", "0x7f.1", "2130706433", "mx1", "0177.0.0.1", "10.0.0.1 "])
def test_short_and_odd_forms_are_no_addresses(text: str) -> None:
    assert literal(text) is None


def test_an_endpoint_never_prints_its_key() -> None:
    assert "PRIVATE" not in repr(Endpoint("mx1", "10.0.0.1", 22, "ops", b"PRIVATE", "PRIVATE cert"))
