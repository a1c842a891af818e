"""What holds for every expression, tried on many."""

from dataclasses import dataclass
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from fleet.match import Entry, Expression, MatchError, from_json, parse, parse_any
from fleet.match.headers import decode
from fleet.mta.records import QueueEntry, Recipient

NOW = 1_700_000_000.0
TEXT_FIELDS = ["from", "to", "from-domain", "to-domain", "subject", "header[X-Spam]", "reason"]
VALUES = st.one_of(
    st.text(st.characters(codec="utf-8"), max_size=12),
    st.text('ab*?\\"@.() -<>/', max_size=12),
    st.sampled_from(["<>", "alice@example.com", "*@example.com", ".example.com", "größe", "a b"]),
)
PATTERNS = st.text('ab/.*+?|()[]^$\\ -i"', max_size=10)
NUMBERS = st.integers(0, 1 << 40)


@dataclass
class Read:
    headers: list[tuple[str, str]]
    body: bytes | None


def _term(field: object, op: object, value: object, **more: object) -> dict[str, Any]:
    return {"field": field, "op": op, "value": value, **more}


ORDER = st.sampled_from(["gt", "gte", "lt", "lte"])
TERMS = st.one_of(
    st.builds(_term, st.sampled_from([*TEXT_FIELDS, "id", "msgid", "state"]), st.just("is"), VALUES),
    st.builds(_term, st.sampled_from([*TEXT_FIELDS, "body"]), st.just("contains"), VALUES),
    st.builds(
        _term, st.sampled_from([*TEXT_FIELDS, "body"]), st.just("regex"), PATTERNS, flags=st.sampled_from(["", "i"])
    ),
    st.builds(_term, st.sampled_from(["size", "attempts"]), st.one_of(ORDER, st.just("is")), NUMBERS),
    st.builds(_term, st.just("age"), ORDER, NUMBERS.map(lambda seconds: f"{seconds}s")),
)


def _tried(value: object) -> Expression | MatchError:
    try:
        return parse_any(value)
    except MatchError as error:
        return error


def _valid(value: dict[str, Any]) -> bool:
    return isinstance(_tried(value), Expression)


EXPRESSIONS = st.recursive(
    TERMS.filter(_valid),
    lambda inner: st.one_of(
        st.builds(lambda item: {"not": item}, inner),
        st.builds(lambda items: {"and": items}, st.lists(inner, min_size=1, max_size=4)),
        st.builds(lambda items: {"or": items}, st.lists(inner, min_size=1, max_size=4)),
    ),
    max_leaves=8,
).filter(_valid)
ENTRIES = st.builds(
    QueueEntry,
    queue_id=st.sampled_from(["F2A1", "a", "b*"]),
    state=st.sampled_from(["incoming", "active", "deferred", "hold", "maildrop"]),
    native_state=st.sampled_from(["deferred", "frozen", "x"]),
    arrival_time=st.floats(NOW - 1e6, NOW),
    sender=st.one_of(st.just("<>"), st.text(min_size=1, max_size=8), st.just("alice@example.com")),
    recipients=st.lists(
        st.builds(Recipient, st.text(min_size=1, max_size=8), st.text(max_size=4)), min_size=1, max_size=3
    ),
    size=NUMBERS,
    attempts=st.integers(0, 100),
)
CONTENT = st.builds(
    Read,
    st.lists(st.tuples(st.sampled_from(["Subject", "X-Spam", "Message-ID"]), st.text(max_size=12)), max_size=3),
    st.binary(max_size=20),
)


@given(EXPRESSIONS)
@settings(max_examples=150, deadline=None)
def test_both_forms_give_the_same_expression_back(value: dict[str, Any]) -> None:
    expression = from_json(value)
    text = expression.render()
    assert parse(text) == expression
    assert parse(text).render() == text
    assert from_json(expression.to_json()) == expression
    assert len(text.splitlines()) == 1


@given(EXPRESSIONS, ENTRIES, CONTENT)
@settings(max_examples=150, deadline=None)
def test_both_forms_judge_alike_and_a_first_look_is_never_taken_back(
    value: dict[str, Any], entry: Entry, content: Read
) -> None:
    one, two = from_json(value).compile(NOW), parse(from_json(value).render()).compile(NOW)
    said = one(entry)
    assert two(entry) is said
    decided = one.with_content(entry, content)
    assert two.with_content(entry, content) is decided
    assert said is None or said is decided
    assert from_json({"not": value}).compile(NOW).with_content(entry, content) is not decided


@given(EXPRESSIONS, ENTRIES, CONTENT)
@settings(max_examples=150, deadline=None)
def test_what_is_said_to_match_everything_does(value: dict[str, Any], entry: Entry, content: Read) -> None:
    expression = from_json({"or": [value, {"not": value}]})
    assert expression.matches_everything()
    assert expression.compile(NOW).with_content(entry, content)
    if from_json(value).matches_everything():
        assert from_json(value).compile(NOW).with_content(entry, content)


@given(st.one_of(st.text(max_size=60), st.text('fromsizeORNDAL:~=/<>()"-\\ 0KM[]i*?\ud800\n', max_size=40)))
@settings(max_examples=400, deadline=None)
def test_no_text_ends_in_anything_but_an_expression_or_a_match_error(text: str) -> None:
    said = _tried(text)
    if isinstance(said, Expression):
        assert parse(said.render()) == said
        return
    assert said.code in ("invalid", "bad_pattern")
    assert said.column is not None
    assert 1 <= said.column <= len(text) + 1
    assert said.detail.startswith("expected")


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(["and", "or", "not", "all", "field", "op", "value", "flags", "x"]), inner, max_size=4
        )
    ),
    max_leaves=10,
)


@given(JSON)
@settings(max_examples=200, deadline=None)
def test_no_json_ends_in_anything_but_an_expression_or_a_match_error(value: object) -> None:
    said = _tried(value)
    assert isinstance(said, Expression) or said.detail.startswith("expected")


@given(st.one_of(st.text(max_size=80), st.text("=?utf-8qQbB?_=AZ \ud800\udcff", max_size=60)))
@settings(max_examples=400, deadline=None)
def test_no_header_value_raises(raw: str) -> None:
    assert isinstance(decode(raw), str)
