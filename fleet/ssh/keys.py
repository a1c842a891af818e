"""Private keys as people paste them.

A protected key itself names how many rounds its passphrase costs, and may name 2**32. So it is opened by this module
run as a program, whose time the kernel bounds: the passphrase is a line of JSON on its standard input, then the key.
"""

import json
import resource
import subprocess
import sys
from pathlib import Path

import asyncssh

MOST_BYTES = 64 * 1024
MOST_SECONDS = 5
"""CPU time to open a protected key; `ssh-keygen -a 100` costs about one second."""
REFUSED = 3
"""Exit status of the program when the key cannot be opened; its output says why."""
SMALLEST_RSA = 2048
PUBLIC_TYPES = ("ssh-", "ecdsa-", "sk-", "---- BEGIN SSH2 PUBLIC KEY", "-----BEGIN PUBLIC KEY", "-----BEGIN RSA PUBLIC")


class UnusableKey(ValueError):
    """The private key cannot be used. `reason` says why and what would be right; it never contains the key."""

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason


def load_private_key(pem: str | bytes, passphrase: str | None = None) -> tuple[bytes, str]:
    """The key without its passphrase (OpenSSH PEM) and its public key line "TYPE BASE64". Raises UnusableKey."""
    text = _text(pem)
    key = _read(_opened(text, passphrase) if passphrase else text, None)
    _refuse_weak(key)
    public = " ".join(key.export_public_key().decode("ascii").split()[:2])
    return key.export_private_key("openssh"), public


def _read(text: str, passphrase: str | None) -> asyncssh.SSHKey:
    try:
        return asyncssh.import_private_key(text, passphrase)
    except ValueError as error:
        raise UnusableKey(_reason(error, bool(passphrase))) from None


def _opened(text: str, passphrase: str) -> str:
    """The key without its passphrase, opened in a process of its own."""
    done = subprocess.run(
        [sys.executable, "-m", __name__, str(MOST_SECONDS)],
        input=f"{json.dumps(passphrase)}\n{text}",
        capture_output=True,
        cwd=Path(__file__).parents[2],
        text=True,
    )
    if done.returncode == REFUSED:
        raise UnusableKey(done.stdout)
    if done.returncode < 0:
        detail = (
            f"opening it takes more than {MOST_SECONDS} s of CPU: protect it with fewer rounds (ssh-keygen -p -a 100)"
        )
        raise UnusableKey(detail)
    done.check_returncode()
    return done.stdout


def main() -> int:
    """Open the key that comes on standard input, within the seconds of CPU that the argument names."""
    seconds = int(sys.argv[1])
    resource.setrlimit(resource.RLIMIT_CPU, (seconds, seconds))
    passphrase = json.loads(sys.stdin.readline())
    try:
        print(_read(sys.stdin.read(), passphrase).export_private_key("openssh").decode("ascii"), end="")
    except UnusableKey as error:
        print(error.reason, end="")
        return REFUSED
    return 0


def _reason(error: ValueError, has_passphrase: bool) -> str:
    message = str(error).lower()
    if "bcrypt" in message:
        return "keys in this protected form need the Python package bcrypt, which is not installed here"
    if not has_passphrase and "passphrase" in message:
        return "the key is protected, and its passphrase is missing"
    if isinstance(error, asyncssh.KeyEncryptionError):
        return "the passphrase is wrong"
    if has_passphrase:
        return "the passphrase is wrong, or the key is cut off or altered"
    return "not a private key that can be read: cut off or altered"


def _text(pem: str | bytes) -> str:
    if len(pem) > MOST_BYTES:
        raise UnusableKey(f"longer than {MOST_BYTES} bytes")
    try:
        text = pem.decode("ascii") if isinstance(pem, bytes) else pem
        text.encode("ascii")
    except UnicodeError:
        raise UnusableKey("contains characters that are not ASCII: paste the key file's text") from None
    if "\r" in text:
        raise UnusableKey("has Windows line ends (CRLF): convert it, for instance with dos2unix, and paste it again")
    if text.lstrip().startswith(PUBLIC_TYPES):
        raise UnusableKey("this is a public key: the private one begins with -----BEGIN OPENSSH PRIVATE KEY-----")
    if "PRIVATE KEY-----" not in text:
        raise UnusableKey("not a private key in PEM form: it begins with -----BEGIN ... PRIVATE KEY-----")
    return text


def _refuse_weak(key: asyncssh.SSHKey) -> None:
    algorithm = key.get_algorithm()
    if algorithm == "ssh-dss":
        raise UnusableKey("DSA keys are no longer accepted by OpenSSH: use Ed25519")
    if algorithm == "ssh-rsa":
        bits: int = getattr(key.pyca_key, "key_size", 0)
        if bits < SMALLEST_RSA:
            raise UnusableKey(f"RSA with {bits} bits is too short: use Ed25519, or RSA with at least {SMALLEST_RSA}")


if __name__ == "__main__":
    sys.exit(main())
