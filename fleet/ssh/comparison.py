"""What proves that a key is a host's own, or that it is not. Nothing is trusted by it."""

from base64 import b64decode, b64encode
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from enum import StrEnum
from hashlib import sha256

from fleet.ssh.endpoint import literal
from fleet.ssh.hostkeys import HostKey, parse_host_key
from fleet.ssh.sshfp import Nameserver, Unproven, fingerprints_of

LookUp = Callable[[str, str, Nameserver], tuple[bytes, ...]]


class Verdict(StrEnum):
    MATCHES = "matches"
    DIFFERS = "differs"
    UNPROVEN = "unproven"


@dataclass(frozen=True, slots=True)
class Evidence:
    """What one source says of a key that was shown. `expected`: its fingerprints, as ssh-keygen -l prints them."""

    by: str
    verdict: Verdict
    expected: tuple[str, ...] = ()
    detail: str = ""


def verdict_of(evidence: Iterable[Evidence]) -> Verdict:
    """All together: one that differs outweighs whatever matches."""
    verdicts = {each.verdict for each in evidence}
    return next((each for each in (Verdict.DIFFERS, Verdict.MATCHES) if each in verdicts), Verdict.UNPROVEN)


def fingerprint_of(text: str) -> str:
    """ "SHA256:..." of a fingerprint or a public key line. Raises ValueError."""
    if text.startswith("SHA256:"):
        digest = text.removeprefix("SHA256:").rstrip("=")
        if len(digest) != 43 or len(b64decode(f"{digest}=", validate=True)) != 32:
            raise ValueError("the fingerprint is cut off: SHA256: and 43 characters are expected")
        return f"SHA256:{digest}"
    return _printed(sha256(b64decode(parse_host_key(text).split()[1])).digest())


def by_list(key: HostKey, expected: Sequence[str]) -> Evidence:
    """`expected`: fingerprints that somebody gave."""
    verdict = Verdict.MATCHES if key.fingerprint in expected else Verdict.DIFFERS
    return Evidence("list", verdict, tuple(expected))


def by_sshfp(key: HostKey, address: str, servers: Sequence[Nameserver], look_up: LookUp = fingerprints_of) -> Evidence:
    """By DNS, of the first nameserver by which something is proven."""
    if literal(address) is not None:
        return Evidence("sshfp", Verdict.UNPROVEN, detail="the host's address is no name, so DNS has no record of it")
    reasons = []
    for server in servers:
        try:
            expected = tuple(_printed(each) for each in look_up(address, key.algorithm, server))
        except Unproven as error:
            reasons.append(str(error))
            continue
        return Evidence("sshfp", Verdict.MATCHES if key.fingerprint in expected else Verdict.DIFFERS, expected)
    return Evidence("sshfp", Verdict.UNPROVEN, detail="; ".join(dict.fromkeys(reasons)) or "no nameserver is known")


def by_authority(key: HostKey, certified: HostKey | None) -> Evidence:
    """`certified`: the key for which the host showed a certificate of its CA, or None."""
    if certified is None:
        detail = "the host shows no certificate of its CA that is good for its name now"
        return Evidence("host_ca", Verdict.UNPROVEN, detail=detail)
    if certified.host_key == key.host_key:
        return Evidence("host_ca", Verdict.MATCHES, (certified.fingerprint,))
    detail = "the certificate is of another key of the host than the one shown first"
    return Evidence("host_ca", Verdict.UNPROVEN, (certified.fingerprint,), detail)


def _printed(digest: bytes) -> str:
    return f"SHA256:{b64encode(digest).decode().rstrip('=')}"
