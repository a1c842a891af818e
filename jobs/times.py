"""Adapters reckon in epoch seconds; what is stored for people and programs is RFC 3339 in UTC."""

from datetime import UTC, datetime
from typing import Any

NAMES = frozenset({"arrival_time", "next_attempt", "oldest_at", "taken_at", "time", "since", "until"})


def rfc3339(seconds: float) -> str:
    """`2026-11-20T10:59:40Z`, with microseconds where there are any."""
    return datetime.fromtimestamp(seconds, UTC).isoformat().replace("+00:00", "Z")


def readable(value: Any) -> Any:
    """A copy of a result in which every time is RFC 3339."""
    if isinstance(value, dict):
        return {name: _one(name, item) for name, item in value.items()}
    if isinstance(value, list | tuple):
        return [readable(item) for item in value]
    return value


def _one(name: str, value: Any) -> Any:
    if name in NAMES and isinstance(value, int | float):
        return rfc3339(value)
    return readable(value)
