"""Bytes that are no UTF-8, as every MTA's results spell them."""

import pytest

from fleet.mta.text import escape_bytes, text_of


@pytest.mark.parametrize(
    ("raw", "shown"),
    [
        (b"a@x.test", "a@x.test"),
        ("jörg@bücher.test".encode(), "jörg@bücher.test"),
        (b"caf\xe9@x.test", "caf\\xE9@x.test"),
        (b"\xc3\xbc\xff\xfe", "ü\\xFF\\xFE"),
        (b"cut \xe2\x82", "cut \\xE2\\x82"),
        (b"\xed\xa0\x80", "\\xED\\xA0\\x80"),
        (b"\\xE9 \x00\x7f", "\\xE9 \x00\x7f"),
    ],
)
def test_what_is_no_utf8_is_spelled_in_capitals(raw: bytes, shown: str) -> None:
    assert text_of(raw) == shown
    assert escape_bytes(raw.decode("utf-8", "surrogateescape")) == shown
    shown.encode()
