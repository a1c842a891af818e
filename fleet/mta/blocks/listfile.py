"""A file that lists senders: what others wrote stays untouched, ours stand in one marked region.

The one rule of every edit: our region is cut out of the text or put back in its place, and no byte outside of it
changes, whatever stands there. A last line without an end gets one when our region follows it; that byte is taken back
only while the file is as we found it, which our first line remembers by a digest. Where it cannot be told what is ours,
nothing is changed: marks that are not one whole region, or a line inside that we did not write, are a conflict.

A line whose first character is # is a comment in every such file. Where the file has values (access maps), a line is
`key<tab>value` and the first of two with the same key counts; else a line is the key.
"""

import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from string import ascii_lowercase, ascii_uppercase

from fleet.mta.address import AddressError, parse_block_pattern
from fleet.mta.errors import Conflict
from fleet.mta.text import short_digest, split_lines

BEGIN = "# BEGIN mxfleet"
NEW = "there was no file"
OPEN = "the line above had no end"
END = "# END mxfleet"
STAYING = 3
BLANKS = " \t\v\f\r"
"""What isspace(3) takes for white space within a line, in the locale of a daemon."""

_MARK = re.compile(r"# mxfleet:(\S+) (.+)")
_BEGIN = re.compile(rf"{BEGIN}(?: \((?:({NEW})|{OPEN}(?:: ([0-9a-f]+))?)\))?")
_ASKABLE = re.compile(r"[\t -~]+")  # in one line of a script's stdin, and by postmap -q
_LOWER = str.maketrans(ascii_uppercase, ascii_lowercase)


@dataclass(frozen=True, slots=True)
class Block:
    """A block of ours: who (`pattern`, canonical), by which job, and the value, "" where the file has none.

    `is_whole`: none of its lines is missing.
    """

    pattern: str
    job: str
    value: str
    is_whole: bool = True


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
    """A source taken apart: what stands before and behind our region, and our blocks. `is_new`: we made the file.

    `above`, `below`: the entries of others there.
    """

    before: str
    after: str
    blocks: tuple[Block, ...]
    above: tuple[Entry, ...]
    below: tuple[Entry, ...] = ()
    is_new: bool = False

    @property
    def others(self) -> tuple[Entry, ...]:
        return (*self.above, *self.below)

    def block(self, pattern: str) -> Block | None:
        return next((block for block in self.blocks if block.pattern == pattern), None)


Keys = Callable[[str], tuple[str, ...]]
"""The keys of a canonical pattern. Raises Unsupported."""

Entries = Callable[[str, int], tuple[Entry, ...]]
"""The entries of a text whose first line has the number offset + 1."""


@dataclass(frozen=True, slots=True)
class Syntax:
    """How a file is written. `entries` takes the part of others apart.

    `value`: what the values that we write look like, None where lines have none. `other_keys`: keys that a pattern may
    have been written with when the instance was set up otherwise. `check`: raises Conflict where what follows our
    region, whose last line has that number, changes what ours mean.
    """

    entries: Entries
    value: re.Pattern[str] | None = None
    other_keys: Keys = lambda pattern: ()
    check: Callable[[BlockFile, str, int], None] = lambda file, path, line: None

    @property
    def has_values(self) -> bool:
        return self.value is not None

    def line(self, key: str, value: str) -> str:
        return f"{key}\t{value}\n" if self.has_values else f"{key}\n"

    def is_ours(self, line: str) -> bool:
        """Whether we may have written the line, key aside."""
        _, tab, value = line.partition("\t")
        return not tab if self.value is None else self.value.fullmatch(value) is not None


def fold(key: str) -> str:
    """As these MTAs fold keys: letters of ASCII only."""
    return key.translate(_LOWER)


def plain_entries(text: str, offset: int) -> tuple[Entry, ...]:
    """The entries of a plain list, one key per line; blanks around a key do not count."""
    return tuple(
        Entry(fold(line.strip(BLANKS)), "", number, line)
        for number, line in enumerate(text.split("\n"), offset + 1)
        if line.strip(BLANKS) and not line.lstrip(BLANKS).startswith("#")
    )


def parse_file(text: str, path: str, syntax: Syntax, keys: Keys, *, exists: bool = True) -> BlockFile:
    """Take a source apart. Raises Conflict where our region was edited by hand."""
    lines = split_lines(text)
    region = _region(lines, path)
    if region is None:
        return BlockFile(text, "", (), syntax.entries(text, 0), is_new=not exists and not text)
    first, last = region
    before, after = "".join(lines[:first]), "".join(lines[last + 1 :])
    begin = _BEGIN.match(lines[first])
    assert begin  # noqa: S101 - _region has looked
    as_found = before.removesuffix("\n")
    if not after and begin[2] == short_digest(as_found):
        before = as_found
    blocks = _blocks(lines[first + 1 : last], path, first + 1, syntax, keys)
    above, below = syntax.entries(before, 0), syntax.entries(after, last + 1)
    file = BlockFile(before, after, blocks, above, below, is_new=begin[1] is not None)
    syntax.check(file, path, last + 1)
    return file


def _region(lines: list[str], path: str) -> tuple[int, int] | None:
    """Our first and last line, counted from 0, None without any. Raises Conflict for marks that are no whole region."""
    begins = [at for at, line in enumerate(lines) if BEGIN in line]
    ends = [at for at, line in enumerate(lines) if END in line]
    marks = [at for at, line in enumerate(lines) if _MARK.match(line)]
    if not (begins or ends or marks):
        return None
    stray = sorted((*begins, *ends, *marks))
    if len(begins) == len(ends) == 1 and _is_region(lines, begins[0], ends[0]):
        stray = [at for at in marks if not begins[0] < at < ends[0]]
        if not stray:
            return begins[0], ends[0]
    named = ", ".join(str(at + 1) for at in stray[:4])
    raise Conflict(
        f"{path} line {stray[0] + 1}: our marks are damaged, doubled or out of place (lines {named}), so it cannot be "
        "told what is ours; nothing was changed",
        hint=f"put the lines from '{BEGIN}' to '{END}' back as they were, or take out each line that names mxfleet and "
        "our entries with them, and ask again",
        file=path,
        line=stray[0] + 1,
    )


def _is_region(lines: list[str], first: int, last: int) -> bool:
    begin, end = (lines[at].removesuffix("\n") for at in (first, last))
    return first < last and _BEGIN.fullmatch(begin) is not None and end == END


def render(file: BlockFile, blocks: tuple[Block, ...], syntax: Syntax, keys: Keys) -> str | None:
    """The source with these blocks of ours. Without any it is what others wrote, byte for byte; None: no file, because
    there was none and nobody else has written into it."""
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
        return f"{BEGIN} ({NEW})"
    if file.before and not file.before.endswith("\n"):
        return f"\n{BEGIN} ({OPEN}: {short_digest(file.before)})"
    return BEGIN


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


def value_by_hand(file: BlockFile, keys: tuple[str, ...]) -> str | None:
    """What the administrator's own lines say for every key; None where one has none, or they say several things."""
    first = {entry.key: entry.value for entry in reversed(file.others)}
    values = {first.get(fold(key)) for key in keys}
    return values.pop() if len(values) == 1 else None


def checks(file: BlockFile, blocks: tuple[Block, ...], keys: Keys) -> tuple[tuple[str, str], ...]:
    """(key, value) that the new map must give: ours, the removed ones (""), and up to three others that stay.

    The first line of a key counts, so one of others above ours, or one where ours was, decides instead.
    """
    above, below = _stored(file.above), _stored(file.below)
    kept = {fold(key): block.value for block in reversed(blocks) for key in keys(block.pattern)}
    gone = {fold(key): "" for block in file.blocks for key in keys(block.pattern)}
    layers: tuple[dict[str, str | None], ...] = (above, {**kept}, below, {**gone})
    expected = {key: next(layer[key] for layer in layers if key in layer) for key in (*kept, *gone)}
    staying = [(key, value) for key, value in (above | below | above).items() if value and key not in expected][
        :STAYING
    ]
    return tuple((key, value) for key, value in (*expected.items(), *staying) if value is not None)


def _stored(entries: Iterable[Entry]) -> dict[str, str | None]:
    """What these lines put into a map; None for a value that cannot be asked for."""
    stored: dict[str, str | None] = {}
    for entry in entries:
        key = entry.stored or entry.key
        is_askable = entry.value and '"' not in key and _ASKABLE.fullmatch(entry.text)
        stored.setdefault(key, entry.value if is_askable else None)
    return stored


def _folded(keys: tuple[str, ...]) -> frozenset[str]:
    return frozenset(fold(key) for key in keys)


def _blocks(lines: list[str], path: str, offset: int, syntax: Syntax, keys: Keys) -> tuple[Block, ...]:
    blocks: list[Block] = []
    values: dict[str, str] = {}
    wanted: frozenset[str] = frozenset()
    for number, line in enumerate((line.removesuffix("\n") for line in lines), offset + 1):
        mark = _MARK.fullmatch(line)
        key, _, value = line.partition("\t")
        if mark:
            _check_pattern(mark[2], path, number)
            blocks.append(Block(mark[2], mark[1], ""))
            wanted = _folded((*keys(mark[2]), *syntax.other_keys(mark[2])))
        elif syntax.is_ours(line) and fold(key) in wanted and fold(key) not in values:
            values[fold(key)] = value
        else:
            raise _edited(path, number, line)
    return tuple(whole for block in blocks if (whole := _with_value(block, keys(block.pattern), values)))


def _with_value(block: Block, keys: tuple[str, ...], values: dict[str, str]) -> Block | None:
    """A block whose keys another block wrote already has no line of its own; one whose lines are gone is no block."""
    given = [values[fold(key)] for key in keys if fold(key) in values]
    is_whole = len(given) == len(keys) and len(set(given)) == 1
    return replace(block, value=given[0], is_whole=is_whole) if given else None


def _check_pattern(pattern: str, path: str, number: int) -> None:
    try:
        parse_block_pattern(pattern)
    except AddressError as error:
        raise _edited(path, number, f"# mxfleet: {pattern}: {error.detail}") from error


def _edited(path: str, number: int, line: str) -> Conflict:
    return Conflict(
        f"{path} line {number}: our region was edited by hand, this is not ours: {line!r}; nothing was changed",
        hint=f"move that line out of the region between '{BEGIN}' and '{END}', or take it out, and ask again",
        file=path,
        line=number,
    )
