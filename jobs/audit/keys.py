"""The Ed25519 keys of the audit checkpoints, each derived from a key of `MXFLEET_KEY_FILE` and named by its id.

A line that leaves the key file takes with it the proof of the checkpoints that it signed, unless its public key
(`public_key()`) was kept: that is what the offline verifier needs.
"""

import base64

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from fleet.secrets import derive, load_keys

PURPOSE = "mxfleet-audit-checkpoint-v1"


def sign(content: bytes) -> str:
    """`KEYID:BASE64` with the current key. Raises fleet.secrets.SecretError."""
    key_id, key = next(iter(load_keys().items()))
    return f"{key_id}:{base64.b64encode(_signer(key).sign(content)).decode()}"


def public_keys() -> dict[str, bytes]:
    """The 32 bytes of each public key by its id, the current one first. Raises fleet.secrets.SecretError."""
    return {key_id: _signer(key).public_key().public_bytes_raw() for key_id, key in load_keys().items()}


def public_key() -> str:
    """The same as text, a line `KEYID BASE64` each: the file that `python -m jobs.audit.verify --pub` reads."""
    return "".join(f"{key_id} {base64.b64encode(key).decode()}\n" for key_id, key in public_keys().items())


def _signer(key: bytes) -> Ed25519PrivateKey:
    return Ed25519PrivateKey.from_private_bytes(derive(key, PURPOSE))
