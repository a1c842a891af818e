"""Sizes in bytes (powers of 1024) and durations in seconds, as people write them. One canonical spelling each."""

from fleet.match.errors import MatchError

_SIZES = {"K": 1 << 10, "M": 1 << 20, "G": 1 << 30, "T": 1 << 40}
_DURATIONS = {"s": 1, "m": 60, "h": 3600, "d": 86400}
_LIMIT = 1 << 62
_DIGITS = 19


def parse_size(text: str) -> int:
    """Bytes of `1024`, `64K`, `30M`, `1G` or `2T`. Raises MatchError 'invalid'."""
    unit = text[-1:].upper()
    digits = text[:-1] if unit in _SIZES else text
    return _number(digits, _SIZES.get(unit, 1), "a size such as 30M (bytes, K, M, G or T)", text)


def parse_duration(text: str) -> int:
    """Seconds of `90s`, `15m`, `4h` or `7d`; the unit is never left out. Raises MatchError 'invalid'."""
    expected = "a duration such as 4h (s, m, h or d)"
    if text[-1:] not in _DURATIONS:
        raise MatchError("invalid", f"expected {expected}, got {excerpt(text)}")
    return _number(text[:-1], _DURATIONS[text[-1]], expected, text)


def parse_count(text: str) -> int:
    """A whole number of at least 0. Raises MatchError 'invalid'."""
    return _number(text, 1, "a whole number", text)


def render_size(size: int) -> str:
    """The largest unit that leaves a whole number."""
    return _largest(size, _SIZES) if size else "0"


def render_duration(seconds: int) -> str:
    """The largest unit that leaves a whole number."""
    return _largest(seconds, _DURATIONS) if seconds else "0s"


def excerpt(text: str) -> str:
    """A piece of the input for an error message: short, on one line, without control characters."""
    cut = text if len(text) <= 40 else text[:40] + "..."
    return "'" + "".join(char if char.isprintable() else f"\\u{ord(char):04x}" for char in cut) + "'"


def _number(digits: str, factor: int, expected: str, text: str) -> int:
    # isdecimal alone would take Arabic digits, which nobody would recognise in an audit log.
    if not (digits.isascii() and digits.isdecimal() and len(digits) <= _DIGITS) or int(digits) * factor > _LIMIT:
        raise MatchError("invalid", f"expected {expected}, got {excerpt(text) if text else 'nothing'}")
    return int(digits) * factor


def _largest(number: int, units: dict[str, int]) -> str:
    for name, factor in sorted(units.items(), key=lambda unit: -unit[1]):
        if number % factor == 0:
            return f"{number // factor}{name}"
    return str(number)
