"""A file that lists senders: the administrator's lines stay untouched, ours stand in a marked region at the end.

A line whose first character is # is a comment in every such file. Where the file has values (access maps), a line is
`key<tab>value` and the first of two with the same key counts; else a line is the key.
"""

import re
from collections.abc import Callable
from dataclasses import dataclass, replace
from string import ascii_lowercase, ascii_uppercase

from fleet.mta.address import AddressError, parse_block_pattern
from fleet.mta.errors import Conflict

BEGIN = "# BEGIN mxfleet"
BEGIN_JOINED = "# BEGIN mxfleet (the line above had no end)"
BEGIN_NEW = "# BEGIN mxfleet (there was no file)"
END = "# END mxfleet"
STAYING = 3

_MARK = re.compile(r"# mxfleet:(\S+) (.+)")
_LOWER = str.maketrans(ascii_uppercase, ascii_lowercase)
_REGION = re.compile(
    rf"^({re.escape(BEGIN_JOINED)}|{re.escape(BEGIN_NEW)}|{re.escape(BEGIN)})\n(.*?)^{re.escape(END)}\n",
    re.MULTILINE | re.DOTALL,
)


@dataclass(frozen=True, slots=True)
class Block:
    """A block of ours: who (`pattern`, canonical), by which job, and the value, "" where the file has none."""

    pattern: str
    job: str
    value: str


@dataclass(frozen=True, slots=True)
class Entry:
    """An entry of the administrator.

    `key`: the key of ours that it decides about, folded; `stored`: its own key where that is another. `line`: its
    number, `text` as written.
    """

    key: str
    value: str
    line: int
    text: str
    stored: str = ""


@dataclass(frozen=True, slots=True)
class BlockFile:
    """A source taken apart: what stands before and behind our region, and our blocks. `is_new`: we made the file."""

    before: str
    after: str
    blocks: tuple[Block, ...]
    others: tuple[Entry, ...]
    is_new: bool = False

    def block(self, pattern: str) -> Block | None:
        return next((block for block in self.blocks if block.pattern == pattern), None)


Keys = Callable[[str], tuple[str, ...]]
"""The keys of a canonical pattern. Raises Unsupported."""

Entries = Callable[[str, int], tuple[Entry, ...]]
"""The entries of a text whose first line has the number offset + 1."""


@dataclass(frozen=True, slots=True)
class Syntax:
    """How a file is written. `entries` takes the administrator's part apart; `has_values`: lines are key<tab>value."""

    entries: Entries
    has_values: bool = False

    def line(self, key: str, value: str) -> str:
        return f"{key}\t{value}\n" if self.has_values else f"{key}\n"


def fold(key: str) -> str:
    """As these MTAs fold keys: letters of ASCII only."""
    return key.translate(_LOWER)


def plain_entries(text: str, offset: int) -> tuple[Entry, ...]:
    """The entries of a plain list, one key per line; blanks around a key do not count."""
    return tuple(
        Entry(fold(line.strip()), "", number, line)
        for number, line in enumerate(text.split("\n"), offset + 1)
        if line.strip() and not line.lstrip().startswith("#")
    )


def parse_file(text: str, path: str, syntax: Syntax, keys: Keys, *, exists: bool = True) -> BlockFile:
    """Take a source apart. Raises Conflict where our region was edited by hand."""
    regions = list(_REGION.finditer(text))
    if not regions:
        if BEGIN in text or END in text:
            raise Conflict(
                f"{path}: the marks of our region are damaged", hint="remove the lines with 'mxfleet' by hand"
            )
        return BlockFile(text, "", (), syntax.entries(text, 0), is_new=not exists and not text)
    if len(regions) > 1:
        raise Conflict(f"{path}: our marked region stands there twice", hint="remove one of them by hand")
    region = regions[0]
    before, after = text[: region.start()], text[region.end() :]
    if region[1] == BEGIN_JOINED:
        before = before.removesuffix("\n")
    offset = text[: region.end()].count("\n")
    blocks = _blocks(region[2], path, text[: region.start(2)].count("\n"), syntax, keys)
    others = (*syntax.entries(before, 0), *syntax.entries(after, offset))
    return BlockFile(before, after, blocks, others, region[1] == BEGIN_NEW)


def render(file: BlockFile, blocks: tuple[Block, ...], syntax: Syntax, keys: Keys) -> str | None:
    """The source with these blocks of ours. Without any it is byte for byte what it was before the first; None: no
    file, because there was none and nobody else has written into it."""
    if not blocks:
        rest = file.before + file.after
        return rest if rest or not file.is_new else None
    written: set[str] = set()
    lines = []
    for block in blocks:
        lines.append(f"# mxfleet:{block.job} {block.pattern}\n")
        for key in keys(block.pattern):
            if fold(key) not in written:
                written.add(fold(key))
                lines.append(syntax.line(key, block.value))
    return f"{file.before}{_begin(file)}\n{''.join(lines)}{END}\n{file.after}"


def _begin(file: BlockFile) -> str:
    if file.is_new:
        return BEGIN_NEW
    return f"\n{BEGIN_JOINED}" if file.before and not file.before.endswith("\n") else BEGIN


def with_block(file: BlockFile, block: Block, keys: Keys, path: str) -> tuple[Block, ...]:
    """Our blocks and one more. Raises Conflict where the administrator's line, or another of ours, decides already."""
    wanted = _folded(keys(block.pattern))
    for entry in file.others:
        if entry.key in wanted:
            raise Conflict(
                f"{path} line {entry.line} already decides about {entry.key}: {entry.text!r}",
                hint="that line is the administrator's; change it by hand or leave it",
                file=path,
                line=entry.line,
            )
    kept = without_block(file, block.pattern)
    for other in kept:
        if other.value != block.value and wanted & _folded(keys(other.pattern)):
            raise Conflict(f"{other.pattern} is blocked with another answer under the same key ({other.value})")
    return (*kept, block)


def without_block(file: BlockFile, pattern: str) -> tuple[Block, ...]:
    return tuple(block for block in file.blocks if block.pattern != pattern)


def same_by_hand(file: BlockFile, keys: tuple[str, ...], value: str) -> bool:
    """Whether the administrator's own lines already say exactly this for every key."""
    first: dict[str, str] = {}
    for entry in file.others:
        first.setdefault(entry.key, entry.value)
    return all(first.get(fold(key)) == value for key in keys)


def checks(file: BlockFile, blocks: tuple[Block, ...], keys: Keys) -> tuple[tuple[str, str], ...]:
    """(key, value) that the new map must give: ours, the removed ones (""), and up to three others that stay."""
    expected = {fold(key): block.value for block in reversed(blocks) for key in keys(block.pattern)}
    for block in file.blocks:
        for key in keys(block.pattern):
            expected.setdefault(fold(key), "")
    others: dict[str, str] = {}
    for entry in file.others:
        key = entry.stored or entry.key
        if "\n" not in entry.text and entry.value and key.isascii() and '"' not in key:
            others.setdefault(key, entry.value)
    staying = [(key, value) for key, value in others.items() if key not in expected][:STAYING]
    return (*expected.items(), *staying)


def _folded(keys: tuple[str, ...]) -> frozenset[str]:
    return frozenset(fold(key) for key in keys)


def _blocks(region: str, path: str, offset: int, syntax: Syntax, keys: Keys) -> tuple[Block, ...]:
    blocks: list[Block] = []
    values: dict[str, str] = {}
    for number, line in enumerate(region.splitlines(), offset + 1):
        mark = _MARK.fullmatch(line)
        key, tab, value = line.partition("\t")
        if mark:
            _ours(mark[2], path, number)
            blocks.append(Block(mark[2], mark[1], ""))
        elif blocks and key and not key.startswith(("#", " ")) and (bool(tab and value) is syntax.has_values):
            values[fold(key)] = value
        else:
            raise Conflict(f"{path} line {number}: our region was edited by hand: {line!r}", file=path, line=number)
    # A block whose keys another block wrote already has no line of its own; one whose lines are gone is no block.
    found = []
    for block in blocks:
        folded = [fold(key) for key in keys(block.pattern)]
        found.append((block, [values[key] for key in folded if key in values]))
    return tuple(replace(block, value=there[0]) for block, there in found if there)


def _ours(pattern: str, path: str, number: int) -> None:
    try:
        parse_block_pattern(pattern)
    except AddressError as error:
        raise Conflict(f"{path} line {number}: our region was edited by hand: {error.detail}") from error
