"""The kinds of values in an operation's params: each is a JSON Schema and a strict parser that agree.

A parser takes the JSON value and returns what the operation keeps, or raises BadValue. JSON types are never coerced:
`true` is no integer and "5" no number.
"""

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any, NoReturn
from uuid import UUID

from fleet.match import Expression, MatchError, parse_any, patterns
from fleet.mta.address import AddressError, parse_address, parse_block_pattern

MAX_IDS = 100_000
MAX_AHEAD = timedelta(days=3660)
MAX_BACK = timedelta(days=366)

_UNITS = {"s": 1, "m": 60, "h": 3600, "d": 86_400}
_SIZES = {"": 1, "K": 1 << 10, "M": 1 << 20, "G": 1 << 30}
_DURATION = r"^[1-9][0-9]{0,8}[smhd]$"
_SIZE = r"^[1-9][0-9]{0,11}[KMG]?$"
_QUEUE_ID = r"^[0-9A-Za-z][0-9A-Za-z-]{0,63}$"
_REPLY_TEXT = r"^[!-~]([ -~]*[!-~])?$"
_LINE = r"^[^\u0000-\u001f\u007f\ud800-\udfff]+$"
_RFC_3339 = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d{1,6})?(Z|[+-]\d\d:\d\d)", re.ASCII)
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


def _wrong_type(expected: str, value: Any) -> NoReturn:
    got = "null" if value is None else _JSON_NAMES.get(type(value), type(value).__name__)
    raise BadValue("wrong_type", f"expected {expected}, got {got}")


def _string(value: Any) -> str:
    if not isinstance(value, str):
        _wrong_type("a string", value)
    return value


def boolean(description: str) -> Kind:
    """true or false."""

    def parse_boolean(value: Any) -> bool:
        if not isinstance(value, bool):
            _wrong_type("true or false", value)
        return value

    return Kind({"type": "boolean", "description": description}, parse_boolean)


def integer(description: str, low: int, high: int) -> Kind:
    """A JSON integer from `low` to `high`."""

    def parse_integer(value: Any) -> int:
        if type(value) is not int:
            _wrong_type("an integer", value)
        if not low <= value <= high:
            raise BadValue("out_of_range", f"{value} is not between {low} and {high}")
        return int(value)

    return Kind({"type": "integer", "minimum": low, "maximum": high, "description": description}, parse_integer)


def fraction(description: str) -> Kind:
    """A JSON number above 0 and up to 1."""

    def parse_fraction(value: Any) -> float:
        if type(value) not in (int, float):
            _wrong_type("a number", value)
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
        if _string(value) not in values:
            raise BadValue("not_a_choice", f"{value!r} is none of {', '.join(values)}")
        return str(value)

    return Kind({"type": "string", "enum": list(values), "description": description}, parse_choice)


def choices(description: str, values: Sequence[str]) -> Kind:
    """A list of different words, at least one."""
    one = choice("", values)

    def parse_choices(value: Any) -> tuple[str, ...]:
        chosen = _items(value, one.parse, len(values))
        if len(set(chosen)) != len(chosen):
            raise BadValue("duplicate", "a word stands twice in the list")
        return chosen

    items = {"type": "string", "enum": list(values)}
    return Kind(
        {"type": "array", "items": items, "minItems": 1, "uniqueItems": True, "description": description},
        parse_choices,
    )


def _items(value: Any, parse_item: Callable[[Any], str], most: int) -> tuple[str, ...]:
    if not isinstance(value, list):
        _wrong_type("a list", value)
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
        if not re.fullmatch(_DURATION, _string(value)):
            raise BadValue("bad_duration", f"{value!r} is no duration; expected one like 90s, 15m, 4h or 7d")
        seconds = _seconds(value)
        if not _seconds(low) <= seconds <= _seconds(high):
            raise BadValue("out_of_range", f"{value} is not between {low} and {high}")
        return seconds

    return Kind(
        {"type": "string", "pattern": _DURATION, "description": f"{description} {low} to {high}."}, parse_duration
    )


def _seconds(text: str) -> int:
    return int(text[:-1]) * _UNITS[text[-1]]


def size(description: str, high: int) -> Kind:
    """Bytes as an integer, or a string such as `300`, `64K`, `30M`, `1G` (powers of 1024)."""

    def parse_size(value: Any) -> int:
        if type(value) is not int and not isinstance(value, str):
            _wrong_type("an integer or a size such as 64K", value)
        if isinstance(value, str):
            if not re.fullmatch(_SIZE, value):
                raise BadValue("bad_size", f"{value!r} is no size; expected one like 300, 64K, 30M or 1G")
            value = int(value.rstrip("KMG")) * _SIZES[value.lstrip("0123456789")]
        if not 1 <= value <= high:
            raise BadValue("out_of_range", f"{value} is not between 1 and {high}")
        return int(value)

    number = {"type": "integer", "minimum": 1, "maximum": high}
    return Kind({"oneOf": [number, {"type": "string", "pattern": _SIZE}], "description": description}, parse_size)


def queue_id_problem(text: str) -> str | None:
    """What is wrong with a queue ID whatever the MTA, or None. Each adapter checks its own grammar besides."""
    if re.fullmatch(_QUEUE_ID, text) and text.lower() != "all":
        return None
    if text[-1:] in ("*", "!") and queue_id_problem(text[:-1]) is None:
        return f"{text!r} ends in the mark of a listing; write {text[:-1]!r}"
    if text.lower() == "all":
        return f"{text!r} is no queue ID; to select every message use match: ALL"
    return f"{text[:80]!r} is no queue ID; expected up to 64 letters, digits and inner hyphens"


def _parse_queue_id(value: Any) -> str:
    problem = queue_id_problem(_string(value))
    if problem:
        raise BadValue("bad_queue_id", problem)
    return str(value)


def _distinct_queue_ids(value: Any) -> tuple[str, ...]:
    return tuple(dict.fromkeys(_items(value, _parse_queue_id, MAX_IDS)))


_ID_SCHEMA = {"type": "string", "pattern": _QUEUE_ID, "not": {"pattern": "^[Aa][Ll][Ll]$"}}
QUEUE_ID = Kind({**_ID_SCHEMA, "description": "Queue ID as the MTA prints it, case kept."}, _parse_queue_id)
QUEUE_IDS = Kind(
    {
        "type": "array",
        "items": _ID_SCHEMA,
        "minItems": 1,
        "maxItems": MAX_IDS,
        "description": "Queue IDs of exactly one instance, instead of match. Repeated ones count once.",
    },
    _distinct_queue_ids,
)


def _parse_uuid(value: Any) -> str:
    try:
        return str(UUID(_string(value)))
    except ValueError as error:
        if isinstance(error, BadValue):
            raise
        raise BadValue("bad_id", f"{value[:80]!r} is no UUID") from error


def _distinct_uuids(value: Any) -> tuple[str, ...]:
    return tuple(dict.fromkeys(_items(value, _parse_uuid, MAX_IDS)))


_UUID = r"^[0-9a-fA-F]{8}(-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12}$"
UUIDS = Kind(
    {
        "type": "array",
        "items": {"type": "string", "pattern": _UUID},
        "minItems": 1,
        "maxItems": MAX_IDS,
        "description": "Ids of quarantined messages, as quarantine/ shows them.",
    },
    _distinct_uuids,
)


def _parse_match(value: Any) -> Expression:
    if not isinstance(value, str | dict):
        _wrong_type("an expression as a string or an object", value)
    try:
        return parse_any(value)
    except MatchError as error:
        raise BadValue("bad_pattern", str(error)) from error


MATCH = Kind(
    {
        "type": ["string", "object"],
        "description": "Which messages: `from:a@example.com age>4h` and the like, as text or as JSON, or `ALL`.",
    },
    _parse_match,
)


def _parse_pattern(value: Any) -> str:
    try:
        return parse_block_pattern(_string(value)).text
    except AddressError as error:
        raise BadValue(error.code, error.detail) from error


PATTERN = Kind(
    {
        "type": "string",
        "minLength": 1,
        "description": "user@domain, domain, .domain (with sub-domains) or <> (the null sender).",
    },
    _parse_pattern,
)


def address(description: str, *, null: bool = False) -> Kind:
    """A mailbox in RFC 5321 form without brackets, its domain turned to A-labels; with `null` also `<>`."""

    def parse_mailbox(value: Any) -> str:
        if null and _string(value) == "<>":
            return "<>"
        try:
            return parse_address(_string(value)).smtp
        except AddressError as error:
            raise BadValue(error.code, error.detail) from error

    return Kind({"type": "string", "minLength": 1, "description": description}, parse_mailbox)


def matching(description: str, code: str, expression: str, expected: str, most: int) -> Kind:
    """A string that fits a regular expression and is at most `most` characters long."""

    def parse_matching(value: Any) -> str:
        if not re.fullmatch(expression, _string(value)) or len(value) > most:
            raise BadValue(code, f"{value[:80]!r} does not fit; expected {expected}")
        return str(value)

    schema = {"type": "string", "pattern": expression, "maxLength": most, "description": description}
    return Kind(schema, parse_matching)


ENHANCED = matching(
    "Enhanced status code (RFC 3463) of the same class as code; X.7.1 when left out.",
    "bad_status",
    r"^[45]\.(0|[1-9][0-9]{0,2})\.(0|[1-9][0-9]{0,2})$",
    "an enhanced status such as 5.7.1",
    9,
)
REPLY_TEXT = matching(
    "Text of the refusal: one line of printable ASCII (RFC 5321 4.2).",
    "bad_text",
    _REPLY_TEXT,
    "one line of up to 200 printable ASCII characters without outer spaces",
    200,
)


def _parse_time(value: Any) -> datetime:
    if not _RFC_3339.fullmatch(_string(value)):
        raise BadValue("bad_time", f"{value[:80]!r} is no RFC 3339 time with a zone, such as 2030-01-31T12:00:00Z")
    try:
        return datetime.fromisoformat(value).astimezone(UTC)
    except (ValueError, OverflowError) as error:
        raise BadValue("bad_time", f"{value!r} is no time that exists: {error}") from error


EXPIRES_AT = Kind(
    {"type": "string", "format": "date-time", "description": "When the block ends by itself."}, _parse_time
)
UNTIL = Kind({"type": "string", "format": "date-time", "description": "No later than this; now."}, _parse_time)


def _parse_since(value: Any) -> datetime | timedelta:
    if not re.fullmatch(_DURATION, _string(value)):
        return _parse_time(value)
    return min(timedelta(seconds=_seconds(value)), 2 * MAX_BACK)


SINCE = Kind(
    {"type": "string", "description": "RFC 3339 time, or so long before now: 90s, 15m, 24h, 7d. At most 366 days."},
    _parse_since,
)

_A_LINE = "one line without control characters"
LOG_TEXT = matching("The line contains this, case and all.", "bad_text", _LINE, f"{_A_LINE}, up to 256 long", 256)
MESSAGE_ID = matching(
    "The Message-ID header, with or without < and >.", "bad_text", _LINE, f"{_A_LINE}, up to 998 long", 998
)


def address_pattern(description: str) -> Kind:
    """An address without regard to case, in which `*` is any text and `?` any character."""
    said = f"{description} Any case; * is any text, ? any character, a backslash before them takes that away."
    return matching(said, "bad_pattern", _LINE, f"an address or a pattern of addresses: {_A_LINE}, up to 320 long", 320)


_parse_line = matching("", "bad_pattern", _LINE, _A_LINE, patterns.LENGTH_LIMIT).parse


def _parse_regex(value: Any) -> str:
    try:
        return patterns.canonical(_parse_line(value))
    except MatchError as error:
        raise BadValue("bad_pattern", str(error)) from error


LOG_REGEX = Kind(
    {
        "type": "string",
        "pattern": _LINE,
        "maxLength": patterns.LENGTH_LIMIT,
        "description": "The line matches this regular expression (RE2) somewhere.",
    },
    _parse_regex,
)
