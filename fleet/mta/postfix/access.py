"""An access map's source as text: the administrator's lines stay untouched, ours stand in a marked region at the end.

access(5), postmap(1): a line whose first character besides white space is # is a comment, a line that begins with
white space continues the one before, the first of two entries with the same key counts.
"""

import re
from dataclasses import dataclass

from fleet.mta.address import BlockPattern, PatternKind, to_unicode
from fleet.mta.block_file import Block, BlockFile, Entry, Keys, Syntax, parse_file, render
from fleet.mta.errors import Conflict, Unsupported
from fleet.mta.operations import SenderBlock

OWN_HEAD = "# Senders that mxfleet blocks. It writes this file; do not edit.\nplaceholder.mxfleet.invalid\tDUNNO\n"

# postmap keeps white space inside double quotes as part of the key.
_ENTRY = re.compile(r'((?:"(?:\\.|[^"\\])*"|[^\s"])+)\s*(.*)', re.DOTALL)


@dataclass(frozen=True, slots=True)
class KeyRules:
    """How an instance looks senders up: postconf(5) of the same names."""

    has_subdomains: bool
    null_key: str
    has_utf8: bool


def keys_of(pattern: BlockPattern, rules: KeyRules) -> tuple[str, ...]:
    """The map keys under which smtpd looks these senders up. Raises Unsupported for what a map cannot hold."""
    if pattern.kind is PatternKind.NULL_SENDER:
        if not rules.null_key:
            raise Unsupported("smtpd_null_access_lookup_key is empty: this instance cannot look up the null sender")
        return (rules.null_key,)
    if pattern.address is not None:
        keys = _address_keys(pattern, rules)
    else:
        keys = (pattern.domain, _unicode(pattern, rules))
        if pattern.kind is PatternKind.SUBDOMAINS and not rules.has_subdomains:
            keys = (*keys, *(f".{key}" for key in keys))
    return tuple(dict.fromkeys(key.casefold() for key in keys))


def _address_keys(pattern: BlockPattern, rules: KeyRules) -> tuple[str, ...]:
    assert pattern.address is not None  # noqa: S101 - the caller has looked
    address = pattern.address
    if address.smtp.startswith("#"):
        raise Unsupported(f"{address.smtp} begins with #, which Postfix reads as a comment; it cannot be blocked here")
    if not address.local.isascii() and not rules.has_utf8:
        raise Unsupported(f"{address.smtp} needs SMTPUTF8, which is switched off here (smtputf8_enable)")
    local = address.smtp.removesuffix(f"@{address.domain}")
    return (address.smtp, f"{local}@{_unicode(pattern, rules)}")


def _unicode(pattern: BlockPattern, rules: KeyRules) -> str:
    """An SMTPUTF8 client may send the domain in U-labels, and smtpd looks up what it was sent."""
    if not rules.has_utf8:
        return pattern.domain
    return pattern.address.unicode_domain if pattern.address else to_unicode(pattern.domain)


def value_of(operation: SenderBlock) -> str:
    """The right-hand side, access(5): `5NN text`, or DISCARD."""
    if operation.action == "discard":
        return f"DISCARD {operation.text}"
    return f"{operation.code} {operation.enhanced} {operation.text}"


def parse_access(text: str, path: str, keys: Keys) -> BlockFile:
    """Take a source apart. Raises Conflict where our region was edited by hand or something continues it."""
    file = parse_file(text, path, ACCESS, keys)
    first = re.search(r"^(?!\s*#)(?=.*\S).*$", file.after, re.MULTILINE)
    if first and first[0][0].isspace():
        raise Conflict(f"{path}: the line {first[0].strip()!r} continues our last line; move it above our region")
    return file


def render_access(file: BlockFile, blocks: tuple[Block, ...], keys: Keys) -> str:
    """The source with these blocks of ours. Without any it is byte for byte what it was before the first."""
    return render(file, blocks, ACCESS, keys) or ""


def _entries(text: str, offset: int) -> tuple[Entry, ...]:
    found: list[tuple[int, str]] = []
    for number, line in enumerate(text.split("\n"), offset + 1):
        if not line.strip() or line.lstrip().startswith("#"):
            continue
        if line[0].isspace() and found:
            found[-1] = (found[-1][0], f"{found[-1][1]}\n{line}")
        elif not line[0].isspace():
            found.append((number, line))
    return tuple(_entry(number, line) for number, line in found)


def _entry(number: int, line: str) -> Entry:
    parts = _ENTRY.match(line)
    key, value = (parts[1], parts[2]) if parts else (line, "")
    return Entry(key.casefold(), value.rstrip(), number, line)


ACCESS = Syntax(_entries, has_values=True)
