"""Pasted private keys: usable, or refused with the reason and without a word of their content."""

import base64
import subprocess
from pathlib import Path

import asyncssh
import pytest

from fleet.ssh import keys
from fleet.ssh.keys import UnusableKey, load_private_key

ED25519 = asyncssh.generate_private_key("ssh-ed25519")
PLAIN = ED25519.export_private_key("openssh").decode()
LOCKED = ED25519.export_private_key("pkcs8-pem", "secret").decode()


def public(key: asyncssh.SSHKey) -> str:
    return " ".join(key.export_public_key().decode().split()[:2])


@pytest.mark.parametrize(("pem", "passphrase"), [(PLAIN, None), (PLAIN.encode(), ""), (LOCKED, "secret")])
def test_a_usable_key_comes_back_open_with_its_public_line(pem: str | bytes, passphrase: str | None) -> None:
    opened, line = load_private_key(pem, passphrase)
    assert line == public(ED25519)
    assert asyncssh.import_private_key(opened) == ED25519


def test_a_key_that_ssh_keygen_protected_opens_with_its_passphrase(tmp_path: Path) -> None:
    path = tmp_path / "key"
    subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "secret", "-f", str(path)], check=True)
    opened, line = load_private_key(path.read_text(), "secret")
    assert path.with_suffix(".pub").read_text().startswith(line)
    assert b"ENCRYPTED" not in opened
    for passphrase, reason in ((None, "missing"), ("wrong", "wrong")):
        with pytest.raises(UnusableKey, match=reason):
            load_private_key(path.read_text(), passphrase)


def test_a_key_that_would_take_years_to_open_is_refused_in_time(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(keys, "MOST_SECONDS", 1)

    def field(content: bytes) -> bytes:
        return len(content).to_bytes(4, "big") + content

    salt_and_rounds = field(b"s" * 16) + (1 << 31).to_bytes(4, "big")
    one = (1).to_bytes(4, "big")
    parts = [b"openssh-key-v1\0", field(b"aes256-ctr"), field(b"bcrypt"), field(salt_and_rounds), one, field(b"")]
    content = base64.encodebytes(b"".join(parts) + field(b"0" * 64)).decode()
    pem = f"-----BEGIN OPENSSH PRIVATE KEY-----\n{content}-----END OPENSSH PRIVATE KEY-----\n"
    with pytest.raises(UnusableKey, match="fewer rounds"):
        load_private_key(pem, "secret")


@pytest.mark.parametrize("form", ["pkcs8-pem", "openssh"])
def test_ecdsa_and_long_rsa_keys_are_usable(form: str) -> None:
    for key in (
        asyncssh.generate_private_key("ecdsa-sha2-nistp256"),
        asyncssh.generate_private_key("ssh-rsa", key_size=2048),
    ):
        assert load_private_key(key.export_private_key(form))[1] == public(key)


@pytest.mark.parametrize(
    ("pem", "passphrase", "reason"),
    [
        (LOCKED, None, "passphrase is missing"),
        (LOCKED, "wrong", "passphrase is wrong"),
        (asyncssh.generate_private_key("ssh-rsa", key_size=1024).export_private_key("openssh"), None, "1024 bits"),
        (asyncssh.generate_private_key("ssh-dss").export_private_key("openssh"), None, "DSA"),
        (public(ED25519), None, "public key"),
        (PLAIN.replace("\n", "\r\n"), None, "CRLF"),
        (PLAIN[:200], None, "PEM|read"),
        (PLAIN.replace("b3Bl", "AAAA"), None, "read"),
        ("", None, "PEM"),
        ("hello", None, "PEM"),
        (PLAIN + "é", None, "ASCII"),
        (b"\xff\xfe", None, "ASCII"),
        ("x" * 100_000, None, "longer"),
    ],
)
def test_an_unusable_key_is_refused_with_the_reason(pem: str | bytes, passphrase: str | None, reason: str) -> None:
    with pytest.raises(UnusableKey, match=reason) as caught:
        load_private_key(pem, passphrase)
    text = pem if isinstance(pem, str) else pem.decode("latin-1")
    assert caught.value.__cause__ is None
    for part in text.split("\n")[1:3]:
        assert not part or part not in caught.value.reason
