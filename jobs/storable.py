"""Texts as every database keeps them: what hosts and messages say may hold bytes that PostgreSQL refuses."""

import re
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
