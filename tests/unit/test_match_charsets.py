"""Charsets by whichever of their names."""

import codecs

import pytest

from fleet.match.charsets import CODECS, NAMES, codec_of
from fleet.match.headers import decode


@pytest.mark.parametrize("name", sorted(NAMES))
def test_every_name_stands_for_a_codec_that_python_does_not_know_by_it(name: str) -> None:
    assert codecs.lookup(NAMES[name])
    with pytest.raises(LookupError):
        codecs.lookup(name)


def test_no_name_stands_for_two_charsets() -> None:
    assert len(NAMES) == sum(map(len, CODECS.values())) + 1


@pytest.mark.parametrize(
    ("word", "text"),
    [
        ("=?Windows-874?Q?=CA=C7=D1=CA=B4=D5?=", "สวัสดี"),
        ("=?windows-31J?B?g4GBW4OL?=", "メール"),
        ("=?ISO-8859-8-I?Q?=F9=EC=E5=ED?=", "שלום"),
        ("=?GB_2312-80?B?xOO6ww==?=", "你好"),
        ("=?KS_C_5601-1989?B?vsiz58fPvLy/5A==?=", "안녕하세요"),
        ("=?csWindows1251?Q?=CF=F0=E8=E2=E5=F2?=", "Привет"),
        ("=?ISO_8859-1:1987?Q?gr=F6=DFe?=", "größe"),
        ("=?x-mac-roman?Q?gr=9A=A7e?=", "größe"),
        ("=?no-such-charset?Q?gr=9A?=", "=?no-such-charset?Q?gr=9A?="),
    ],
)
def test_a_header_is_decoded_by_whichever_name_of_its_charset(word: str, text: str) -> None:
    assert decode(word) == text


def test_a_name_that_python_knows_stays() -> None:
    assert codec_of("UTF-8") == "utf_8"
