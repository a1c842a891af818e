"""Addresses as qmail stores them: without brackets and quoting, those of virtual domains with their prepend."""

import re

from fleet.mta.address import quote_local
from fleet.mta.qmail.virtual import Virtual
from fleet.mta.records import Recipient
from fleet.mta.text import text_of

HIDDEN_BYTE = re.compile(rb"\\x([89A-F][0-9A-F])")


def address_of(raw: bytes) -> str:
    """RFC 5321 form of an address as qmail stores it: without brackets and quoting.

    Bytes that are no UTF-8 as \\xHH. An empty one is the null sender. qmail's own "#@[]" (sender of a double bounce)
    and "-@[]" (a sender per recipient) stay as they are.
    """
    text = text_of(raw)
    if not text:
        return "<>"
    local, at, domain = text.rpartition("@")
    if not at or domain == "[]" or raw_of(raw) is not None:
        return text
    return f"{quote_local(local)}@{domain}"


def bytes_of(sender: str, raw: bytes | None = None) -> bytes:
    """What qmail has stored for a sender that `address_of` shows so; `raw` when it is known."""
    if raw is not None:
        return raw
    if sender == "<>":
        return b""
    local, at, domain = sender.rpartition("@")
    if at and local.startswith('"') and domain != "[]":
        return (re.sub(r"\\(.)", r"\1", local[1:-1]) + at + domain).encode()
    return HIDDEN_BYTE.sub(lambda match: bytes.fromhex(match[1].decode()), sender.encode())


def raw_of(raw: bytes) -> bytes | None:
    """The bytes themselves when the text cannot say them."""
    try:
        raw.decode("utf-8")
    except UnicodeDecodeError:
        return raw
    return None


def recipient_of(raw: bytes, state: str, virtual: Virtual) -> Recipient:
    """A recipient by the address that people know, and the one that qmail-send wrote where it is another."""
    address = address_of(raw)
    if not virtual.prepends or raw_of(raw) is not None:
        return Recipient(address, state=state)
    known = address_of(virtual.known(raw.decode()).encode())
    return Recipient(known, state=state, raw="" if known == address else address)
