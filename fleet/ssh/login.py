"""From an endpoint to an authenticated connection: resolve, check, connect, verify, log in. One try."""

import asyncio
import socket
from collections.abc import Sequence
from concurrent.futures import Executor
from contextlib import AbstractAsyncContextManager, suppress
from dataclasses import dataclass, field
from functools import lru_cache, partial
from time import monotonic
from typing import Any

import asyncssh

from fleet.mta.errors import AuthFailed, FleetError, HostKeyMismatch, Unreachable
from fleet.ssh.endpoint import Address, AddressPolicy, Endpoint, literal, plain_form
from fleet.ssh.errors import HINTS, login_error
from fleet.ssh.hostkeys import PREFERRED, HostKey, describe, trusted, trusted_kinds

CONNECT_TIMEOUT = 15.0  # seconds: TCP, key exchange and login together
LOGIN_TIMEOUT = 10.0  # seconds from the TCP connection to the end of the login
SILENT = 2.0  # seconds after which a failure is no refusal: those come at once
EXPLAIN_TIMEOUT = 5.0  # seconds to find out why a key exchange ended
BANNER_MOST = 64 * 1024
NO_ADDRESS = frozenset({socket.EAI_NONAME, socket.EAI_NODATA, socket.EAI_FAIL})
"""getaddrinfo(3): what the nameservers said for good. Else, as with EAI_AGAIN, they may say something else next."""

# Asked for explicitly, so that neither a file, an agent nor an environment variable of the worker has a say.
COMMON: dict[str, Any] = {
    "config": None,
    "agent_path": None,
    "agent_forwarding": False,
    "x11_forwarding": False,
    "gss_host": None,
    "gss_kex": False,
    "gss_auth": False,
    "password": None,
    "password_auth": False,
    "kbdint_auth": False,
    "host_based_auth": False,
    "preferred_auth": "publickey",
    "disable_trivial_auth": True,
    "x509_trusted_certs": None,
    "x509_trusted_cert_paths": [],
    "connect_timeout": CONNECT_TIMEOUT,
    "login_timeout": LOGIN_TIMEOUT,
    "keepalive_interval": 5,
    "keepalive_count_max": 3,
    "compression_algs": None,
    "encryption_algs": ["aes256-gcm@openssh.com", "aes128-gcm@openssh.com"],
    "kex_algs": [
        "curve25519-sha256",
        "curve25519-sha256@libssh.org",
        "ecdh-sha2-nistp256",
        "ecdh-sha2-nistp384",
        "ecdh-sha2-nistp521",
        "diffie-hellman-group16-sha512",
        "diffie-hellman-group14-sha256",
    ],
    "request_pty": False,
    "encoding": None,
    "utf8_decode_errors": "replace",
}


@dataclass
class Login(asyncssh.SSHClient):
    """Watches one connection: which key was shown, how much banner came, whether it is still there.

    `waiting_since`: when we began to wait for the host, by `monotonic`; waiting for our own places does not count.
    """

    presented: asyncssh.SSHKey | None = None
    banner: int = 0
    is_lost: bool = False
    waiting_since: float = field(default_factory=monotonic)
    _connection: asyncssh.SSHClientConnection | None = field(default=None, repr=False)

    def connection_made(self, conn: asyncssh.SSHClientConnection) -> None:
        self._connection = conn

    def connection_lost(self, exc: Exception | None) -> None:
        self.is_lost = True

    def validate_host_public_key(self, host: str, addr: str, port: int, key: asyncssh.SSHKey) -> bool:
        """Asked only about keys that are not trusted: remember it for the report, and refuse it."""
        self.presented = key
        return False

    def auth_banner_received(self, msg: str, lang: str) -> None:
        self.banner += len(msg)
        if self.banner > BANNER_MOST:
            raise asyncssh.ProtocolError(f"the login banner is larger than {BANNER_MOST} bytes")

    @property
    def is_silent(self) -> bool:
        """The host has kept us waiting for longer than one that refuses would."""
        return monotonic() - self.waiting_since >= SILENT

    @property
    def has_greeted(self) -> bool:
        """The server said which SSH it speaks. A busy sshd (MaxStartups) drops connections before that."""
        return self._connection is not None and bool(self._connection.get_extra_info("server_version"))

    @property
    def verified_key(self) -> asyncssh.SSHKey | None:
        """The key by which the host has shown that it is the one that is trusted."""
        return self._connection.get_server_host_key() if self._connection is not None else None

    @property
    def has_verified_host(self) -> bool:
        return self.verified_key is not None


@lru_cache(maxsize=4096)
def options_for(endpoint: Endpoint) -> asyncssh.SSHClientConnectionOptions:
    """Options built once per endpoint: an RSA key parsed for every login costs 116 ms, a known_hosts file 7 ms.

    Raises AuthFailed for a credential and HostKeyMismatch for a host key that cannot be read.
    """
    try:
        key = asyncssh.import_private_key(endpoint.private_key)
        if endpoint.certificate:
            certificate = asyncssh.import_certificate(endpoint.certificate)
            pairs = asyncssh.load_keypairs([(key, certificate)])
        else:
            pairs = asyncssh.load_keypairs([key])
    except ValueError as error:
        raise AuthFailed(f"{endpoint.name}: the credential cannot be read: {error}") from None
    try:
        known_hosts = trusted(endpoint)
    except ValueError as error:
        raise HostKeyMismatch(f"{endpoint.name}: the pinned host key cannot be read: {error}") from None
    return asyncssh.SSHClientConnectionOptions(
        **COMMON, username=endpoint.username, client_keys=pairs, known_hosts=known_hosts, host_key_alias=endpoint.name
    )


async def resolve(name: str, address: str, port: int, policy: AddressPolicy, threads: Executor) -> list[Address]:
    """The addresses to connect to, each of them checked. Raises Unreachable when one is forbidden or none is known.

    What our own database and broker resolve to is asked anew each time: names move, here as well as there. `threads`
    are for the hosts' names: their nameservers may be silent, and the loop's own threads serve every login.
    """
    try:
        addresses = await _lookup(address, port, threads)
    except OSError as error:
        raise Unreachable(f"{name}: {address} has no address: {error}", hint="Check the host's name.") from None
    ours = {plain_form(known) for own in policy.own for known in await _of_our_own(name, own, port)}
    for known in addresses:
        objection = policy.objection(known)
        if objection is None and plain_form(known) in ours:
            objection = f"{known} is where this service's own database or broker is"
        if objection is not None:
            raise Unreachable(f"{name}: {objection}", hint="See the allowed networks.", forbidden_range=True)
    return addresses


async def _of_our_own(name: str, own: str, port: int) -> list[Address]:
    """Where our own server `own` is: nowhere, when its name has no address. Raises Unreachable when nobody can tell."""
    try:
        return await _lookup(own, port, None)
    except OSError as error:
        if error.errno in NO_ADDRESS:
            return []
        detail = f"{name}: the address of this service's own {own} is not known: {error}"
        raise Unreachable(detail, hint="Look at the nameservers of the service.") from None


async def _lookup(address: str, port: int, threads: Executor | None) -> list[Address]:
    """What a host name or an address stands for. Raises OSError."""
    direct = literal(address)
    if direct is not None:
        return [direct]
    ask = partial(socket.getaddrinfo, address, port, type=socket.SOCK_STREAM)
    answers = await asyncio.get_running_loop().run_in_executor(threads, ask)
    texts = dict.fromkeys(str(answer[4][0]).partition("%")[0] for answer in answers)
    return [known for known in map(literal, texts) if known is not None]


async def tcp(address: Address, port: int) -> socket.socket:
    """A connected socket on which the server has begun to speak. Raises OSError.

    Waiting for the first byte here keeps silent hosts from holding a place in the queue of logins.
    """
    loop = asyncio.get_running_loop()
    family = socket.AF_INET if address.version == 4 else socket.AF_INET6
    connection = socket.socket(family, socket.SOCK_STREAM)
    try:
        connection.setblocking(False)
        await loop.sock_connect(connection, (str(address), port))
        async with asyncio.timeout(LOGIN_TIMEOUT):
            await _readable(loop, connection)
    except BaseException:
        connection.close()
        raise
    return connection


async def _readable(loop: asyncio.AbstractEventLoop, connection: socket.socket) -> None:
    ready = loop.create_future()

    def arrived() -> None:
        loop.remove_reader(connection)
        ready.set_result(None)

    loop.add_reader(connection, arrived)
    try:
        await ready
    finally:
        loop.remove_reader(connection)


async def _way(address: Address, port: int, tunnel: asyncssh.SSHClientConnection | None) -> dict[str, Any]:
    """What asyncssh connects by: the address of a socket too, since the kernel forgets that of one that was reset."""
    named = {"host": str(address), "port": port}
    return {**named, "tunnel": tunnel} if tunnel is not None else {**named, "sock": await tcp(address, port)}


async def log_in(
    endpoint: Endpoint,
    address: Address,
    tunnel: asyncssh.SSHClientConnection | None,
    place: AbstractAsyncContextManager[None],
) -> tuple[asyncssh.SSHClientConnection, Login]:
    """One try. `place` limits how many logins run at once.

    Raises NothingSent errors only; an Unreachable has `silent` when the host did not answer in time.
    """
    watch = Login()
    try:
        async with asyncio.timeout(CONNECT_TIMEOUT):
            way = await _way(address, endpoint.port, tunnel)
        async with place:
            watch.waiting_since = monotonic()
            connection = await asyncssh.connect(
                **way, options=options_for(endpoint), config=None, client_factory=lambda: watch
            )
    except FleetError:
        raise
    except Exception as error:
        is_silent = watch.is_silent
        failure = await _explain(error, endpoint, address, tunnel, watch)
        if is_silent and isinstance(failure, Unreachable):
            failure.data["silent"] = True
        raise failure from error
    return connection, watch


async def _explain(
    error: Exception,
    endpoint: Endpoint,
    address: Address,
    tunnel: asyncssh.SSHClientConnection | None,
    watch: Login,
) -> FleetError:
    """Name the failure. A host that ends the key exchange may have no key of the kind we trust: look, before we
    call it the network."""
    if isinstance(error, asyncssh.HostKeyNotVerifiable):
        message = str(error) if endpoint.host_key or endpoint.host_ca else "no host key or host CA is set yet"
        return mismatch(endpoint, message, describe(watch.presented) if watch.presented else None)
    has_ended_early = isinstance(error, asyncssh.ConnectionLost | asyncssh.KeyExchangeFailed | ConnectionError)
    if has_ended_early and watch.has_greeted and not watch.has_verified_host:
        presented = await _other_kind(endpoint, address, tunnel)
        if presented is not None:
            return mismatch(endpoint, "it has no key of the pinned type, or no certificate of the CA", presented)
    return login_error(error, endpoint.name)


async def _other_kind(
    endpoint: Endpoint, address: Address, tunnel: asyncssh.SSHClientConnection | None
) -> HostKey | None:
    """The key of a host that has none of the kinds we trust, else None.

    One drop proves nothing: the trusted kinds are asked for twice before another kind counts.
    """
    with suppress(TimeoutError):
        async with asyncio.timeout(EXPLAIN_TIMEOUT):
            for kinds in (trusted_kinds(endpoint), trusted_kinds(endpoint), PREFERRED):
                with suppress(asyncssh.Error, OSError, ValueError):
                    presented = await look(address, endpoint.port, tunnel, kinds)
                    return presented if kinds is PREFERRED else None
    return None


def mismatch(endpoint: Endpoint, message: str, presented: HostKey | None) -> HostKeyMismatch:
    data = {"shown_fingerprint": presented.fingerprint, "shown_key": presented.host_key} if presented else {}
    return HostKeyMismatch(f"{endpoint.name}: {message}", hint=HINTS[HostKeyMismatch], **data)


async def look(
    address: Address, port: int, tunnel: asyncssh.SSHClientConnection | None, kinds: Sequence[str] = PREFERRED
) -> HostKey:
    """The host key that a server shows, before any login. Raises asyncssh.Error and OSError."""
    way = await _way(address, port, tunnel)
    options = asyncssh.SSHClientConnectionOptions(**COMMON, client_keys=None, known_hosts=([], [], []))
    key = await asyncssh.get_server_host_key(
        **way, options=options, config=None, server_host_key_algs=list(kinds), kex_algs=COMMON["kex_algs"]
    )
    if key is None:
        raise asyncssh.KeyExchangeFailed("the server showed no host key")
    return describe(key)


async def look_certified(
    address: Address, port: int, tunnel: asyncssh.SSHClientConnection | None, name: str, username: str, authority: str
) -> HostKey | None:
    """The key for which a server shows a certificate for `name`, good now, of that authority; None where it shows none.

    Nobody logs in: it ends when the server has proven the key. Raises asyncssh.Error, OSError and ValueError.
    """
    watch = Login()
    options = asyncssh.SSHClientConnectionOptions(
        **COMMON,
        username=username,
        client_keys=None,
        known_hosts=([], [asyncssh.import_public_key(authority)], []),
        host_key_alias=name,
        server_host_key_algs=[f"{kind}-cert-v01@openssh.com" for kind in PREFERRED],
    )
    way = await _way(address, port, tunnel)
    try:
        connection = await asyncssh.connect(**way, options=options, config=None, client_factory=lambda: watch)
        connection.abort()
    except (asyncssh.Error, OSError):
        if not watch.has_greeted:  # later it has no such certificate, or wants somebody to log in
            raise
    key = watch.verified_key
    return describe(key) if key is not None else None
