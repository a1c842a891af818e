"""Texts of others, counts, sizes, ages and shares, as people read them."""

import re
from collections.abc import Sequence

CELL = 75
"""Characters of a text that others chose."""
SHOWN = 3
"""Of groups, notes and instances that are named; of the others how many they are."""
HIDDEN = re.compile(
    "[\x00-\x1f\x7f-\x9f\xad\u034f\u061c\u115f\u1160\u17b4\u17b5\u180b-\u180f\u200b-\u200f\u2028-\u202e\u2060-\u206f"
    "\u2800\u3164\ud800-\udfff\ufe00-\ufe0f\ufeff\uffa0\ufff0-\ufffb\U0001bca0-\U0001bca3\U0001d173-\U0001d17a"
    "\U000e0000-\U000e0fff]"
)
"""Controls, and what changes the direction of a text or is not seen: Unicode's Default_Ignorable_Code_Point, and the
empty Braille pattern."""


def cell(text: str, longest: int = CELL) -> str:
    """A text of others on one line: what is not seen is spelled out (`\\u202e`), the middle of a long one left out."""
    shown = HIDDEN.sub(lambda found: f"\\u{ord(found[0]):04x}", text)
    return shown if len(shown) <= longest else f"{shown[: longest - 25]}…{shown[-24:]}"


def number(value: int) -> str:
    """4,812."""
    return f"{value:,}"


def count(value: int, one: str, many: str = "") -> str:
    """1 message, 4,812 messages; `many` where it is not just an s more."""
    return f"{number(value)} {one if value == 1 else many or one + 's'}"


def size(octets: int) -> str:
    """34 MiB, rounded down."""
    for power, unit in ((40, "TiB"), (30, "GiB"), (20, "MiB"), (10, "KiB")):
        if octets >= 1 << power:
            whole = octets >> power
            return f"{whole} {unit}" if whole >= 10 else f"{(octets * 10 >> power) / 10:.1f} {unit}"
    return count(octets, "byte")


def age(seconds: float) -> str:
    """6 h, rounded down."""
    for length, unit in ((86_400, "d"), (3600, "h"), (60, "min")):
        if seconds >= length:
            return f"{int(seconds // length)} {unit}"
    return f"{max(0, int(seconds))} s"


def share(part: int, whole: int) -> str:
    """98 %, never all or nothing that is not."""
    percent = part * 100 // whole if whole else 0
    return "under 1 %" if part and not percent else f"{percent} %"


def time_of(text: str) -> str:
    """2026-11-30 14:03:22 UTC, of a time as answers have it."""
    return f"{text[:10]} {text[11:19]} UTC"


def named(names: Sequence[str], total: int | None = None) -> str:
    """mx1, mx2, mx3 and 4 more; `total`: how many there are where not all are given."""
    first = ", ".join(cell(name) for name in names[:SHOWN])
    rest = (len(names) if total is None else total) - len(names[:SHOWN])
    return f"{first} and {number(rest)} more" if rest > 0 else first
