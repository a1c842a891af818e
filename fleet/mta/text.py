"""Bytes of others as a text, spelled alike for every MTA: addresses, headers and log lines."""

import re

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
    return LONE_BYTE.sub(lambda found: f"\\x{ord(found[0]) - 0xDC00:02X}", text)
