"""The values that params of several operations have: queue IDs, matches, patterns, times."""

import re
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

from fleet.match import Expression, MatchError, parse_any, patterns
from fleet.match.fields import check_address
from fleet.mta.address import AddressError, parse_block_pattern
from fleet.mta.params.kinds import DURATION, BadValue, Kind, as_items, as_string, matching, seconds_of, wrong_type

_RFC_3339 = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d{1,6})?(Z|[+-]\d\d:\d\d)", re.ASCII)

MAX_IDS = 100_000
MAX_AHEAD = timedelta(days=3660)
MAX_BACK = timedelta(days=366)
_QUEUE_ID = r"^[0-9A-Za-z][0-9A-Za-z-]{0,63}$"
_REPLY_TEXT = r"^[!-~]([ -~]*[!-~])?$"
_LINE = r"^[^\u0000-\u001f\u007f\ud800-\udfff]+$"


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
    problem = queue_id_problem(as_string(value))
    if problem:
        raise BadValue("bad_queue_id", problem)
    return str(value)


def _distinct(parse: Callable[[Any], str]) -> Callable[[Any], tuple[str, ...]]:
    """The items of a list, each once."""
    return lambda value: tuple(dict.fromkeys(as_items(value, parse, MAX_IDS)))


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
    _distinct(_parse_queue_id),
)


def _parse_uuid(value: Any) -> str:
    try:
        return str(UUID(as_string(value)))
    except ValueError as error:
        if isinstance(error, BadValue):
            raise
        raise BadValue("bad_id", f"{value[:80]!r} is no UUID") from error


_UUID = r"^[0-9a-fA-F]{8}(-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12}$"
UUIDS = Kind(
    {
        "type": "array",
        "items": {"type": "string", "pattern": _UUID},
        "minItems": 1,
        "maxItems": MAX_IDS,
        "description": "Ids of quarantined messages, as quarantine/ shows them.",
    },
    _distinct(_parse_uuid),
)


def _parse_match(value: Any) -> Expression:
    if not isinstance(value, str | dict):
        wrong_type("an expression as a string or an object", value)
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
        return parse_block_pattern(as_string(value)).text
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


def _parse_time(value: Any, lack: str = "no") -> datetime:
    if not _RFC_3339.fullmatch(as_string(value)):
        raise BadValue("bad_time", f"{value[:80]!r} is {lack} RFC 3339 time with a zone, such as 2030-01-31T12:00:00Z")
    try:
        return datetime.fromisoformat(value).astimezone(UTC)
    except (ValueError, OverflowError) as error:
        raise BadValue("bad_time", f"{value!r} is no time that exists: {error}") from error


EXPIRES_AT = Kind(
    {"type": "string", "format": "date-time", "description": "When the block ends by itself."}, _parse_time
)
UNTIL = Kind({"type": "string", "format": "date-time", "description": "No later than this; now."}, _parse_time)


def _parse_since(value: Any) -> datetime | timedelta:
    if not re.fullmatch(DURATION, as_string(value)):
        return _parse_time(value, "neither a duration such as 24h (s, m, h or d) nor an")
    return min(timedelta(seconds=seconds_of(value)), 2 * MAX_BACK)


SINCE = Kind(
    {"type": "string", "description": "RFC 3339 time, or so long before now: 90s, 15m, 24h, 7d. At most 366 days."},
    _parse_since,
)
_A_LINE = "one line without control characters"
LOG_TEXT = matching("The line contains this, case and all.", "bad_text", _LINE, f"{_A_LINE}, up to 256 long", 256)
_message_id = matching(
    "The Message-ID header, with or without < and >.", "bad_text", _LINE, f"{_A_LINE}, up to 998 long", 998
)


def _parse_message_id(value: Any) -> str:
    """What is pasted with it is refused: looked for as it stands it would find nothing."""
    text: str = _message_id.parse(value)
    if text != text.strip() or re.match(r"message-id:", text, re.IGNORECASE) or not text.strip("<>"):
        raise BadValue("bad_text", f"{text[:80]!r} does not fit; expected a Message-ID without its name and blanks")
    return text


MESSAGE_ID = Kind(_message_id.schema, _parse_message_id)


def address_pattern(description: str) -> Kind:
    """An address without regard to case, in which `*` is any text and `?` any character."""
    full = f"{description} Any case; * is any text, ? any character, a backslash before them takes that away."
    expected = f"an address or a pattern of addresses: {_A_LINE}, up to 320 long"
    line = matching(full, "bad_pattern", _LINE, expected, 320)

    def parse_address_pattern(value: Any) -> str:
        text: str = line.parse(value)
        try:
            check_address(text)
        except MatchError as error:
            raise BadValue("bad_pattern", str(error)) from error
        return text

    return Kind(line.schema, parse_address_pattern)


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
