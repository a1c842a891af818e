"""The JSON form, for programs that would otherwise have to quote."""

from typing import Any

import pytest

from fleet.match import MatchError, from_json, parse, parse_any

TERM = {"field": "from", "op": "is", "value": "a@x.test"}


def test_the_json_form_means_what_the_text_form_means() -> None:
    value = {
        "and": [
            {"field": "from", "op": "is", "value": "newsletter@sillyplace.com"},
            {"field": "size", "op": "gt", "value": "30M"},
        ]
    }
    assert from_json(value) == parse("from:newsletter@sillyplace.com size>30M")
    assert from_json(value).to_json() == value


@pytest.mark.parametrize(
    ("value", "text"),
    [
        ({"or": [TERM, {"not": TERM}]}, "from:a@x.test OR -from:a@x.test"),
        ({"and": [TERM]}, "from:a@x.test"),
        ({"field": "Header[X-Spam]", "op": "is", "value": "YES"}, "header[x-spam]:YES"),
        ({"field": "reason", "op": "regex", "value": "a/b", "flags": "i"}, r"reason=/a\/b/i"),
        ({"field": "subject", "op": "contains", "value": r'a\*"b'}, r'subject~"a\\*\"b"'),
        ({"field": "from", "op": "is", "value": '"a b"@x.test'}, r'from:"\"a b\"@x.test"'),
        ({"field": "size", "op": "is", "value": 2048}, "size:2K"),
        ({"field": "attempts", "op": "lte", "value": 3}, "attempts<=3"),
        ({"field": "age", "op": "gte", "value": "90s"}, "age>=90s"),
        ({"all": True}, "ALL"),
    ],
)
def test_every_term_has_both_forms(value: dict[str, Any], text: str) -> None:
    assert from_json(value) == parse(text)
    assert from_json(from_json(value).to_json()) == parse(text)


@pytest.mark.parametrize(
    ("value", "place", "expected"),
    [
        ({"and": [TERM, {"field": "size", "op": "gt", "value": "3X"}]}, "and[1].value", "expected a size"),
        ({"or": [{"not": {"field": "size", "op": "contains", "value": "3"}}]}, "or[0].not.op", "expected one of"),
        ({"field": "sender", "op": "is", "value": "a"}, "field", "expected a field"),
        ({"field": "from", "op": "equals", "value": "a"}, "op", "expected one of is, contains, regex"),
        ({"field": "body", "op": "is", "value": "a"}, "op", "expected one of contains, regex for body, got 'is'"),
        ({"field": "size", "op": "glob", "value": "3*"}, "op", "one of is, gt, gte, lt, lte for size, got 'glob'"),
        ({"field": "size", "op": "gt", "value": 30.5}, "value", "a text or a whole number"),
        ({"field": "size", "op": "gt", "value": -1}, "value", "a text or a whole number"),
        ({"field": "from", "op": "is"}, "value", 'expected "value"'),
        ({"field": "from", "op": "is", "value": None}, "value", "expected a text"),
        ({"field": "from", "op": "is", "value": ["a"]}, "value", "expected a text"),
        ({"field": "size", "op": "gt", "value": True}, "value", "expected a text"),
        ({"field": "size", "op": "gt", "value": -1}, "value", "expected a text"),
        ({"field": "age", "op": "gt", "value": 90}, "value", "expected a text"),
        ({"field": 3, "op": "is", "value": "a"}, "field", "expected a text"),
        ({**TERM, "extra": 1}, "extra", "only"),
        ({**TERM, "flags": "i"}, "flags", "beside a regex only"),
        ({"field": "from", "op": "regex", "value": "a", "flags": ["i"]}, "flags", "beside a regex only"),
        ({"and": []}, "and", "at least one"),
        ({"and": {}}, "and", "expected a list"),
        ({"and": [[]]}, "and[0]", "expected an object"),
        ({"and": [TERM], "or": [TERM]}, "", "exactly one of"),
        ({"and": [{"all": True}]}, "and[0]", "stands alone"),
        ({"all": 1}, "", "stands alone"),
        ({}, "", 'write "ALL"'),
        ({"not": {}}, "not", 'write "ALL"'),
        ([], "", "expected an object"),
    ],
)
def test_an_error_names_the_place_and_what_was_expected(value: object, place: str, expected: str) -> None:
    with pytest.raises(MatchError) as caught:
        from_json(value)
    assert caught.value.code == "invalid"
    assert (caught.value.place, caught.value.column) == (place, None)
    assert expected in caught.value.detail
    assert str(caught.value).endswith(f"at {place}" if place else caught.value.detail)


def test_a_bad_pattern_names_its_place() -> None:
    with pytest.raises(MatchError) as caught:
        from_json({"or": [TERM, {"field": "to", "op": "regex", "value": "["}]})
    assert (caught.value.code, caught.value.place) == ("bad_pattern", "or[1].value")


def test_deep_nesting_is_refused_before_it_costs_anything() -> None:
    value: dict[str, Any] = TERM
    for _ in range(900):
        value = {"not": value}
    with pytest.raises(MatchError, match="inside one another"):
        from_json(value)


def test_what_the_text_form_cannot_hold_is_refused_in_json_too() -> None:
    with pytest.raises(MatchError, match="at most 1000 terms"):
        from_json({"or": [TERM] * 1001})
    with pytest.raises(MatchError, match="at most 10000 characters"):
        from_json({"field": "subject", "op": "is", "value": "x" * 10_000})


def test_either_form_is_taken() -> None:
    assert parse_any("from:a@x.test") == parse_any(TERM)


@pytest.mark.parametrize("value", [None, 1, True, ["ALL"], b"ALL"])
def test_nothing_else_is_taken(value: object) -> None:
    with pytest.raises(MatchError, match="as a text or as an object"):
        parse_any(value)
