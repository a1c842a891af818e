"""Host keys: pinned or certified, each wrong case named as such, and keys as people paste them."""

import asyncio
import socket
import subprocess
from pathlib import Path

import asyncssh
import pytest

from fleet.mta.errors import HostKeyMismatch, Unreachable
from fleet.ssh import pool as pool_module
from fleet.ssh.endpoint import AddressPolicy
from fleet.ssh.engine import Engine
from fleet.ssh.hostkeys import parse_host_key, trusted
from fleet.ssh.pool import Pool
from tests.ssh.carry import carried
from tests.ssh.sshd import Sshd, free_port, keygen, public

KEY = asyncssh.generate_private_key("ssh-ed25519")
LINE = " ".join(KEY.export_public_key().decode().split()[:2])
OTHER = " ".join(asyncssh.generate_private_key("ssh-ed25519").export_public_key().decode().split()[:2])
ECDSA = " ".join(asyncssh.generate_private_key("ecdsa-sha2-nistp256").export_public_key().decode().split()[:2])


@pytest.mark.parametrize("text", [LINE, LINE + " root@mx1", f"  {LINE}\n", LINE.replace(" ", "\t")])
def test_a_public_key_line_is_normalised(text: str) -> None:
    assert parse_host_key(text) == LINE


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("", "0 lines"),
        (f"{LINE}\n{LINE}", "2 lines"),
        (f"@revoked * {LINE}", "marker"),
        (f"@cert-authority *.example.com {LINE}", "marker"),
        (f"* {LINE}", "known_hosts line"),
        (f"mx1,192.0.2.1 {LINE}", "known_hosts line"),
        (f"|1|abc=|def= {LINE}", "known_hosts line"),
        ("garbage", "no host key type"),
        ("ssh-dss AAAA", "no host key type"),
        ("ssh-ed25519", "missing"),
        (LINE[:-20], "cut off"),
        (LINE.replace("ssh-ed25519", "ecdsa-sha2-nistp256"), "of type|cut off"),
        ("ssh-ed25519 !!!!", "cut off"),
        ("ssh-ed25519-cert-v01@openssh.com AAAA", "certificate"),
        ("x" * 10_000_000, "longer"),
    ],
)
def test_anything_else_is_refused_with_the_reason(text: str, reason: str) -> None:
    with pytest.raises(ValueError, match=reason):
        parse_host_key(text)


def test_without_a_pin_nobody_is_trusted(sshd: Sshd) -> None:
    assert trusted(sshd.endpoint(host_key="")) == ([], [], [])


async def mismatch(pool: Pool, sshd: Sshd, **changes: object) -> HostKeyMismatch:
    with pytest.raises(HostKeyMismatch) as caught:
        await carried(pool, sshd.endpoint(**changes), "true")
    return caught.value


async def test_a_changed_key_of_the_same_type_is_a_mismatch_and_shows_the_key(sshd: Sshd, pool: Pool) -> None:
    error = await mismatch(pool, sshd, host_key=OTHER)
    assert error.data["shown_key"] == sshd.endpoint().host_key
    assert error.data["shown_fingerprint"].startswith("SHA256:")


async def test_a_host_without_a_key_of_the_pinned_type_is_a_mismatch_not_a_network_fault(
    sshd: Sshd, pool: Pool
) -> None:
    assert (await mismatch(pool, sshd, host_key=ECDSA)).data["shown_key"] == sshd.endpoint().host_key


async def test_a_host_without_any_pin_is_refused_and_told_to_have_none(sshd: Sshd, pool: Pool) -> None:
    error = await mismatch(pool, sshd, host_key="")
    assert "no host key or host CA is set yet" in str(error)
    assert error.data["shown_key"] == sshd.endpoint().host_key


async def test_a_host_without_a_certificate_is_a_mismatch_where_only_a_ca_is_trusted(sshd: Sshd, pool: Pool) -> None:
    error = await mismatch(pool, sshd, host_key="", host_ca=OTHER)
    assert error.data["shown_key"] == sshd.endpoint().host_key


def certified(server: Sshd, principal: str, validity: str) -> str:
    """Give the server a host certificate; returns the CA's public key line."""
    authority = keygen(server.directory / "ca")
    host = server.directory / "host_ed25519"
    subprocess.run(
        ["ssh-keygen", "-q", "-s", str(authority), "-I", "host", "-h", "-n", principal, "-V", validity, f"{host}.pub"],
        check=True,
    )
    server.start(f"HostCertificate {host}-cert.pub\n")
    return public(authority)


async def test_a_certificate_of_the_trusted_ca_is_accepted(own_sshd: Sshd, pool: Pool) -> None:
    authority = certified(own_sshd, "mx1.example.com", "-1h:+1h")
    done = await carried(pool, own_sshd.endpoint(host_key="", host_ca=authority), "true")
    assert done.exit_status == 0


@pytest.mark.parametrize(
    ("principal", "validity"), [("mx2.example.com", "-1h:+1h"), ("mx1.example.com", "-2h:-1h")], ids=["name", "expired"]
)
async def test_a_certificate_for_another_name_or_time_is_a_mismatch(
    own_sshd: Sshd, pool: Pool, principal: str, validity: str
) -> None:
    authority = certified(own_sshd, principal, validity)
    await mismatch(pool, own_sshd, host_key="", host_ca=authority)


async def test_a_certificate_of_another_ca_is_a_mismatch(own_sshd: Sshd, pool: Pool) -> None:
    certified(own_sshd, "mx1.example.com", "-1h:+1h")
    await mismatch(pool, own_sshd, host_key="", host_ca=OTHER)


async def certified_key(pool: Pool, server: Sshd, authority: str) -> str | None:
    seen = await pool.scan_certified("127.0.0.1", server.port, None, "mx1.example.com", "root", authority)
    return seen.host_key if seen else None


async def test_a_scan_tells_the_key_that_a_certificate_of_the_ca_is_for(own_sshd: Sshd, pool: Pool) -> None:
    authority = certified(own_sshd, "mx1.example.com", "-1h:+1h")
    assert await certified_key(pool, own_sshd, authority) == own_sshd.endpoint().host_key
    assert await certified_key(pool, own_sshd, OTHER) is None


@pytest.mark.parametrize(("principal", "validity"), [("mx2.example.com", "-1h:+1h"), ("mx1.example.com", "-2h:-1h")])
async def test_a_certificate_for_another_name_or_time_tells_a_scan_nothing(
    own_sshd: Sshd, pool: Pool, principal: str, validity: str
) -> None:
    assert await certified_key(pool, own_sshd, certified(own_sshd, principal, validity)) is None


async def test_a_host_without_a_certificate_tells_a_scan_for_one_nothing(sshd: Sshd, pool: Pool) -> None:
    assert await certified_key(pool, sshd, OTHER) is None


async def test_a_scan_for_a_certificate_of_a_host_that_is_not_there_is_unreachable(pool: Pool) -> None:
    with pytest.raises(Unreachable):
        await pool.scan_certified("127.0.0.1", free_port(), None, "mx1.example.com", "root", OTHER)


async def test_a_mismatch_pauses_the_host_until_it_is_reset(own_sshd: Sshd, pool: Pool) -> None:
    own_sshd.start()
    endpoint = {"host_key": OTHER}
    await mismatch(pool, own_sshd, **endpoint)
    connections = own_sshd.log().count("Connection from")
    again = await mismatch(pool, own_sshd, **endpoint)
    assert again.data["paused_seconds"] > 50
    assert own_sshd.log().count("Connection from") == connections
    pool.breaker.reset("mx1.example.com")
    await mismatch(pool, own_sshd, **endpoint)
    assert own_sshd.log().count("Connection from") > connections


def test_a_scan_shows_the_key_with_its_fingerprint(engine: Engine, sshd: Sshd) -> None:
    seen = engine.scan_host_key("127.0.0.1", sshd.port)
    listed = subprocess.run(
        ["ssh-keygen", "-l", "-f", str(sshd.directory / "host_ed25519.pub")], capture_output=True, text=True, check=True
    )
    assert seen.host_key == sshd.endpoint().host_key
    assert seen.fingerprint == listed.stdout.split()[1]
    assert seen.algorithm == "ssh-ed25519"


def test_a_scan_prefers_ed25519_over_ecdsa_over_rsa(engine: Engine, own_sshd: Sshd, tmp_path: Path) -> None:
    for kind in ("rsa", "ecdsa"):
        path = tmp_path / kind
        subprocess.run(["ssh-keygen", "-q", "-t", kind, "-N", "", "-f", str(path)], check=True)
    own_sshd.start(f"HostKey {tmp_path}/rsa\nHostKey {tmp_path}/ecdsa\n")
    assert engine.scan_host_key("127.0.0.1", own_sshd.port).algorithm == "ssh-ed25519"


def test_a_scan_of_a_closed_port_or_a_forbidden_address_is_unreachable(engine: Engine) -> None:
    with pytest.raises(Unreachable):
        engine.scan_host_key("127.0.0.1", free_port())
    with pytest.raises(Unreachable, match="outside the allowed"):
        engine.scan_host_key("192.0.2.1", 22)
    forbidding = Engine(AddressPolicy())
    with pytest.raises(Unreachable, match="has no address"):
        forbidding.scan_host_key("no-such-host.invalid", 22)
    forbidding.close()


async def test_a_scan_ends_in_its_time_though_the_host_says_nothing(
    pool: Pool, sshd: Sshd, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert pool_module.SCAN_TIMEOUT <= 10.0
    monkeypatch.setattr(pool_module, "SCAN_TIMEOUT", 0.3)
    with socket.create_server(("127.0.0.1", 0)) as silent:
        port = silent.getsockname()[1]
        jump = sshd.endpoint(name="bastion", port=port)
        for way in (pool.scan("127.0.0.1", port, None), pool.scan("127.0.0.1", sshd.port, jump)):
            async with asyncio.timeout(3):
                with pytest.raises(Unreachable):
                    await way


async def test_a_scan_goes_through_the_jump_host(sshd: Sshd, own_sshd: Sshd, pool: Pool) -> None:
    own_sshd.start()
    seen = await pool.scan("127.0.0.1", own_sshd.port, sshd.endpoint(name="bastion"))
    assert seen.host_key == own_sshd.endpoint().host_key
