"""The fields: which operators each takes, and how its value is checked and brought into its one spelling."""

import unicodedata
from collections.abc import Callable
from dataclasses import dataclass
from enum import Enum

from fleet.match import patterns, units, wildcards
from fleet.match.addresses import NULL_SENDER, pasted
from fleet.match.errors import MatchError
from fleet.match.nodes import Op, Term


class Kind(Enum):
    ADDRESS = "address"
    DOMAIN = "domain"
    TEXT = "text"
    WORD = "word"
    NUMBER = "number"


@dataclass(frozen=True, slots=True)
class Field:
    """`headers` and `body`: what of the message must be read first. `parse`: text of a number."""

    kind: Kind
    ops: tuple[Op, ...]
    headers: bool = False
    body: bool = False
    parse: Callable[[str], int] | None = None
    render: Callable[[int], str] = str


_TEXT_OPS = (Op.IS, Op.CONTAINS, Op.REGEX)
_ORDER_OPS = (Op.GT, Op.GTE, Op.LT, Op.LTE)
FIELDS: dict[str, Field] = {
    "from": Field(Kind.ADDRESS, _TEXT_OPS),
    "to": Field(Kind.ADDRESS, _TEXT_OPS),
    "from-domain": Field(Kind.DOMAIN, _TEXT_OPS),
    "to-domain": Field(Kind.DOMAIN, _TEXT_OPS),
    "subject": Field(Kind.TEXT, _TEXT_OPS, headers=True),
    "header": Field(Kind.TEXT, _TEXT_OPS, headers=True),
    "body": Field(Kind.TEXT, (Op.CONTAINS, Op.REGEX), body=True),
    "reason": Field(Kind.TEXT, _TEXT_OPS),
    "id": Field(Kind.WORD, (Op.IS,)),
    "msgid": Field(Kind.WORD, (Op.IS,), headers=True),
    "state": Field(Kind.WORD, (Op.IS,)),
    "size": Field(Kind.NUMBER, (*_ORDER_OPS, Op.IS), parse=units.parse_size, render=units.render_size),
    "age": Field(Kind.NUMBER, _ORDER_OPS, parse=units.parse_duration, render=units.render_duration),
    "attempts": Field(Kind.NUMBER, (*_ORDER_OPS, Op.IS), parse=units.parse_count),
}
SYMBOLS = {
    Op.IS: ":",
    Op.CONTAINS: "~",
    Op.REGEX: "=/",
    Op.GTE: ">=",
    Op.LTE: "<=",
    Op.GT: ">",
    Op.LT: "<",
}
_BIDI = frozenset("\u200b\u200c\u200d\u200e\u200f\u202a\u202b\u202c\u202d\u202e\u2060\u2066\u2067\u2068\u2069\ufeff")


def known(name: str) -> Field:
    """The field of a term, `header[...]` included. Raises KeyError."""
    return FIELDS[name.partition("[")[0]]


def field_name(text: str) -> str:
    """The canonical name, in lower case. Raises MatchError 'invalid'."""
    lowered = text.lower()
    base, bracket, rest = lowered.partition("[")
    if base == "header":
        if not bracket or not rest.endswith("]"):
            raise MatchError("invalid", "expected a header name in square brackets, such as header[X-Spam-Flag]")
        # RFC 5322 2.2: printable ASCII without the colon.
        name = rest[:-1]
        if not name or len(name) > 200 or any(not "!" <= char <= "~" or char in ':[]"()' for char in name):
            raise MatchError("invalid", f"expected a header name in the brackets, got {units.excerpt(rest[:-1])}")
        return lowered
    if lowered not in FIELDS:
        raise MatchError("invalid", f"expected a field ({', '.join(FIELDS)}), got {units.excerpt(text)}")
    return lowered


def check_op(name: str, op: Op) -> None:
    """Raises MatchError 'invalid' when the field has no such comparison."""
    ops = known(name).ops
    if op not in ops:
        expected = " ".join(SYMBOLS[each] + ("re/" if each is Op.REGEX else "") for each in ops)
        raise MatchError("invalid", f"expected one of {expected} behind {name}, got {SYMBOLS[op]}")


def make_term(name: str, op: Op, value: str, *, ignore_case: bool = False, is_quoted: bool = False) -> Term:
    """A term with its value checked and canonical. `name` is canonical and takes `op` (checked before).

    `value`: a wildcard pattern for IS on text, plain text for CONTAINS, else as in the text form. `is_quoted`: it was
    marked off from what is around it, so that whoever gave it knows what he gives.
    Raises MatchError 'invalid' or 'bad_pattern', without a place.
    """
    field = known(name)
    _check_characters(value)
    if field.parse is not None:
        return Term(name, op, field.parse(value))
    if op is Op.REGEX:
        return Term(name, op, patterns.canonical(value), ignore_case)
    if field.kind in (Kind.ADDRESS, Kind.DOMAIN) and not is_quoted and not _BIDI.isdisjoint(value):
        raise MatchError(
            "invalid", "expected no invisible or direction-changing characters in an address that is not in quotes"
        )
    if op is Op.CONTAINS:
        return Term(name, op, value)
    pattern = wildcards.canonical(value)
    _check_pattern(name, field, pattern)
    return Term(name, op, pattern)


def check_address(pattern: str) -> None:
    """A wildcard pattern of addresses. Raises MatchError 'invalid' for what cannot be one."""
    if expected := pasted(pattern):
        raise MatchError("invalid", f"expected {expected}")
    text = wildcards.literal(pattern)
    if text == "":
        raise MatchError("invalid", f"expected an address, got nothing (the null sender is {NULL_SENDER})")
    if text and not text.startswith('"') and any(char.isspace() for char in text):
        raise MatchError("invalid", "expected an address: blanks stand in a quoted local part only")


def _check_pattern(name: str, field: Field, pattern: str) -> None:
    if field.kind is Kind.ADDRESS:
        check_address(pattern)
    text = wildcards.literal(pattern)
    if text is None:
        return
    if field.kind is Kind.DOMAIN and ("@" in text or text == "."):
        raise MatchError("invalid", "expected a domain, such as example.com, or .example.com with its sub-domains")
    if field.kind is Kind.WORD and not text.strip():
        raise MatchError("invalid", f"expected a value behind {name}, got nothing")
    if name == "state" and text.lower() == "held":  # the status of a trace; no queue has that word
        raise MatchError("invalid", "expected hold, which finds whatever is held")


def _check_characters(value: str) -> None:
    for char in value:
        # Cc control, Cs lone surrogate, Zl and Zp line separators: the rendering stays one line of valid UTF-8.
        if unicodedata.category(char) in ("Cc", "Cs", "Zl", "Zp"):
            raise MatchError("invalid", f"expected no control character in a value, got U+{ord(char):04X}")
