"""Edits of a list of senders by others, and what must be left of their bytes whatever we do meanwhile.

`Others` changes the file as editors and shells do: by appending, in place, or by a new file under the old name. What
they write knows nothing of our marks. `theirs` is the test's own reading of a file, independent of the product's.
"""

import random
import re
from collections.abc import Callable, Collection
from dataclasses import dataclass, field
from pathlib import Path

BEGIN = re.compile(rb"# BEGIN mxfleet( \(.*\))?")
END = b"# END mxfleet"
MARK = re.compile(rb"# mxfleet:\S+ .+")
ODD = (
    b"# caf\xe9 of 1998\n",
    b"# \xe2\x82\xac 5\n",
    b"# nothing\0here\n",
    b"\n",
    b" \t\n",
    b"# no end mark\r\n",
    b"\x0c\n",
    b"# a\rb\rc\n",
    b"# END mxfleet\n",
    b"# BEGIN mxfleet\n",
    b"# mxfleet:job-9 x@y.test\n",
)
"""Lines that any list may have: other encodings, other line ends, and halves of our marks."""


def lines_of(content: bytes) -> list[bytes]:
    """Its lines with their ends; only a line feed ends one."""
    return re.findall(rb"[^\n]*\n|[^\n]+", content)


def theirs(content: bytes, ours: Collection[bytes]) -> bytes:
    """The file without our region. `ours`: the entries that we may have written, each a line without its end."""
    kept, is_inside = [], False
    for line in lines_of(content):
        bare = line.removesuffix(b"\n")
        if BEGIN.fullmatch(bare):
            is_inside = True
        elif bare == END:
            is_inside = False
        elif not (is_inside and (bare in ours or MARK.fullmatch(bare))):
            kept.append(line)
    return b"".join(kept)


def is_clean(content: bytes, ours: Collection[bytes]) -> bool:
    """Whether it can be told what is ours: no marks at all, or one region without repeated entries."""
    bare = [line.removesuffix(b"\n") for line in lines_of(content)]
    begins = [at for at, line in enumerate(bare) if b"# BEGIN mxfleet" in line]
    ends = [at for at, line in enumerate(bare) if END in line]
    marks = [at for at, line in enumerate(bare) if MARK.match(line)]
    if not begins and not ends:
        return not marks
    if len(begins) != 1 or len(ends) != 1 or not begins[0] < ends[0]:
        return False
    inside = bare[begins[0] + 1 : ends[0]]
    entries = [line for line in inside if not MARK.fullmatch(line)]
    is_ours = set(entries) <= set(ours) and len(set(entries)) == len(entries)
    return is_ours and all(begins[0] < at < ends[0] for at in marks)


@dataclass
class Others:
    """Whoever else edits the file at `path`. `entry`: a line of the list, with its end, by a number. `then`: what they
    do after an edit, such as building the map."""

    chance: random.Random
    path: Path
    entry: Callable[[random.Random], bytes]
    then: Callable[[], None] = lambda: None
    copies: list[bytes] = field(default_factory=list)
    edits: int = 0

    def content(self) -> bytes:
        return self.path.read_bytes() if self.path.exists() else b""

    def line(self) -> bytes:
        return self.entry(self.chance) if self.chance.random() < 0.75 else self.chance.choice(ODD)

    def edit(self) -> None:
        """One edit, whatever it is."""
        self.edits += 1
        old = self.content()
        if self.chance.random() < 0.02:
            self.path.unlink(missing_ok=True)
        else:
            self.write(old, self.chance.choice(FORMS)(self, old))
        self.copies.append(old)
        self.then()

    def write(self, old: bytes, new: bytes) -> None:
        way = self.chance.random()
        if new.startswith(old) and way < 0.6:
            with self.path.open("ab") as file:
                file.write(new[len(old) :])
        elif way < 0.5:
            self.path.write_bytes(new)
        else:
            beside = self.path.with_name(f".{self.path.name}.swp")
            beside.write_bytes(new)
            beside.rename(self.path)

    def append(self, old: bytes) -> bytes:
        end = b"" if not old or old.endswith(b"\n") else b"\n"
        line = self.line()
        return old + end + (line.rstrip(b"\n") if self.chance.random() < 0.3 else line)

    def insert(self, old: bytes) -> bytes:
        lines = lines_of(old)
        at = self.chance.randint(0, len(lines))
        if at and not lines[at - 1].endswith(b"\n"):
            lines[at - 1] += b"\n"
        return b"".join([*lines[:at], self.line(), *lines[at:]])

    def delete(self, old: bytes) -> bytes:
        lines = lines_of(old)
        if lines:
            del lines[self.chance.randrange(len(lines))]
        return b"".join(lines)

    def replace(self, old: bytes) -> bytes:
        lines = lines_of(old)
        if lines:
            lines[self.chance.randrange(len(lines))] = self.line()
        return b"".join(lines)

    def repeat(self, old: bytes) -> bytes:
        lines = lines_of(old)
        if lines:
            lines.insert(self.chance.randint(0, len(lines)), self.chance.choice(lines).rstrip(b"\n") + b"\n")
        return b"".join(lines)

    def reorder(self, old: bytes) -> bytes:
        """Their own lines in another order, or, now and then, all of them."""
        lines = [line.rstrip(b"\n") + b"\n" for line in lines_of(old)]
        if self.chance.random() < 0.3:
            return b"".join(self.chance.choice([sorted, lambda found: found[::-1]])(lines))
        begin = next((at for at, line in enumerate(lines) if BEGIN.match(line)), len(lines))
        above = lines[:begin]
        self.chance.shuffle(above)
        return b"".join([*above, *lines[begin:]])

    def ends(self, old: bytes) -> bytes:
        """Other line ends, all over or only at the end."""
        form = self.chance.randrange(6)
        if form == 0:
            return old.replace(b"\r\n", b"\n").replace(b"\n", b"\r\n")
        if form == 1:
            return old.replace(b"\n", b"\r")
        if form == 2:
            return old.replace(b"\r\n", b"\n")
        return old.removesuffix(b"\n") if form < 5 else old + b"\n"

    def encoding(self, old: bytes) -> bytes:
        if old.startswith(b"\xef\xbb\xbf"):
            return old[3:]
        return b"\xef\xbb\xbf" + old

    def stale(self, old: bytes) -> bytes:
        """An editor that was opened earlier, or a backup."""
        return self.chance.choice(self.copies) if self.copies else old

    def without_ours(self, old: bytes) -> bytes:
        """As docs/by-hand.md tells."""
        return re.sub(rb"(?ms)^# BEGIN mxfleet.*?^# END mxfleet\n", b"", old)

    def double(self, old: bytes) -> bytes:
        return old + old

    def empty(self, old: bytes) -> bytes:
        return b""


FORMS: tuple[Callable[[Others, bytes], bytes], ...] = (
    *(Others.append,) * 6,
    *(Others.insert,) * 5,
    *(Others.delete,) * 2,
    *(Others.replace,) * 2,
    *(Others.reorder,) * 2,
    *(Others.ends,) * 2,
    Others.repeat,
    Others.encoding,
    Others.stale,
    Others.without_ours,
    Others.double,
    Others.empty,
)
