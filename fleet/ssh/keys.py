"""Private keys as people paste them."""

import asyncssh

MOST_BYTES = 64 * 1024
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
    try:
        key = asyncssh.import_private_key(text, passphrase or None)
    except ValueError as error:
        raise UnusableKey(_reason(error, bool(passphrase))) from None
    _refuse_weak(key)
    public = " ".join(key.export_public_key().decode("ascii").split()[:2])
    return key.export_private_key("openssh"), public


def _reason(error: ValueError, has_passphrase: bool) -> str:
    said = str(error).lower()
    if "bcrypt" in said:
        return "keys in this protected form need the Python package bcrypt, which is not installed here"
    if not has_passphrase and "passphrase" in said:
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
