"""Pinned host keys and host CAs. There is no way to say "accept any"."""

import binascii
from base64 import b64decode
from dataclasses import dataclass

import asyncssh

from fleet.ssh.endpoint import Endpoint

MOST_BYTES = 16 * 1024
# Asked for in this order when a key is looked at for the first time.
PREFERRED = (
    "ssh-ed25519",
    "ecdsa-sha2-nistp256",
    "ecdsa-sha2-nistp384",
    "ecdsa-sha2-nistp521",
    "rsa-sha2-512",
    "rsa-sha2-256",
)
TYPES = frozenset({"ssh-ed25519", "ecdsa-sha2-nistp256", "ecdsa-sha2-nistp384", "ecdsa-sha2-nistp521", "ssh-rsa"})

Trusted = tuple[list[asyncssh.SSHKey], list[asyncssh.SSHKey], list[asyncssh.SSHKey]]


@dataclass(frozen=True)
class HostKey:
    """A key that a host showed. It is not trusted by that: a person compares the fingerprint.

    `host_key`: "TYPE BASE64". `fingerprint`: "SHA256:...", as ssh-keygen -l prints it. `algorithm`: the TYPE.
    """

    host_key: str
    fingerprint: str
    algorithm: str


def parse_host_key(text: str) -> str:
    """The normalised line "TYPE BASE64" of a public host key or host CA key. Raises ValueError with the reason."""
    if len(text) > MOST_BYTES:
        raise ValueError(f"longer than {MOST_BYTES} characters: give one public key line")
    lines = [line for line in text.splitlines() if line.strip()]
    if len(lines) != 1:
        raise ValueError(f"{len(lines)} lines: give exactly one public key line, TYPE BASE64")
    fields = lines[0].split()
    _refuse_other_kinds(lines[0], fields)
    return f"{fields[0]} {fields[1]}"


def fingerprint(line: str) -> str:
    """That of a line which `parse_host_key` made, as ssh-keygen -l prints it: "SHA256:..."."""
    return asyncssh.import_public_key(line).get_fingerprint()


def _refuse_other_kinds(line: str, fields: list[str]) -> None:
    kind = fields[0]
    if kind.startswith("@"):
        raise ValueError(f"{kind} is a known_hosts marker: give the public key line alone, TYPE BASE64")
    if kind not in TYPES:
        if len(fields) > 1 and fields[1] in TYPES:
            raise ValueError("this is a known_hosts line: leave out the host name or pattern in front of the key type")
        if "-cert-v01@" in kind:
            raise ValueError("this is a certificate: give the public key of the CA that signed it")
        raise ValueError(f"{kind[:40]!r} is no host key type: expected one of {', '.join(sorted(TYPES))}")
    if len(fields) < 2:
        raise ValueError("the key itself is missing after its type")
    try:
        blob = b64decode(fields[1], validate=True)
        key = asyncssh.import_public_key(f"{kind} {fields[1]}")
    except (binascii.Error, ValueError) as error:
        raise ValueError(f"the key after {kind} cannot be read: cut off or altered") from error
    if key.get_algorithm() != kind or key.public_data != blob:
        raise ValueError(f"the key is of type {key.get_algorithm()}, and the line says {kind}")


def describe(key: asyncssh.SSHKey) -> HostKey:
    line = " ".join(key.export_public_key().decode("ascii").split()[:2])
    return HostKey(host_key=line, fingerprint=key.get_fingerprint(), algorithm=key.get_algorithm())


def trusted(endpoint: Endpoint) -> Trusted:
    """What asyncssh takes as known_hosts: (host keys, CA keys, revoked keys). Never None, which would trust anybody.

    With neither a pinned key nor a CA the lists are empty, and every host is refused. Raises ValueError when a line
    cannot be read.
    """
    pinned = [asyncssh.import_public_key(parse_host_key(endpoint.host_key))] if endpoint.host_key else []
    authorities = [asyncssh.import_public_key(parse_host_key(endpoint.host_ca))] if endpoint.host_ca else []
    return pinned, authorities, []


def trusted_kinds(endpoint: Endpoint) -> tuple[str, ...]:
    """The algorithms by which the host could prove itself: those of the pinned key's type, and certificates'."""
    kinds: tuple[str, ...] = ()
    if endpoint.host_ca:
        kinds += tuple(f"{kind}-cert-v01@openssh.com" for kind in PREFERRED)
    if endpoint.host_key:
        pinned = endpoint.host_key.split()[0]
        kinds += ("rsa-sha2-512", "rsa-sha2-256") if pinned == "ssh-rsa" else (pinned,)
    return kinds
