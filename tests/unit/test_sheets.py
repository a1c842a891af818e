"""CSV for spreadsheets."""

import csv
import io

import pytest

from api.sheets import row


@pytest.mark.parametrize("text", ["=1+1", "+1", "-1", "@SUM(A1)", "\t=1", "\r=1", "\n=1", "＝1", "－1"])
def test_a_text_that_would_be_a_formula_is_none(text: str) -> None:
    assert next(csv.reader(io.StringIO(row([text]), newline=""))) == [f"'{text}"]


@pytest.mark.parametrize("text", ["", "a", "a=1", ' "x", =1', "'=1", "a\r\nb", "é,;|"])
def test_other_texts_are_as_they_were(text: str) -> None:
    assert next(csv.reader(io.StringIO(row([text, "b"]), newline=""))) == [text, "b"]


def test_numbers_are_numbers_and_nothing_is_empty() -> None:
    assert row([-1, None, "x"]) == '"-1","","x"\r\n'
