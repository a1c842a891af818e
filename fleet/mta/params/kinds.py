"""The kinds of values in an operation's params: each is a JSON Schema and a strict parser that agree.

A parser takes the JSON value and returns what the operation keeps, or raises BadValue. JSON types are never coerced:
`true` is no integer and "5" no number.
"""

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, NoReturn

from fleet.mta.address import AddressError, parse_address

_UNITS = {"s": 1, "m": 60, "h": 3600, "d": 86_400}
_SIZES = {"": 1, "K": 1 << 10, "M": 1 << 20, "G": 1 << 30}
DURATION = r"^[1-9][0-9]{0,8}[smhd]$"
_SIZE = r"^[1-9][0-9]{0,11}[KMG]?$"
_JSON_NAMES = {str: "string", bool: "boolean", int: "integer", float: "number", list: "array", dict: "object"}


class BadValue(ValueError):
    """`code` and `detail` as in errors[] of the API; `index` where one item of a list is meant."""

    def __init__(self, code: str, detail: str, index: int | None = None) -> None:
        super().__init__(detail)
        self.code = code
        self.detail = detail
        self.index = index


@dataclass(frozen=True, slots=True)
class Kind:
    """A kind of value. `schema`: JSON Schema 2020-12; `parse`: JSON value to Python value, or BadValue."""

    schema: dict[str, Any]
    parse: Callable[[Any], Any]


def wrong_type(expected: str, value: Any) -> NoReturn:
    got = "null" if value is None else _JSON_NAMES.get(type(value), type(value).__name__)
    raise BadValue("wrong_type", f"expected {expected}, got {got}")


def as_string(value: Any) -> str:
    if not isinstance(value, str):
        wrong_type("a string", value)
    return value


def boolean(description: str) -> Kind:
    """true or false."""

    def parse_boolean(value: Any) -> bool:
        if not isinstance(value, bool):
            wrong_type("true or false", value)
        return value

    return Kind({"type": "boolean", "description": description}, parse_boolean)


def integer(description: str, low: int, high: int) -> Kind:
    """A JSON integer from `low` to `high`."""

    def parse_integer(value: Any) -> int:
        if type(value) is not int:
            wrong_type("an integer", value)
        if not low <= value <= high:
            raise BadValue("out_of_range", f"{value} is not between {low} and {high}")
        return int(value)

    return Kind({"type": "integer", "minimum": low, "maximum": high, "description": description}, parse_integer)


def fraction(description: str) -> Kind:
    """A JSON number above 0 and up to 1."""

    def parse_fraction(value: Any) -> float:
        if type(value) not in (int, float):
            wrong_type("a number", value)
        if not 0 < value <= 1:
            raise BadValue("out_of_range", f"{value} is not above 0 and up to 1")
        return float(value)

    return Kind(
        {"type": "number", "exclusiveMinimum": 0, "maximum": 1, "description": description},
        parse_fraction,
    )


def choice(description: str, values: Sequence[str]) -> Kind:
    """One of some words."""

    def parse_choice(value: Any) -> str:
        if as_string(value) not in values:
            raise BadValue("not_a_choice", f"{value[:80]!r} is none of {', '.join(values)}")
        return str(value)

    return Kind({"type": "string", "enum": list(values), "description": description}, parse_choice)


def choices(description: str, values: Sequence[str]) -> Kind:
    """A list of different words, at least one."""
    one = choice("", values)

    def parse_choices(value: Any) -> tuple[str, ...]:
        chosen = as_items(value, one.parse, len(values))
        if len(set(chosen)) != len(chosen):
            raise BadValue("duplicate", "a word stands twice in the list")
        return chosen

    items = {"type": "string", "enum": list(values)}
    return Kind(
        {"type": "array", "items": items, "minItems": 1, "uniqueItems": True, "description": description},
        parse_choices,
    )


def as_items(value: Any, parse_item: Callable[[Any], str], most: int) -> tuple[str, ...]:
    if not isinstance(value, list):
        wrong_type("a list", value)
    if not 1 <= len(value) <= most:
        raise BadValue("out_of_range", f"the list has {len(value)} items, expected 1 to {most}")
    parsed = []
    for index, item in enumerate(value):
        try:
            parsed.append(parse_item(item))
        except BadValue as error:
            raise BadValue(error.code, error.detail, index) from error
    return tuple(parsed)


def duration(description: str, low: str, high: str) -> Kind:
    """`90s`, `15m`, `4h`, `7d`; parsed to seconds."""

    def parse_duration(value: Any) -> int:
        if not re.fullmatch(DURATION, as_string(value)):
            raise BadValue("bad_duration", f"{value!r} is no duration; expected one like 90s, 15m, 4h or 7d")
        seconds = seconds_of(value)
        if not seconds_of(low) <= seconds <= seconds_of(high):
            raise BadValue("out_of_range", f"{value} is not between {low} and {high}")
        return seconds

    return Kind(
        {"type": "string", "pattern": DURATION, "description": f"{description} {low} to {high}."}, parse_duration
    )


def seconds_of(text: str) -> int:
    return int(text[:-1]) * _UNITS[text[-1]]


def size(description: str, high: int) -> Kind:
    """Bytes as an integer, or a string such as `300`, `64K`, `30M`, `1G` (powers of 1024)."""

    def parse_size(value: Any) -> int:
        if type(value) is not int and not isinstance(value, str):
            wrong_type("an integer or a size such as 64K", value)
        if isinstance(value, str):
            if not re.fullmatch(_SIZE, value):
                raise BadValue("bad_size", f"{value!r} is no size; expected one like 300, 64K, 30M or 1G")
            value = int(value.rstrip("KMG")) * _SIZES[value.lstrip("0123456789")]
        if not 1 <= value <= high:
            raise BadValue("out_of_range", f"{value} is not between 1 and {high}")
        return int(value)

    number = {"type": "integer", "minimum": 1, "maximum": high}
    return Kind({"oneOf": [number, {"type": "string", "pattern": _SIZE}], "description": description}, parse_size)


def address(description: str, *, null: bool = False) -> Kind:
    """A mailbox in RFC 5321 form without brackets, its domain turned to A-labels; with `null` also `<>`."""

    def parse_mailbox(value: Any) -> str:
        if null and as_string(value) == "<>":
            return "<>"
        try:
            return parse_address(as_string(value)).smtp
        except AddressError as error:
            raise BadValue(error.code, error.detail) from error

    return Kind({"type": "string", "minLength": 1, "description": description}, parse_mailbox)


def matching(description: str, code: str, expression: str, expected: str, most: int) -> Kind:
    """A string that fits a regular expression and is at most `most` characters long."""

    def parse_matching(value: Any) -> str:
        if not re.fullmatch(expression, as_string(value)) or len(value) > most:
            raise BadValue(code, f"{value[:80]!r} does not fit; expected {expected}")
        return str(value)

    schema = {"type": "string", "pattern": expression, "maxLength": most, "description": description}
    return Kind(schema, parse_matching)
