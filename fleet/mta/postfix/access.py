"""An access map's source as text: the administrator's lines stay untouched, ours stand in a marked region at the end.

access(5), postmap(1): a line whose first character besides white space is # is a comment, a line that begins with
white space continues the one before, the first of two entries with the same key counts.
"""

import re
from collections.abc import Callable
from dataclasses import dataclass, replace

from fleet.mta.address import AddressError, BlockPattern, PatternKind, parse_block_pattern, to_unicode
from fleet.mta.errors import Conflict, Unsupported
from fleet.mta.operations import SenderBlock

BEGIN = "# BEGIN mxfleet"
BEGIN_JOINED = "# BEGIN mxfleet (the line above had no end)"
END = "# END mxfleet"
OWN_HEAD = "# Senders that mxfleet blocks. It writes this file; do not edit.\nplaceholder.mxfleet.invalid\tDUNNO\n"

_MARK = re.compile(r"# mxfleet:(\S+) (.+)")
_REGION = re.compile(
    rf"^({re.escape(BEGIN_JOINED)}|{re.escape(BEGIN)})\n(.*?)^{re.escape(END)}\n", re.MULTILINE | re.DOTALL
)
# postmap keeps white space inside double quotes as part of the key.
_ENTRY = re.compile(r'((?:"(?:\\.|[^"\\])*"|[^\s"])+)\s*(.*)', re.DOTALL)


@dataclass(frozen=True, slots=True)
class Block:
    """A block of ours: who (`pattern`, canonical), by which job, and the map value."""

    pattern: str
    job: str
    value: str


@dataclass(frozen=True, slots=True)
class Entry:
    """An entry of the administrator. `key` folded as postmap does, `line`: its number, `text` as written."""

    key: str
    value: str
    line: int
    text: str


@dataclass(frozen=True, slots=True)
class AccessFile:
    """A source taken apart: what stands before and behind our region, and our blocks."""

    before: str
    after: str
    blocks: tuple[Block, ...]
    others: tuple[Entry, ...]

    def block(self, pattern: str) -> Block | None:
        return next((block for block in self.blocks if block.pattern == pattern), None)


@dataclass(frozen=True, slots=True)
class KeyRules:
    """How an instance looks senders up: postconf(5) of the same names."""

    has_subdomains: bool
    null_key: str
    has_utf8: bool


Keys = Callable[[str], tuple[str, ...]]


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


def parse_access(text: str, path: str, keys: Keys) -> AccessFile:
    """Take a source apart. Raises Conflict where our region was edited by hand or something continues it."""
    regions = list(_REGION.finditer(text))
    if not regions:
        if BEGIN in text or END in text:
            raise Conflict(
                f"{path}: the marks of our region are damaged", hint="remove the lines with 'mxfleet' by hand"
            )
        return AccessFile(text, "", (), _entries(text, 0))
    if len(regions) > 1:
        raise Conflict(f"{path}: our marked region stands there twice", hint="remove one of them by hand")
    region = regions[0]
    before, after = text[: region.start()], text[region.end() :]
    if region[1] == BEGIN_JOINED:
        before = before.removesuffix("\n")
    first = re.search(r"^(?!\s*#)(?=.*\S).*$", after, re.MULTILINE)
    if first and first[0][0].isspace():
        raise Conflict(f"{path}: the line {first[0].strip()!r} continues our last line; move it above our region")
    offset = text[: region.end()].count("\n")
    blocks = _blocks(region[2], path, text[: region.start(2)].count("\n"), keys)
    return AccessFile(before, after, blocks, (*_entries(before, 0), *_entries(after, offset)))


def render(file: AccessFile, blocks: tuple[Block, ...], keys: Keys) -> str:
    """The source with these blocks of ours. Without any it is byte for byte what it was before the first."""
    if not blocks:
        return file.before + file.after
    written: set[str] = set()
    lines = []
    for block in blocks:
        lines.append(f"# mxfleet:{block.job} {block.pattern}\n")
        for key in keys(block.pattern):
            if key not in written:
                written.add(key)
                lines.append(f"{key}\t{block.value}\n")
    is_joined = bool(file.before) and not file.before.endswith("\n")
    begin = f"\n{BEGIN_JOINED}" if is_joined else BEGIN
    return f"{file.before}{begin}\n{''.join(lines)}{END}\n{file.after}"


def with_block(file: AccessFile, block: Block, keys: Keys, path: str) -> tuple[Block, ...]:
    """Our blocks and one more. Raises Conflict where the administrator's line, or another of ours, decides already."""
    wanted = set(keys(block.pattern))
    for entry in file.others:
        if entry.key in wanted:
            raise Conflict(
                f"{path} line {entry.line} already decides about {entry.key}: {entry.text!r}",
                hint="that line is the administrator's; change it by hand or leave it",
                file=path,
                line=entry.line,
            )
    kept = tuple(other for other in file.blocks if other.pattern != block.pattern)
    for other in kept:
        if other.value != block.value and wanted & set(keys(other.pattern)):
            raise Conflict(f"{other.pattern} is blocked with another answer under the same key ({other.value})")
    return (*kept, block)


def same_by_hand(file: AccessFile, keys: tuple[str, ...], value: str) -> bool:
    """Whether the administrator's own lines already say exactly this for every key."""
    first: dict[str, str] = {}
    for entry in file.others:
        first.setdefault(entry.key, entry.value)
    return all(first.get(key) == value for key in keys)


def checks(file: AccessFile, blocks: tuple[Block, ...], keys: Keys) -> tuple[tuple[str, str], ...]:
    """(key, value) that the new map must give: ours, the removed ones (""), and up to three others that stay."""
    expected = {key: block.value for block in reversed(blocks) for key in keys(block.pattern)}
    for block in file.blocks:
        for key in keys(block.pattern):
            expected.setdefault(key, "")
    others: dict[str, str] = {}
    for entry in file.others:
        if "\n" not in entry.text and entry.value and entry.key.isascii() and '"' not in entry.key:
            others.setdefault(entry.key, entry.value)
    staying = [(key, value) for key, value in others.items() if key not in expected][:3]
    return (*expected.items(), *staying)


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


def _blocks(region: str, path: str, offset: int, keys: Keys) -> tuple[Block, ...]:
    blocks: list[Block] = []
    values: dict[str, str] = {}
    for number, line in enumerate(region.splitlines(), offset + 1):
        mark = _MARK.fullmatch(line)
        key, tab, value = line.partition("\t")
        if mark:
            _ours(mark[2], path, number)
            blocks.append(Block(mark[2], mark[1], ""))
        elif tab and key and value and blocks and not line.startswith(("#", " ")):
            values[key] = value
        else:
            raise Conflict(f"{path} line {number}: our region was edited by hand: {line!r}", file=path, line=number)
    # A block whose keys another block wrote already has no line of its own; one whose lines are gone is no block.
    found = [replace(block, value=next(filter(None, map(values.get, keys(block.pattern))), "")) for block in blocks]
    return tuple(block for block in found if block.value)


def _ours(pattern: str, path: str, number: int) -> None:
    try:
        parse_block_pattern(pattern)
    except AddressError as error:
        raise Conflict(f"{path} line {number}: our region was edited by hand: {error.detail}") from error
