"""Files of hosts, CSV (RFC 4180) and JSON lines, read into the rows that a serializer checks one by one."""

import csv
import io
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, TypedDict

from django.http import HttpRequest
from rest_framework.parsers import BaseParser

from api.errors import Problem
from api.limits import body_limit
from api.parsers import parse, read_body
from api.v1.serializers.fleet import LABEL_KEY
from jobs.errors import FieldError

MOST_ROWS = 5000
DELIMITERS = (",", ";", "\t")
LABELS = "labels."
INTEGER = re.compile(r"-?[0-9]{1,15}", re.ASCII)
FLAGS = {"true": True, "false": False}


class Row(TypedDict):
    """`line`: where it begins in the file, from 1. `wrong`: (column, code, detail) of each cell that cannot be read;
    an empty column means the row as such, of which nothing is known then."""

    line: int
    values: Any
    wrong: list[tuple[str, str, str]]


def _integer(text: str) -> int:
    if not INTEGER.fullmatch(text):
        raise ValueError(f"expected a number, got {text[:40]!r}")
    return int(text)


def _flag(text: str) -> bool:
    if text not in FLAGS:
        raise ValueError(f"expected true or false, got {text[:40]!r}")
    return FLAGS[text]


COLUMNS: Mapping[str, Callable[[str], Any]] = {
    "name": str,
    "customer": str,
    "address": str,
    "port": _integer,
    "username": str,
    "credential": str,
    "host_key": str,
    "host_ca": str,
    "old_fingerprint": str,
    "become": str,
    "jump_host": str,
    "site": str,
    "enabled": _flag,
}
"""How the cells of each column are read. Besides, each label has one: `labels.role`."""


class RowsParser(BaseParser):
    """A file as a list of Row. Raises Problem: 400, 413, 415, and 422 for a header."""

    def parse(self, stream: Any, media_type: str | None = None, parser_context: Mapping[str, Any] | None = None) -> Any:
        _check_charset(stream)
        rows: list[Row] = []
        for row in self.rows(_text(read_body(stream, body_limit(stream.path)))):
            if len(rows) == MOST_ROWS:
                raise Problem(413, "too_large", f"a file has at most {MOST_ROWS} hosts")
            rows.append(row)
        if not rows:
            raise nothing()
        return rows

    def rows(self, text: str) -> Iterator[Row]:
        """The rows of a file."""
        raise NotImplementedError


class CsvParser(RowsParser):
    """Comma, semicolon or tab between the cells, whichever the header has. An empty cell leaves its field out."""

    media_type = "text/csv"

    def rows(self, text: str) -> Iterator[Row]:
        lines = _Cells(text)
        columns = next(lines, None)
        if columns is None:
            return
        if isinstance(columns, str):
            raise Problem(422, "invalid", f"the header cannot be read: {columns}")
        _check_columns(columns)
        for cells in lines:
            if isinstance(cells, str):
                yield Row(line=lines.line, values={}, wrong=[("", "invalid", cells)])
            else:
                yield _row(lines.line, columns, cells)


class JsonLinesParser(RowsParser):
    """One JSON object a line."""

    media_type = "application/x-ndjson"

    def rows(self, text: str) -> Iterator[Row]:
        for number, line in enumerate(text.split("\n"), 1):
            if line.strip():
                yield _json_row(number, line.encode())


class _Cells:
    """The lines of a CSV file that have content, as lists of cells; what cannot be read is the last one, as a text.

    `line`: where the last one began; one with a quoted line feed takes several.
    """

    def __init__(self, text: str) -> None:
        header = text.lstrip("\r\n").partition("\n")[0]
        delimiter = max(DELIMITERS, key=header.count)
        self._reader = csv.reader(io.StringIO(text, newline=""), delimiter=delimiter, strict=True)
        self._is_broken = False
        self.line = 0

    def __iter__(self) -> "_Cells":
        return self

    def __next__(self) -> list[str] | str:
        while not self._is_broken:
            self.line = self._reader.line_num + 1
            try:
                cells = next(self._reader)
            except csv.Error as error:
                self._is_broken = True
                told = "a quote does not end" if str(error) == "unexpected end of data" else str(error)
                return f"{told}; nothing after it was read"
            if any(cells):
                return cells
        raise StopIteration


def nothing() -> Problem:
    """422 for a file without rows."""
    return Problem(422, "invalid", "the file has no rows", errors=(FieldError("", "required", "the file has no rows"),))


def _check_charset(request: HttpRequest) -> None:
    charset = (request.content_params or {}).get("charset", "utf-8").lower()
    if charset not in ("utf-8", "utf8"):
        raise Problem(415, "unsupported_media_type", "send the file in UTF-8")


def _text(raw: bytes) -> str:
    """The file without the byte order mark that spreadsheets write."""
    try:
        return raw.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = raw.count(b"\n", 0, error.start) + 1
        detail = f"not UTF-8 at byte {error.start + 1}, in line {line}; a spreadsheet's choice is called CSV UTF-8"
        raise Problem(400, "bad_request", detail) from None


def _check_columns(columns: Sequence[str]) -> None:
    """Raise Problem 422 that names each column that is not known, or stands twice."""
    wrong = []
    seen: set[str] = set()
    for index, name in enumerate(columns):
        if name in seen:
            wrong.append(FieldError(f"columns[{index}]", "duplicate", f"the column {name[:100]!r} stands twice"))
        elif name.startswith(LABELS) and not re.fullmatch(LABEL_KEY[0], name.removeprefix(LABELS)):
            wrong.append(FieldError(f"columns[{index}]", "invalid", f"expected {LABEL_KEY[1]} after {LABELS}"))
        elif not name.startswith(LABELS) and name not in COLUMNS:
            detail = f"there is no column {name[:100]!r}; known: {', '.join(COLUMNS)}, and labels.NAME"
            wrong.append(FieldError(f"columns[{index}]", "unknown_field", detail))
        seen.add(name)
    if wrong:
        raise Problem(422, "invalid", wrong[0].detail, errors=tuple(wrong))


def _row(line: int, columns: Sequence[str], cells: Sequence[str]) -> Row:
    row = Row(line=line, values={}, wrong=[])
    if len(cells) != len(columns):
        row["wrong"].append(("", "invalid", f"{len(cells)} cells, where the header has {len(columns)}"))
        return row
    for name, cell in zip(columns, cells, strict=True):
        if not cell:
            continue
        if name.startswith(LABELS):
            row["values"].setdefault("labels", {})[name.removeprefix(LABELS)] = cell
            continue
        try:
            row["values"][name] = COLUMNS[name](cell)
        except ValueError as error:
            row["wrong"].append((name, "wrong_type", str(error)))
    return row


def _json_row(number: int, line: bytes) -> Row:
    try:
        return Row(line=number, values=parse(line), wrong=[])
    except Problem as problem:
        return Row(
            line=number, values={}, wrong=[("", "invalid", problem.detail.replace(" at line 1, column", " at column"))]
        )
