"""A request's JSON body, read strictly: what two parsers could read differently is refused."""

import json
from collections.abc import Mapping
from typing import Any

from django.conf import settings
from django.http import HttpRequest
from django.http.request import UnreadablePostError
from rest_framework.parsers import BaseParser

from api.errors import Problem

MAX_DEPTH = 20
MAX_NUMBER = 1 << 53
"""Beyond this two readers of JSON may see different numbers (RFC 7493 2.2), and the audit trail takes none."""


class StrictJSONParser(BaseParser):
    """What stands behind `request.data`. Raises Problem: 400, 413 or 415."""

    media_type = "application/json"

    def parse(self, stream: Any, media_type: str | None = None, parser_context: Mapping[str, Any] | None = None) -> Any:
        raw = read_body(stream, settings.BODY_LIMIT)
        if not raw:
            return {}
        _check_type(stream)
        return parse(raw)


def parse(raw: bytes) -> Any:
    """JSON text (RFC 8259, I-JSON of RFC 7493) as Python values. Raises Problem 400."""
    try:
        value = json.loads(
            raw.decode("utf-8"),
            object_pairs_hook=_object,
            parse_constant=_constant,
            parse_float=_float,
            parse_int=_integer,
        )
    except RecursionError:
        raise _malformed(f"nested deeper than {MAX_DEPTH} levels") from None
    except UnicodeDecodeError as error:
        raise _malformed(f"not UTF-8 at byte {error.start + 1}") from None
    except json.JSONDecodeError as error:
        raise _malformed(f"{error.msg} at line {error.lineno}, column {error.colno}") from None
    _walk(value)
    return value


def read_body(request: HttpRequest, limit: int) -> bytes:
    """The body, of at most so many bytes. Raises Problem 400, 413, 415."""
    encoding = request.headers.get("Content-Encoding", "identity").strip().lower()
    if encoding not in ("", "identity"):
        raise Problem(415, "unsupported_media_type", f"Content-Encoding {encoding[:40]} is not taken; send it plain")
    try:
        raw = request.read(limit + 1)
    except (UnreadablePostError, OSError) as error:
        raise Problem(400, "bad_request", "the body ended before it was complete") from error
    if len(raw) > limit:
        raise Problem(413, "too_large", f"a body has at most {limit} bytes")
    return raw


def _check_type(request: HttpRequest) -> None:
    charset = (request.content_params or {}).get("charset", "utf-8").lower()
    if request.content_type != "application/json" or charset not in ("utf-8", "utf8"):
        raise Problem(415, "unsupported_media_type", "Content-Type must be application/json, in UTF-8")


def _malformed(detail: str) -> Problem:
    return Problem(400, "malformed_json", detail)


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    made: dict[str, Any] = {}
    for name, value in pairs:
        if name in made:
            raise Problem(400, "duplicate_key", f"the key {name[:100]!r} stands twice in one object")
        made[name] = value
    return made


def _constant(text: str) -> None:
    raise _malformed(f"{text} is no JSON number")


def _float(text: str) -> float:
    number = float(text)
    if abs(number) > MAX_NUMBER:
        raise _malformed(f"the number {text[:40]} is out of range")
    return number


def _integer(text: str) -> int:
    if len(text) > 20 or abs(int(text)) > MAX_NUMBER:
        raise _malformed(f"the number {text[:40]} is out of range")
    return int(text)


def _walk(value: Any, depth: int = 1) -> None:
    if depth > MAX_DEPTH + 1:
        raise _malformed(f"nested deeper than {MAX_DEPTH} levels")
    if isinstance(value, str):
        _check_text(value)
    elif isinstance(value, dict):
        for name, inner in value.items():
            _check_text(name)
            _walk(inner, depth + 1)
    elif isinstance(value, list):
        for inner in value:
            _walk(inner, depth + 1)


def _check_text(text: str) -> None:
    try:
        text.encode("utf-8")
    except UnicodeEncodeError as error:
        raise _malformed(f"a lone surrogate U+{ord(text[error.start]):04X} is no character") from None
