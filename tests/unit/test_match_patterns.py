"""Regular expressions of users: RE2 alone, bounded, with RE2's reason when it refuses."""

import random
import time
from dataclasses import dataclass

import pytest

from fleet.match import Expression, MatchError, from_json, parse

MIB = 1 << 20


@dataclass
class Read:
    body: bytes
    headers: tuple[tuple[str, str], ...] = ()


def regex(pattern: str, field: str = "body") -> Expression:
    return from_json({"field": field, "op": "regex", "value": pattern})


def refusal(pattern: str) -> MatchError | None:
    try:
        regex(pattern)
    except MatchError as error:
        return error
    return None


def seconds(expression: Expression, body: bytes) -> float:
    judge = expression.compile(0.0)
    begun = time.process_time()
    judge.with_content(None, Read(body))  # type: ignore[arg-type]
    return time.process_time() - begun


@pytest.mark.parametrize("pattern", ["(a+)+$", "(x+x+)+y", "(a|aa)+$", "(.*)*(.*)*x", "(a|a?)+$"])
def test_patterns_that_explode_elsewhere_are_accepted_and_fast(pattern: str) -> None:
    for body in (b"a" * MIB + b"!", b"x" * MIB):
        assert seconds(regex(pattern), body) < 0.05


@pytest.mark.parametrize(
    ("pattern", "reason"),
    [
        (r"(a)\1", r"invalid escape sequence: \1"),
        ("(?=x)", "invalid perl operator: (?="),
        ("(?<!a)b", "invalid"),
        ("a{1001}", "invalid repetition size: {1001}"),
        ("((a{100}){100}){100}", "invalid repetition size"),
        ("[", "missing ]: ["),
        ("(", "missing ): ("),
        ("*", "no argument for repetition operator: *"),
        ("[z-a]", "invalid character class range: z-a"),
        (r"\C", r"without \C"),
        (r"a\Q.\E", r"without \Q"),
        ("\\", "trailing"),
    ],
)
def test_a_pattern_that_re2_refuses_is_refused_with_its_reason(pattern: str, reason: str) -> None:
    with pytest.raises(MatchError) as caught:
        regex(pattern)
    assert caught.value.code == "bad_pattern"
    assert reason in caught.value.detail


def test_the_reason_comes_with_the_column_of_the_pattern() -> None:
    with pytest.raises(MatchError) as caught:
        parse(r"from:a subject=/(a)\1/")
    assert (caught.value.code, caught.value.column) == ("bad_pattern", 17)


@pytest.mark.parametrize("pattern", [".*", "", "^"])
def test_a_pattern_that_finds_everything_is_told_to_the_caller(pattern: str) -> None:
    assert regex(pattern, "from").matches_everything()


def test_a_pattern_has_at_most_256_characters() -> None:
    assert regex("x" * 256)
    for length in (257, 100_000):
        with pytest.raises(MatchError, match=f"at most 256 characters, got {length}"):
            regex("x" * length)
    with pytest.raises(MatchError, match="at most 256 characters"):
        parse("body=/" + "x" * 257 + "/")


def test_a_small_text_with_a_huge_program_is_refused() -> None:
    with pytest.raises(MatchError, match="expected a smaller regular expression"):
        regex(r"(\pLx){1,20}")
    with pytest.raises(MatchError, match="pattern too large"):
        regex(r"(\pL{1,30}x){1,30}")


def test_case_is_ignored_beyond_ascii() -> None:
    judge = parse("subject=/(?i)ÄÖ/").compile(0.0)
    assert judge.with_content(None, Read(b"", (("Subject", "äö"),)))  # type: ignore[arg-type]
    judge = parse("subject=/ÄÖ/i").compile(0.0)
    assert judge.with_content(None, Read(b"", (("Subject", "äö"),)))  # type: ignore[arg-type]


def test_an_escaped_slash_is_a_slash_in_both_forms() -> None:
    assert regex(r"a\/b") == regex("a/b") == parse(r"body=/a\/b/")
    assert regex(r"a\\/b").render() == r"body=/a\\\/b/"
    assert parse(r"body=/a\\\/b/") == regex(r"a\\/b")


def test_wildcards_never_back_track() -> None:
    text = "subject:" + "*a" * 100 + "*b"
    judge = parse(text).compile(0.0)
    begun = time.process_time()
    judge.with_content(None, Read(b"", (("Subject", "a" * 60_000),)))  # type: ignore[arg-type]
    assert time.process_time() - begun < 1


def test_a_fuzz_of_patterns_is_refused_or_bounded() -> None:
    chooser = random.Random(7)
    pieces = [*"ab.*+?|()[]^$\\{}-,", "x", "(a+)+", "[^a]", ".{1,9}", r"\pL", r"\b", "(?i)", "{2,50}", r"\w+", "é"]
    body = "".join(chooser.choices("abx é", k=60_000)).encode()[:65536]
    judged = 0
    for _ in range(4_000):
        pattern = "".join(chooser.choices(pieces, k=chooser.randint(1, 12)))
        if (error := refusal(pattern)) is not None:
            assert error.code == "bad_pattern"
            continue
        expression = regex(pattern)
        judged += 1
        assert parse(expression.render()) == expression
        # A sixteenth of a body: the worst program allowed takes 3.6 seconds for a whole one.
        assert seconds(expression, body) < 0.25, pattern
    assert judged > 1000
