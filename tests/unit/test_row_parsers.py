"""Files of hosts: what a writer of CSV writes is read as it was, and no text at all breaks the reader."""

import csv
import io
import time
from contextlib import suppress
from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from api.errors import Problem
from api.row_parsers import COLUMNS, MOST_ROWS, CsvParser, JsonLinesParser
from api.v1.serializers.many_hosts import NewHostSerializer

NAMES = ["name", "address", "labels.role", "host_key"]
CELL = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\r"), max_size=12)
"""Python's writer does not quote a carriage return where lines end with line feeds alone."""
ROWS = st.lists(st.lists(CELL, min_size=len(NAMES), max_size=len(NAMES)), max_size=8)


def written(rows: list[list[str]], **dialect: Any) -> str:
    """The file that Python's writer makes of them."""
    out = io.StringIO(newline="")
    csv.writer(out, **dialect).writerows([NAMES, *rows])
    return out.getvalue()


@settings(max_examples=60, deadline=None)
@given(
    ROWS, st.sampled_from(",;\t"), st.sampled_from(["\n", "\r\n"]), st.sampled_from([csv.QUOTE_ALL, csv.QUOTE_MINIMAL])
)
def test_what_was_written_is_read(rows: list[list[str]], delimiter: str, end: str, quoting: int) -> None:
    text = written(rows, delimiter=delimiter, lineterminator=end, quoting=quoting)
    read = list(CsvParser().rows(text))
    assert [row["wrong"] for row in read] == [[]] * len(read)
    flat = [{**row["values"], **{f"labels.{k}": v for k, v in row["values"].get("labels", {}).items()}} for row in read]
    expected = [dict(zip(NAMES, cells, strict=True)) for cells in rows if any(cells)]
    assert [[each.get(name, "") for name in NAMES] for each in flat] == [list(each.values()) for each in expected]
    starts = text.splitlines(keepends=True)
    assert all(1 < row["line"] <= len(starts) + 1 for row in read)


@settings(max_examples=100, deadline=None)
@given(st.text() | st.text(',;\t"\r\n\0a1').map(lambda text: ",".join(NAMES) + "\n" + text))
def test_no_text_breaks_the_reader(text: str) -> None:
    for parser in (CsvParser(), JsonLinesParser()):
        with suppress(Problem):
            assert all(row["line"] > 0 for row in parser.rows(text))


def parsed(content: bytes) -> Any:
    """As in a request."""
    stream = SimpleNamespace(
        headers={}, content_params={}, path="/api/v1/hosts/import/", read=lambda most: content[:most]
    )
    return CsvParser().parse(stream)


def test_a_row_begins_where_its_first_cell_does() -> None:
    rows = parsed(b'name,address\n\nn1,"a\nb"\r\n\r\nn2,c\n')
    assert [(row["line"], row["values"]) for row in rows] == [
        (3, {"name": "n1", "address": "a\nb"}),
        (6, {"name": "n2", "address": "c"}),
    ]


def test_the_most_rows_are_read_and_one_more_is_refused() -> None:
    assert len(parsed(b"name\n" + b"n\n" * MOST_ROWS)) == MOST_ROWS
    with pytest.raises(Problem) as caught:
        parsed(b"name\n" + b"n\n" * (MOST_ROWS + 1))
    assert caught.value.code == "too_large"


def test_each_field_that_may_be_given_has_its_column() -> None:
    fields = {name for name, field in NewHostSerializer().fields.items() if not field.read_only}
    assert set(COLUMNS) == fields - {"labels"}


def test_a_header_of_many_columns_is_read_in_time() -> None:
    begun = time.process_time()
    rows = list(CsvParser().rows(",".join(f"labels.{number}" for number in range(40_000)) + "\nx\n"))
    assert (len(rows), time.process_time() - begun < 5) == (1, True)
