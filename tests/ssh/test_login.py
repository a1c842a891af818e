"""Logins against a real sshd, and against servers that mean harm."""

import asyncio
import socket
import struct
import subprocess
import threading
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from ipaddress import ip_network
from pathlib import Path

import asyncssh
import pytest
from asyncssh.packet import String, UInt32

from fleet.mta.errors import AuthFailed, HostKeyMismatch, Unreachable
from fleet.mta.steps import Command
from fleet.ssh import login
from fleet.ssh import pool as pool_module
from fleet.ssh.endpoint import AddressPolicy, Endpoint
from fleet.ssh.login import COMMON, options_for
from fleet.ssh.pool import Pool
from tests.ssh.carry import carried, serving, transport
from tests.ssh.sshd import Sshd, free_port, keygen

KEY = asyncssh.generate_private_key("ssh-ed25519")
PINNED = " ".join(KEY.export_public_key().decode().split()[:2])


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """The same limits, smaller."""
    monkeypatch.setattr(login, "LOGIN_TIMEOUT", 0.5)
    monkeypatch.setattr(pool_module, "PAUSES", (0.05, 0.1))
    monkeypatch.setitem(COMMON, "login_timeout", 0.5)
    options_for.cache_clear()


@pytest.fixture
def hostile() -> Endpoint:
    return Endpoint("mx1", "127.0.0.1", 0, "ops", KEY.export_private_key(), host_key=PINNED)


def at(endpoint: Endpoint, port: int) -> Endpoint:
    return Endpoint(endpoint.name, endpoint.address, port, "ops", endpoint.private_key, host_key=endpoint.host_key)


async def test_the_cipher_is_aes_gcm_and_nothing_of_the_worker_is_used(
    sshd: Sshd, pool: Pool, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (tmp_path / ".ssh").mkdir()
    (tmp_path / ".ssh" / "config").write_text("Host *\n  User nobody-at-all\n  Port 1\n  ProxyCommand false\n")
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("SSH_AUTH_SOCK", str(tmp_path / "agent"))
    options_for.cache_clear()
    warm = await pool.acquire(sshd.endpoint(), asyncio.get_running_loop().time() + 10)
    assert warm.connection.get_extra_info("send_cipher") == "aes256-gcm@openssh.com"
    assert warm.connection.get_extra_info("recv_cipher") == "aes256-gcm@openssh.com"
    assert warm.connection.get_extra_info("username") == sshd.username
    pool.release(warm)


async def test_a_refused_key_is_tried_once_and_then_paused(own_sshd: Sshd, pool: Pool) -> None:
    own_sshd.start()
    wrong = keygen(own_sshd.directory / "wrong").read_bytes()
    endpoint = own_sshd.endpoint(private_key=wrong)
    failures = await asyncio.gather(*(carried(pool, endpoint, "true") for _ in range(100)), return_exceptions=True)
    assert all(type(failure) is AuthFailed for failure in failures)
    with pytest.raises(AuthFailed) as again:
        await carried(pool, endpoint, "true")
    assert again.value.data["paused_seconds"] > 50
    assert await refusals(own_sshd) == 1
    assert (await carried(pool, own_sshd.endpoint(), "true")).exit_status == 0
    with pytest.raises(AuthFailed):
        await carried(pool, endpoint, "true")
    assert await refusals(own_sshd) == 2


async def refusals(server: Sshd) -> int:
    await asyncio.sleep(0.2)
    return server.log().count("closed by authenticating user")


async def test_a_user_certificate_logs_in(own_sshd: Sshd, pool: Pool) -> None:
    authority = keygen(own_sshd.directory / "user_ca")
    key = keygen(own_sshd.directory / "certified")
    subprocess.run(
        ["ssh-keygen", "-q", "-s", str(authority), "-I", "w", "-n", own_sshd.username, "-V", "-1m:+5m", f"{key}.pub"],
        check=True,
    )
    own_sshd.start(f"TrustedUserCAKeys {authority}.pub\n")
    endpoint = own_sshd.endpoint(private_key=key.read_bytes(), certificate=Path(f"{key}-cert.pub").read_text().strip())
    assert (await carried(pool, endpoint, "true")).exit_status == 0


@pytest.mark.parametrize(
    ("change", "kind"),
    [
        ({"private_key": b"garbage"}, AuthFailed),
        ({"certificate": "garbage"}, AuthFailed),
        ({"host_key": "garbage"}, HostKeyMismatch),
        ({"host_ca": "@cert-authority * garbage"}, HostKeyMismatch),
    ],
)
async def test_what_cannot_be_read_is_named_and_never_ignored(
    sshd: Sshd, pool: Pool, change: dict[str, object], kind: type[Exception]
) -> None:
    with pytest.raises(kind, match="cannot be read"):
        await carried(pool, sshd.endpoint(**change), "true")


@pytest.mark.usefixtures("quick")
async def test_a_closed_port_is_tried_three_times(
    pool: Pool, hostile: Endpoint, monkeypatch: pytest.MonkeyPatch
) -> None:
    tries = []
    real = login.tcp

    async def counted(*args: object) -> object:
        tries.append(args)
        return await real(*args)  # type: ignore[arg-type]

    monkeypatch.setattr(login, "tcp", counted)
    with pytest.raises(Unreachable, match="Connect call failed"):
        await carried(pool, at(hostile, free_port()), "true")
    assert len(tries) == 3


async def test_the_deadline_comes_before_further_tries(pool: Pool, hostile: Endpoint) -> None:
    begun = time.monotonic()
    with pytest.raises(Unreachable, match="Connect call failed"):
        await transport(pool, at(hostile, free_port()), 0.5).run(Command(("true",)))
    assert time.monotonic() - begun < 1.5  # a second try would come after 1.6 s at least


def test_a_silent_host_is_given_up_within_a_minute() -> None:
    two_tries = 2 * login.CONNECT_TIMEOUT + pool_module.PAUSES[0]
    noticed = 20  # seconds until a warm connection that died is known to be dead: keepalives, 5 s x (3 + 1)
    assert two_tries <= pool_module.PATIENCE < 60 - noticed


@pytest.mark.usefixtures("quick")
@pytest.mark.parametrize("behaviour", ["silent", "dripping", "no ssh", "endless"])
async def test_a_server_that_never_logs_us_in_is_unreachable_soon(
    pool: Pool, hostile: Endpoint, behaviour: str
) -> None:
    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if behaviour == "no ssh":
            writer.write(b"220 mx1 ESMTP\r\n")
            await reader.readline()
            writer.write(b"500 what?\r\n" * 10)
        while behaviour != "no ssh":
            if behaviour == "dripping":
                writer.write(b"x")
            elif behaviour == "endless":
                writer.write(b"x" * 79 + b"\r\n")
            await writer.drain()
            await asyncio.sleep(0 if behaviour == "endless" else 0.05)

    begun = time.monotonic()
    async with serving(serve) as port:
        with pytest.raises(Unreachable):
            await carried(pool, at(hostile, port), "true")
    assert time.monotonic() - begun < 6


@pytest.mark.usefixtures("quick")
async def test_a_server_that_resets_the_connection_after_its_first_byte_is_unreachable(
    pool: Pool, hostile: Endpoint
) -> None:
    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        connection: socket.socket = writer.get_extra_info("socket")
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        writer.write(b"S")

    async with serving(serve) as port:
        with pytest.raises(Unreachable, match="mx1: "):
            await carried(pool, at(hostile, port), "true")


class Greedy(asyncssh.SSHServer):
    """Accepts anybody without a proof, or floods the login banner."""

    flood = 0

    def connection_made(self, conn: asyncssh.SSHServerConnection) -> None:
        self.conn = conn

    def begin_auth(self, username: str) -> bool:
        for _ in range(self.flood):
            self.conn.send_auth_banner("x" * 30_000)
        return bool(self.flood)

    def public_key_auth_supported(self) -> bool:
        return True

    def validate_public_key(self, username: str, key: asyncssh.SSHKey) -> bool:
        return True


@asynccontextmanager
async def ssh_server(factory: type[asyncssh.SSHServer], **options: object) -> AsyncIterator[int]:
    server = await asyncssh.listen("127.0.0.1", 0, server_factory=factory, server_host_keys=[KEY], **options)  # type: ignore[arg-type]
    try:
        yield server.get_port()
    finally:
        server.close()


async def test_a_server_that_asks_for_no_proof_gets_no_commands(pool: Pool, hostile: Endpoint) -> None:
    async with ssh_server(Greedy) as port:
        with pytest.raises(AuthFailed, match="Trivial"):
            await carried(pool, at(hostile, port), "true")


class Flooding(Greedy):
    flood = 300


@pytest.mark.usefixtures("quick")
async def test_a_login_banner_without_end_is_cut_off(pool: Pool, hostile: Endpoint) -> None:
    async with ssh_server(Flooding) as port:
        with pytest.raises(Unreachable, match="banner"):
            await carried(pool, at(hostile, port), "true")


async def test_a_server_may_open_no_channels_to_us(pool: Pool, hostile: Endpoint) -> None:
    refused: list[str] = []

    class Asking(Greedy):
        flood = 1

    async def session(process: asyncssh.SSHServerProcess[bytes]) -> None:
        connection = process.get_extra_info("connection")
        origin = String("127.0.0.1") + UInt32(1)
        offers = {b"auth-agent@openssh.com": b"", b"x11": origin, b"forwarded-tcpip": origin + origin, b"session": b""}
        for kind, rest in offers.items():
            channel = asyncssh.channel.SSHTCPChannel(connection, asyncio.get_running_loop(), None, "strict", 1000, 1000)
            try:
                await channel._open(kind, rest)
            except asyncssh.ChannelOpenError as error:
                refused.append(error.reason)
        process.exit(0)

    async with ssh_server(Asking, process_factory=session, encoding=None) as port:
        done = await carried(pool, at(hostile, port), "true")
    assert done.exit_status == 0
    assert len(refused) == 4


async def test_a_host_behind_a_jump_host_is_reached_and_both_are_verified(
    sshd: Sshd, own_sshd: Sshd, pool: Pool
) -> None:
    own_sshd.start()
    bastion = sshd.endpoint(name="bastion")
    done = await carried(pool, own_sshd.endpoint(jump=bastion), "sh", "-c", "echo $SSH_CONNECTION")
    assert done.exit_status == 0
    other = " ".join(asyncssh.generate_private_key("ssh-ed25519").export_public_key().decode().split()[:2])
    with pytest.raises(HostKeyMismatch, match="mx1"):
        await carried(pool, own_sshd.endpoint(jump=bastion, host_key=other), "true")
    with pytest.raises(HostKeyMismatch, match="bastion"):
        await carried(pool, own_sshd.endpoint(jump=sshd.endpoint(name="bastion", host_key=other)), "true")


async def test_a_connection_that_is_idle_or_broken_is_replaced(own_sshd: Sshd, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pool_module, "IDLE", 0.2)
    monkeypatch.setattr(pool_module, "SWEEP", 0.1)
    own_sshd.start()
    pool = Pool(AddressPolicy())
    await carried(pool, own_sshd.endpoint(), "true")
    await carried(pool, own_sshd.endpoint(), "sleep", "0.5")
    assert own_sshd.log().count("Accepted publickey") == 1
    await asyncio.sleep(0.5)
    await carried(pool, own_sshd.endpoint(), "true")
    assert own_sshd.log().count("Accepted publickey") == 2
    own_sshd.stop()
    own_sshd.start()
    assert (await carried(pool, own_sshd.endpoint(), "true")).exit_status == 0
    await pool.close()


async def test_our_own_database_is_refused_by_what_it_resolves_to_when_connecting(
    sshd: Sshd, monkeypatch: pytest.MonkeyPatch
) -> None:
    places = {"db.example": "192.0.2.7", "mx1.example": "127.0.0.1"}

    def answers(host: str, port: int, **_: object) -> list[tuple[object, ...]]:
        return [(0, 0, 0, "", (places[host], port))]

    monkeypatch.setattr(socket, "getaddrinfo", answers)
    pool = Pool(AddressPolicy(own=("db.example",)))
    endpoint = sshd.endpoint(address="mx1.example")
    assert (await carried(pool, endpoint, "true")).exit_status == 0
    for warm in list(pool._warm.values()):
        pool._discard(warm)
    for places["db.example"] in ("127.0.0.1", "::ffff:127.0.0.1"):
        with pytest.raises(Unreachable, match="own database or broker"):
            await carried(pool, endpoint, "true")
        with pytest.raises(Unreachable, match="own database or broker"):
            await pool.scan("127.0.0.1", sshd.port, None)
    await pool.close()


@pytest.mark.parametrize("said", [socket.EAI_AGAIN, socket.EAI_SYSTEM])
async def test_while_nobody_can_tell_where_our_own_database_is_no_host_is_reached(
    sshd: Sshd, monkeypatch: pytest.MonkeyPatch, said: int
) -> None:
    pool = unresolved("db.example", said, monkeypatch)
    with pytest.raises(Unreachable, match=r"own db\.example is not known"):
        await pool.scan("127.0.0.1", sshd.port, None)
    await pool.close()


@pytest.mark.parametrize("said", [socket.EAI_NONAME, socket.EAI_NODATA, socket.EAI_FAIL])
async def test_a_name_of_our_own_that_has_no_address_keeps_no_host_from_being_reached(
    sshd: Sshd, monkeypatch: pytest.MonkeyPatch, said: int
) -> None:
    pool = unresolved("db.example", said, monkeypatch)
    assert (await carried(pool, sshd.endpoint(), "true")).exit_status == 0
    await pool.close()


def unresolved(name: str, said: int, monkeypatch: pytest.MonkeyPatch) -> Pool:
    """A pool of a service whose database has a name to which getaddrinfo(3) says this error."""

    def answers(host: str, port: int, **_: object) -> list[tuple[object, ...]]:
        raise socket.gaierror(said, host)

    monkeypatch.setattr(socket, "getaddrinfo", answers)
    return Pool(AddressPolicy(own=(name,)))


async def test_names_of_hosts_that_nobody_answers_for_hold_up_no_host_that_is_named_by_address(
    sshd: Sshd, monkeypatch: pytest.MonkeyPatch
) -> None:
    answered = threading.Event()

    def answers(host: str, port: int, **_: object) -> list[tuple[object, ...]]:
        if host == "silent.example":
            answered.wait(20)
        return [(0, 0, 0, "", ("192.0.2.7", port))]

    monkeypatch.setattr(socket, "getaddrinfo", answers)
    pool = Pool(AddressPolicy(own=("db.example",)))
    waiting = [asyncio.create_task(pool.scan("silent.example", 22, None)) for _ in range(64)]
    await asyncio.sleep(0)  # they ask, more of them than the loop has threads
    try:
        async with asyncio.timeout(10):
            assert (await carried(pool, sshd.endpoint(), "true")).exit_status == 0
    finally:
        answered.set()
        for task in waiting:
            task.cancel()
        await pool.close()


async def test_a_name_is_resolved_once_and_every_address_is_checked(
    sshd: Sshd, monkeypatch: pytest.MonkeyPatch
) -> None:
    pool = Pool(AddressPolicy(denied=(ip_network("10.0.0.0/8"),)))
    asked = []

    def answers(host: str, port: int, **_: object) -> list[tuple[object, ...]]:
        asked.append(host)
        last = "10.0.0.1" if host == "rebinding.example" else "127.0.0.1"
        return [(0, 0, 0, "", ("127.0.0.1", port)), (0, 0, 0, "", (last, port))]

    monkeypatch.setattr(socket, "getaddrinfo", answers)
    with pytest.raises(Unreachable, match=r"10\.0\.0\.1 is in the forbidden range"):
        await carried(pool, sshd.endpoint(address="rebinding.example"), "true")
    assert (await carried(pool, sshd.endpoint(address="good.example"), "true")).exit_status == 0
    assert asked == ["rebinding.example", "good.example"]
    await pool.close()
