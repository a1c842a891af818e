"""Bounds of what hosts say: numbers and names that can be reckoned with, stored and shown everywhere.

A number beyond them is no number of a mail queue. It is refused where it is parsed: it would fail far from there
otherwise, together with what other hosts reported. All functions raise OutOfBounds.
"""

import re
from dataclasses import replace

from fleet.mta.errors import UnparsedOutput
from fleet.mta.records import InstanceFacts

EPOCH_MOST = 1 << 33
"""Seconds: in the year 2242. Room is left to add to it: RFC 3339 ends with the year 9999."""
SIZE_MOST = 1 << 43
"""Bytes: 8 TiB. The sum over a million messages is still a 64-bit integer."""
COUNT_MOST = (1 << 31) - 1
PORT_MOST = 65_535
ID_MOST = 64
STATE_MOST = 16
NAME_MOST = 63
VERSION_MOST = 64
PATH_MOST = 255
"""Characters, as wide as the tables' columns."""
STAT = re.compile(rb"([0-9]{1,19}) ([0-9]{1,19}\.[0-9]{1,6})[0-9]{0,13}")


class OutOfBounds(UnparsedOutput):
    """The text is no number, or a larger one than any here; or it is a longer name than any here."""


def count_of(text: str | bytes) -> int:
    """A decimal number of things, or of seconds that pass."""
    return _number(text, COUNT_MOST)


def size_of(text: str | bytes) -> int:
    """Bytes."""
    return _number(text, SIZE_MOST)


def port_of(text: str | bytes) -> int:
    """A TCP port."""
    return _number(text, PORT_MOST)


def second_of(text: str | bytes) -> int:
    """Epoch seconds."""
    return _number(text, EPOCH_MOST)


def moment_of(text: str) -> float:
    """Epoch seconds, with or without a fraction."""
    whole, point, fraction = text.partition(".")
    _number(whole, EPOCH_MOST)
    if point:
        _number(fraction, 10**19)
    return float(text)


def stat_of(text: bytes) -> tuple[int, float]:
    """Bytes, and epoch seconds to the microsecond, of "SIZE MTIME" as find(1) and stat(1) print it with a fraction.

    What is finer is cut off, as those do: the same digits name a file when it is looked at again.
    """
    match = STAT.fullmatch(text)
    if match is None:
        raise _odd(text)
    size, moment = int(match[1]), float(match[2])
    if size > SIZE_MOST or moment >= EPOCH_MOST + 1:
        raise _odd(text)
    return size, moment


def delay_of(text: str) -> float:
    """Seconds that something took, with or without a fraction."""
    return moment_of(text)


def id_of(text: str) -> str:
    """A queue ID, whatever its grammar."""
    return _within(text, ID_MOST)


def instance_of(facts: InstanceFacts) -> InstanceFacts:
    """An instance as discovery found it. Its version, which is only shown, may be cut; its name and place may not."""
    _within(facts.name, NAME_MOST)
    _within(facts.config_dir, PATH_MOST)
    return replace(facts, version=short_text(facts.version, VERSION_MOST))


def short_text(text: str, most: int) -> str:
    """A text that is only shown, cut with a mark."""
    return text if len(text) <= most else f"{text[: most - 1]}…"


def _number(text: str | bytes, most: int) -> int:
    # int() also takes signs, blanks, underscores and the digits of all scripts.
    if len(text) > 19 or not (text.isascii() and text.isdigit()):
        raise _odd(text)
    number = int(text)
    if number > most:
        raise _odd(text)
    return number


def _within(text: str, most: int) -> str:
    if len(text) > most:
        raise OutOfBounds(f"{text[:80]!r} has more than {most} characters")
    return text


def _odd(text: str | bytes) -> OutOfBounds:
    return OutOfBounds(f"{text[:40]!r} is no number that can be here")
