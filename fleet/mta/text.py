"""Bytes of others as a text, spelled alike for every MTA: addresses, headers and log lines."""

import re
from hashlib import sha256

LONE_BYTE = re.compile("[\udc80-\udcff]")
"""A byte that is no UTF-8, as `surrogateescape` decodes it (PEP 383)."""


def text_of(raw: bytes) -> str:
    """UTF-8, with every byte that is none as \\xHH in capitals."""
    try:
        return raw.decode("utf-8")
    except UnicodeDecodeError:
        return escape_bytes(raw.decode("utf-8", "surrogateescape"))


def escape_bytes(text: str) -> str:
    """The same for a text that was decoded with `surrogateescape`."""
    return LONE_BYTE.sub(lambda match: f"\\x{ord(match[0]) - 0xDC00:02X}", text)


def split_lines(text: str) -> list[str]:
    """Its lines with their ends. Only a line feed ends one, for an MTA as for a shell; str.splitlines knows more."""
    return re.findall(r"[^\n]*\n|[^\n]+", text)


def digest_of(text: str) -> str:
    """sha256, in hex, of the bytes that were decoded with `surrogateescape`."""
    return sha256(text.encode("utf-8", "surrogateescape")).hexdigest()


def short_digest(text: str) -> str:
    """16 digits of it: for a mark that we leave in somebody's file, to know later whether a text is the same."""
    return digest_of(text)[:16]
