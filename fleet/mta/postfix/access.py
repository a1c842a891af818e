"""An access map's source as text: keys, values, and the rule of `listfile` applied to the syntax of Postfix.

access(5), postmap(1): a line whose first character besides white space is # is a comment, a line that begins with
white space continues the one before, the first of two entries with the same key counts.
"""

import re
from dataclasses import dataclass

from fleet.mta.address import BlockPattern, PatternKind, parse_block_pattern, to_unicode
from fleet.mta.blocks.listfile import BEGIN, BLANKS, BlockFile, Entry, Syntax
from fleet.mta.errors import Conflict, Unsupported
from fleet.mta.operations import SenderBlock
from fleet.mta.text import split_lines

OWN_HEAD = "# Senders that mxfleet blocks. It writes this file; do not edit.\nplaceholder.mxfleet.invalid\tDUNNO\n"

# postmap keeps white space inside double quotes as part of the key.
_ENTRY = re.compile(r'((?:"(?:\\.|[^"\\])*"|[^\s"])+)\s*(.*)', re.DOTALL | re.ASCII)


@dataclass(frozen=True, slots=True)
class KeyRules:
    """How an instance looks senders up: postconf(5) of the same names."""

    has_subdomains: bool
    null_key: str
    has_utf8: bool
    delimiters: str = ""


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


def is_ours(reply: str, value: str) -> bool:
    """`550 5.7.1 <a@b.c>: Sender address rejected: text` against the value `550 5.7.1 text`.

    What stands behind the text is a footer (smtpd_reject_footer). With soft_bounce the codes begin with 4.
    """
    code, _, rest = value.partition(" ")
    enhanced, _, text = rest.partition(" ")
    begins = tuple(f"{first}{code[1:]} {first}{enhanced[1:]} " for first in (code[:1], "4"))
    return code.isdigit() and reply.startswith(begins) and f": {text}" in reply


def wider_keys(pattern: BlockPattern, rules: KeyRules) -> tuple[str, ...]:
    """Other keys under which smtpd finds the pattern's senders, access(5)."""
    keys: list[str] = []
    domain = pattern.domain.casefold()
    if pattern.address is not None:
        local = pattern.address.smtp.removesuffix(f"@{pattern.address.domain}").casefold()
        bases = [local[:at] for at, char in enumerate(local) if at and char in rules.delimiters]
        keys = [*(f"{base}@{domain}" for base in bases), *(f"{each}@" for each in (local, *bases)), domain]
    labels = domain.split(".")
    parents = [".".join(labels[at:]) for at in range(1, len(labels))]
    return (*keys, *(each if rules.has_subdomains else f".{each}" for each in parents))


def _refuse_continued(file: BlockFile, path: str, end: int) -> None:
    """Raises Conflict where a line behind our region, which ends in line `end`, continues our last one."""
    lines = enumerate(split_lines(file.after), end + 1)
    number, first = next(((number, line) for number, line in lines if not _is_skipped(line)), (0, "-"))
    if first[0] in BLANKS:
        raise Conflict(
            f"{path} line {number} begins with white space, so it continues our last line: {first.strip()!r}",
            hint=f"move it to the line that it belongs to, or above '{BEGIN}', and ask again",
            file=path,
            line=number,
        )


def _is_skipped(line: str) -> bool:
    """Whether postmap leaves the line out: an empty one, or a comment. It does not end the one before."""
    stripped = line.strip(f"{BLANKS}\n")
    return not stripped or stripped.startswith("#")


def _entries(text: str, offset: int) -> tuple[Entry, ...]:
    numbered: list[tuple[int, str]] = []
    for number, line in enumerate(text.split("\n"), offset + 1):
        if _is_skipped(line):
            continue
        if line[0] not in BLANKS:
            numbered.append((number, line))
        elif numbered:
            numbered[-1] = (numbered[-1][0], f"{numbered[-1][1]}\n{line}")
    return tuple(_entry(number, line) for number, line in numbered)


def _entry(number: int, line: str) -> Entry:
    parts = _ENTRY.match(line)
    key, value = (parts[1], parts[2]) if parts else (line, "")
    return Entry(key.casefold(), value.rstrip(f"{BLANKS}\n"), number, line)


def _widest_keys(pattern: str) -> tuple[str, ...]:
    """All keys that a pattern can have, however the instance was set up when we wrote it."""
    return keys_of(parse_block_pattern(pattern), KeyRules(has_subdomains=False, null_key="<>", has_utf8=True))


VALUE = re.compile(r"[245]\d\d [245]\.\d+\.\d+ .+|DISCARD.*")
ACCESS = Syntax(_entries, VALUE, _widest_keys, _refuse_continued)
