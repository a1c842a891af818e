"""Envelope encryption of what we must keep and may not show: AES-256-GCM, bound to the one place where it lies.

Every value has a data key of its own; that one is wrapped with the installation's key from `MXFLEET_KEY_FILE`. Both
layers authenticate the place (customer, table, row, field) and the key's id, so a sealed text that is copied to another
row does not open there (NIST SP 800-38D, additional authenticated data).

The key file has one key per line, `KEYID BASE64` (32 bytes); the first seals, all of them open. Empty lines and lines
that begin with `#` are passed over. An old line stays as long as something is sealed with it
(`manage.py rotate_keys`).
"""

import base64
import binascii
import os
import re
import stat
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF
from django.conf import settings

if TYPE_CHECKING:
    from fleet.models import Credential

KEY_BYTES = 32
NONCE_BYTES = 12
VERSION = "v1"
KEY_ID = re.compile(r"[A-Za-z0-9_-]{1,32}")


class SecretError(Exception):
    """A key or a sealed value cannot be used. The text names file, key id and place, never the content."""

    code = "secret_unusable"


def key_file() -> Path:
    """Where the installation's keys lie."""
    return Path(settings.ENV.key_file)


def load_keys() -> dict[str, bytes]:
    """The keys by id, the current one first. Read anew each time, so that a rotation needs no restart.

    Raises SecretError when the file is missing, empty, or has a line that is no key.
    """
    path = key_file()
    try:
        lines = path.read_text("ascii").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise SecretError(f"key file {path} cannot be read: {type(error).__name__}") from error
    keys: dict[str, bytes] = {}
    for number, line in enumerate(lines, 1):
        if line.strip() and not line.startswith("#"):
            key_id, key = _parse_line(line, f"{path} line {number}")
            if key_id in keys:
                raise SecretError(f"{path} line {number}: key id {key_id} is there twice")
            keys[key_id] = key
    if not keys:
        raise SecretError(f"key file {path} has no key")
    return keys


def _parse_line(line: str, place: str) -> tuple[str, bytes]:
    parts = line.split()
    if len(parts) != 2 or not KEY_ID.fullmatch(parts[0]):
        raise SecretError(f"{place}: a line must be KEYID BASE64, KEYID of letters, digits, _ and -")
    try:
        key = base64.b64decode(parts[1], validate=True)
    except binascii.Error as error:
        raise SecretError(f"{place}: key {parts[0]} is not base64") from error
    if len(key) != KEY_BYTES:
        raise SecretError(f"{place}: key {parts[0]} has {len(key)} bytes instead of {KEY_BYTES}")
    return parts[0], key


def derive(key: bytes, purpose: str) -> bytes:
    """32 bytes for another purpose than sealing, which tell nothing of the key (HKDF, RFC 5869)."""
    return HKDF(algorithm=SHA256(), length=KEY_BYTES, salt=None, info=purpose.encode()).derive(key)


def seal(plaintext: bytes, *, customer: str, table: str, row: str, field: str) -> str:
    """`v1.KEYID.WRAPPED_DATA_KEY.CIPHERTEXT` for that place, with the current key. Raises SecretError."""
    key_id, key = next(iter(load_keys().items()))
    aad = _aad(customer, table, row, field, key_id)
    data_key = AESGCM.generate_key(KEY_BYTES * 8)
    return ".".join((VERSION, key_id, _encrypt(key, data_key, aad), _encrypt(data_key, plaintext, aad)))


def open_sealed(text: str, *, customer: str, table: str, row: str, field: str) -> bytes:
    """What was sealed for that place. Raises SecretError: unknown key, changed text, or sealed for another place."""
    place = f"{field} of {table} {row}"
    parts = text.split(".")
    if len(parts) != 4 or parts[0] != VERSION:
        raise SecretError(f"{place} is not a sealed value")
    _, key_id, wrapped, body = parts
    key = load_keys().get(key_id)
    if key is None:
        raise SecretError(f"{place} is sealed with key {key_id!r}, which is not in {key_file()}")
    aad = _aad(customer, table, row, field, key_id)
    try:
        return _decrypt(_decrypt(key, wrapped, aad), body, aad)
    except (InvalidTag, ValueError) as error:
        raise SecretError(
            f"{place} does not open with key {key_id}: wrong key, changed text, or sealed for another row"
        ) from error


def seal_credential(credential: "Credential", pem: bytes) -> None:
    """Put the private key, sealed, into `credential.private_key` (not saved). A new name needs a new sealing."""
    credential.private_key = seal(pem, **credential_place(credential))


def open_credential(credential: "Credential") -> bytes:
    """The PEM of the private key. Raises SecretError."""
    return open_sealed(credential.private_key, **credential_place(credential))


def credential_place(credential: "Credential") -> dict[str, str]:
    """The place that a credential's key is bound to. By name, because the row has no number before it is written."""
    return {
        "customer": str(credential.customer_id),
        "table": "fleet_credential",
        "row": credential.name,
        "field": "private_key",
    }


def check_key() -> None:
    """Whether the key file can be used: the self-test of every start. Raises SecretError, naming file and key id."""
    path = key_file()
    load_keys()
    if path.stat().st_mode & stat.S_IRWXO:
        raise SecretError(f"key file {path} is open to everybody: chmod o= {path}")
    place = {"customer": "", "table": "self-test", "row": "", "field": ""}
    if open_sealed(seal(b"self-test", **place), **place) != b"self-test":
        raise SecretError(f"key file {path}: the first key does not open what it sealed")


def check_credentials(credentials: Iterable["Credential"]) -> int:
    """Open each and forget it: shows a wrong or missing key before it is needed. How many; raises SecretError."""
    return sum(1 for credential in credentials if open_credential(credential))


def _aad(*parts: str) -> bytes:
    # Length before each part: "a|b" + "c" and "a" + "b|c" must not be the same place.
    return b"".join(len(part.encode()).to_bytes(4, "big") + part.encode() for part in parts)


def _encrypt(key: bytes, plaintext: bytes, aad: bytes) -> str:
    nonce = os.urandom(NONCE_BYTES)
    return _encode(nonce + AESGCM(key).encrypt(nonce, plaintext, aad))


def _decrypt(key: bytes, text: str, aad: bytes) -> bytes:
    raw = base64.b64decode(text, validate=True)
    return AESGCM(key).decrypt(raw[:NONCE_BYTES], raw[NONCE_BYTES:], aad)


def _encode(raw: bytes) -> str:
    return base64.b64encode(raw).decode()
