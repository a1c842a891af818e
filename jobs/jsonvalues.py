"""Texts as every database keeps them: what hosts and messages say may hold bytes that PostgreSQL refuses."""

import re
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

UNSTORABLE = re.compile("[\0\ud800-\udfff]")


def storable(value: Any) -> Any:
    """A copy of JSON types without NUL and lone surrogates (bytes that were no UTF-8): as \\xHH, as in the API."""
    if isinstance(value, str):
        return UNSTORABLE.sub(_escaped, value) if UNSTORABLE.search(value) else value
    if isinstance(value, dict):
        return {storable(name): storable(item) for name, item in value.items()}
    if isinstance(value, list | tuple):
        return [storable(item) for item in value]
    return value


def _escaped(found: re.Match[str]) -> str:
    code = ord(found[0])
    is_byte = code == 0 or 0xDC80 <= code <= 0xDCFF
    return f"\\x{code & 0xFF:02x}" if is_byte else f"\\u{code:04x}"


NAMES = frozenset(
    {"arrival_time", "first_time", "last_time", "next_attempt", "oldest_at", "since", "taken_at", "time", "until"}
)


def rfc3339(seconds: float) -> str:
    """`2026-11-20T10:59:40Z`, with microseconds where there are any."""
    return datetime.fromtimestamp(seconds, UTC).isoformat().replace("+00:00", "Z")


def shown(result: Mapping[str, Any]) -> Any:
    """What an adapter tells of an operation, as a run's `result` is kept: `places` are for our own records only."""
    return storable(readable({name: value for name, value in result.items() if name != "places"}))


def readable(value: Any) -> Any:
    """A copy of a result in which every time is RFC 3339."""
    if isinstance(value, dict):
        return {name: _readable_item(name, item) for name, item in value.items()}
    if isinstance(value, list | tuple):
        return [readable(item) for item in value]
    return value


def _readable_item(name: str, value: Any) -> Any:
    if name in NAMES and isinstance(value, int | float):
        return rfc3339(value)
    return readable(value)
