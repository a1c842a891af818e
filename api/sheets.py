"""CSV (RFC 4180) that a spreadsheet may open: no cell of it is a formula, whoever wrote what is in it."""

from collections.abc import Iterable

FORMULAS = ("=", "+", "-", "@", "\t", "\r", "\n", "＝", "＋", "－", "＠")
"""What spreadsheets begin a formula with (OWASP, "CSV Injection"), as it is and in full width."""


def row(cells: Iterable[object]) -> str:
    """A line. None is an empty cell; a text that would be a formula has an apostrophe before it."""
    return ",".join(map(_cell, cells)) + "\r\n"


def _cell(value: object) -> str:
    text = "" if value is None else str(value)
    if isinstance(value, str) and text.startswith(FORMULAS):
        text = f"'{text}"
    return '"{}"'.format(text.replace('"', '""'))
