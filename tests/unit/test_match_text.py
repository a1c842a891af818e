"""The text form: what parses, how it is written canonically, and where an error says it is."""

import pickle

import pytest

from fleet.match import MatchError, parse

SAME = [
    "from:newsletter@sillyplace.com size>30M",
    'subject~"Returned mail" reason=/Connection (timed out|refused)/ attempts>50',
    "to:*@yahoo.com age>4h -state:hold",
    "id:F2A1A27891E",
    "ALL",
    "from:a (to:b OR to:c) -(id:D id:E)",
    "from:a to:b OR from:c",
    "--from:a",
    r'from:"\"a b\"@x.test"',
    r'from:"a\\xe9@x.test"',
    r'subject:"100\*"',
    r"reason=/a\/b/i",
    "body=//",
    'subject:""',
    "from-domain:.example.com to-domain:example.com",
    "size>=1536 size<2K size:0 age<=90s age>=1d attempts:3",
]


@pytest.mark.parametrize("text", SAME)
def test_a_canonical_text_is_rendered_as_it_was_written(text: str) -> None:
    assert parse(text).render() == text
    assert str(parse(text)) == text


@pytest.mark.parametrize(
    ("text", "canonical"),
    [
        ("(from:<> OR from:mailer-daemon@*) header[X-Spam-Flag]:YES", None),
        ("from:a AND to:b", "from:a to:b"),
        ("NOT from:a NOT (to:b)", "-from:a -to:b"),
        ("((from:a) (to:b))", "from:a to:b"),
        ("from:a OR (to:b OR to:c)", "from:a OR to:b OR to:c"),
        ("  From:a\t\n TO:b ", "from:a to:b"),
        ("size>1024 size>30720K age>60m age>48h", "size>1K size>30M age>1h age>2d"),
        ('from:"plain@x.test"', "from:plain@x.test"),
        (r"from:a\b", r'from:"a\\b"'),
        ("from:a**b", "from:a*b"),
        ('size>"30M"', "size>30M"),
        ("subject:[x]", 'subject:"[x]"'),
    ],
)
def test_other_spellings_have_one_canonical_text(text: str, canonical: str | None) -> None:
    expected = canonical or "(from:<> OR from:mailer-daemon@*) header[x-spam-flag]:YES"
    assert parse(text).render() == expected
    assert parse(expected) == parse(text)


def test_or_binds_weaker_than_and() -> None:
    assert parse("from:a to:b OR from:c to:d") == parse("(from:a to:b) OR (from:c to:d)")
    assert parse("from:a to:b OR from:c") != parse("from:a (to:b OR from:c)")


@pytest.mark.parametrize(
    ("text", "column", "expected"),
    [
        ("", 1, "write ALL to select everything"),
        ("   ", 1, "write ALL to select everything"),
        ("from", 5, "expected an operator behind from: : ~ =/"),
        ("from:", 6, "expected a value"),
        ("from: a", 6, "expected a value right behind"),
        ("sender:a", 1, "expected a field (from, to,"),
        ("from:a size>3X", 13, "expected a size such as 30M"),
        ("from:a size>", 13, "expected a value"),
        ("size>-1", 6, "expected a size"),
        ("size>٣", 6, "expected a size"),
        ("size>99999999999999999999", 6, "expected a size"),
        ("age>3", 5, "expected a duration such as 4h"),
        ("age:3h", 4, "expected one of > >= < <= behind age"),
        ("size~3", 5, "expected one of > >= < <= : behind size"),
        ("body:x", 5, "expected one of ~ =/re/ behind body"),
        ("id~F2", 3, "expected one of : behind id"),
        ("attempts>1.5", 10, "expected a whole number"),
        ("from=a", 6, "expected / behind ="),
        ("from:a OR", 10, "expected a term"),
        ("OR from:a", 1, "expected a term, got OR"),
        ("from:a or from:b", 8, "operators are in capitals: OR"),
        ("all", 1, "operators are in capitals: ALL"),
        ("-ALL", 2, "ALL stands alone"),
        ("ALL from:a", 5, "ALL stands alone"),
        ("from:a ALL", 8, "ALL stands alone"),
        ("(from:a", 8, "expected ) for the ( of column 1"),
        ("from:a)", 7, "closing bracket that nothing opened"),
        ("()", 2, "expected a term"),
        ("- from:a", 2, "expected a term right behind -"),
        ('from:"a', 8, 'expected " for the quote of column 6'),
        ('from:"a b"@x.test', 11, "expected a space behind a quoted value"),
        ('from:a"b', 7, "written in quotes as a whole"),
        ("from:a(b", 7, "written in quotes as a whole"),
        ("reason=/abc", 12, "expected / for the regular expression of column 9"),
        ("reason=/abc/x", 13, "its flag is i"),
        ("header:x", 1, "header name in square brackets"),
        ("header[X", 9, "expected ]"),
        ("header[]:x", 1, "expected a header name"),
        ("header[a:b]:x", 1, "expected a header name"),
        ("from:<a@x.test>", 6, "without angle brackets"),
        ("state:held", 7, "expected hold"),
        ('from:""', 6, "the null sender is <>"),
        ("from-domain:@x.test", 13, "expected a domain"),
        ("from:a\u202eb", 6, "direction-changing"),
        ("subject:a\x07b", 9, "no control character in a value, got U+0007"),
        ('subject:"a\u2028b"', 9, "no control character"),
        ("subject:\ud800", 9, "no control character"),
        ('id:" "', 4, "expected a value behind id"),
    ],
)
def test_an_error_names_the_column_and_what_was_expected(text: str, column: int, expected: str) -> None:
    with pytest.raises(MatchError) as caught:
        parse(text)
    assert caught.value.code == "invalid"
    assert caught.value.column == column
    assert expected in caught.value.detail
    assert str(caught.value).endswith(f"at column {column}")


def test_an_error_never_echoes_control_characters() -> None:
    with pytest.raises(MatchError) as caught:
        parse("size>\x1b[2J")
    assert "\x1b" not in str(caught.value)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("from:" + "a" * 10_000, "at most 10000 characters"),
        ("(" * 21 + "from:a" + ")" * 21, "at most 20 brackets"),
        ("-" * 21 + "from:a", "at most 20 brackets"),
        ("(" * 5000, "at most 20 brackets"),
        ("id:A " * 1001, "at most 1000 terms"),
        ("body=/a/ " * 51, "at most 50 regular expressions"),
        ("from:" + "\\a" * 4000, "in the canonical text"),
    ],
)
def test_a_text_that_is_too_large_is_refused(text: str, expected: str) -> None:
    with pytest.raises(MatchError, match=expected):
        parse(text)


def test_the_limits_themselves_are_allowed() -> None:
    assert len(parse("from:" + "a" * 9995).render()) == 10_000
    assert parse("-" * 20 + "from:a").render() == "-" * 20 + "from:a"
    assert parse(" ".join(["id:A"] * 1000)).fields == {"id"}


def test_an_error_survives_the_way_between_processes() -> None:
    with pytest.raises(MatchError) as caught:
        parse("from:a size>3X")
    copied = pickle.loads(pickle.dumps(caught.value))
    assert (str(copied), copied.code, copied.column) == (str(caught.value), "invalid", 13)
