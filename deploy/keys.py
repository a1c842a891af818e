"""The key material of a data directory: made once on a first start, checked on every start.

Standard library only, so that each process may import it before Django.
"""

import base64
import binascii
import os
import re
import secrets
from pathlib import Path

SECRET_KEY = "secret-key"  # noqa: S105 - a file's name
KEY_FILE = "credential-keys"
KEY_ID = re.compile(r"[A-Za-z0-9_-]{1,32}")
RIGHT = (
    'a file of mode 0600 with lines KEYID BASE64(32 random bytes), for example of: echo "k1 $(openssl rand -base64 32)"'
)


def prepare(data: Path, *, makes_keys: bool) -> None:
    """Make the data directory (0700) and what is missing of its keys. Safe when several processes start at once."""
    data.mkdir(mode=0o700, parents=True, exist_ok=True)
    if data.stat().st_mode & 0o077:
        data.chmod(0o700)
    if makes_keys and not (data / KEY_FILE).exists():
        key = base64.b64encode(secrets.token_bytes(32)).decode()
        _create_once(data / KEY_FILE, f"k{secrets.token_hex(3)} {key}\n".encode())


def secret_key(data: Path) -> str:
    """Django's secret key in the data directory, made where there is none."""
    path = data / SECRET_KEY
    if not path.exists():
        data.mkdir(mode=0o700, parents=True, exist_ok=True)
        _create_once(path, secrets.token_urlsafe(48).encode() + b"\n")
    return path.read_text(encoding="ascii").strip()


def check_key_file(path: Path) -> None:
    """Raises ValueError or OSError unless each line is an id and the base64 of 32 bytes, ids once each."""
    _refuse_open_mode(path)
    ids: list[str] = []
    for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), 1):
        words = line.split()
        if not words or words[0].startswith("#"):
            continue
        try:
            is_key = (
                len(words) == 2 and KEY_ID.fullmatch(words[0]) and len(base64.b64decode(words[1], validate=True)) == 32
            )
        except binascii.Error:
            is_key = False
        if not is_key:
            raise ValueError(f"{path} line {number} is no key")
        ids.append(words[0])
    if not ids or len(set(ids)) != len(ids):
        raise ValueError(f"{path} holds {'a key id twice' if ids else 'no key'}")


def _refuse_open_mode(path: Path) -> None:
    mode = path.stat().st_mode & 0o777
    if mode & 0o007:
        raise ValueError(f"{path} has mode {mode:04o}: everybody may use the key")


def _create_once(path: Path, content: bytes) -> None:
    """Write `path` (0600) whole or not at all, and never over an existing one: whoever links first wins."""
    draft = path.with_name(f".{path.name}.{os.getpid()}.{secrets.token_hex(4)}")
    descriptor = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        os.link(draft, path)
    except FileExistsError:
        pass
    finally:
        draft.unlink()
