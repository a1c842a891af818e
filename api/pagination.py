"""Cursor pages: stable under writes, signed, and bound to the list that they were made for."""

import base64
import hashlib
import hmac
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any
from urllib.parse import urlencode
from uuid import UUID

from django.conf import settings
from django.db import models
from django.db.models import Q, QuerySet
from rest_framework.pagination import BasePagination
from rest_framework.request import Request
from rest_framework.response import Response
from rest_framework.utils.encoders import JSONEncoder

from api.errors import Problem
from jobs.errors import FieldError

DEFAULT_LIMIT = 100
MAX_LIMIT = 500
BATCH = DEFAULT_LIMIT + 1
"""Rows that are read at once, so that few are in memory when they prove to be large."""
HEAVY = 4 << 20
"""Characters of JSON in the rows of a page, after which it ends, whatever its limit: a row may have a whole body's."""

Ordering = tuple[str, ...]
PAGE_PARAMETERS = ("limit", "cursor", "ordering")
ADDRESS = {"type": ["string", "null"], "format": "uri"}


@dataclass(frozen=True, slots=True)
class Page:
    """A list page: `rows`, and the absolute addresses of its neighbours."""

    rows: list[Any]
    next: str | None
    previous: str | None

    def of(self, results: Any) -> dict[str, Any]:
        """The page as JSON. `results`: its rows as that."""
        return {"next": self.next, "previous": self.previous, "results": results}


class SignedCursorPagination(BasePagination):
    """A page of the view's rows, in one of its `orderings`."""

    found: Page

    def paginate_queryset(self, queryset: Any, request: Request, view: Any = None) -> list[Any]:
        url = request.build_absolute_uri(request.path)
        self.found = paginate(queryset, request.query_params.dict(), url, view.orderings)
        return self.found.rows

    def get_paginated_response(self, data: Any) -> Response:
        return Response(self.found.of(data))

    def get_paginated_response_schema(self, schema: dict[str, Any]) -> dict[str, Any]:
        return {
            "type": "object",
            "properties": {"next": ADDRESS, "previous": ADDRESS, "results": schema},
            "required": ["next", "previous", "results"],
            "additionalProperties": False,
        }

    def get_schema_operation_parameters(self, view: Any) -> list[dict[str, Any]]:
        words = [word for name in view.orderings for word in (name, _flip(name))]
        limit = {"type": "integer", "minimum": 1, "maximum": MAX_LIMIT, "default": DEFAULT_LIMIT}
        cursor = {"type": "string", "description": "from `next` or `previous` of a page"}
        schemas = (limit, cursor, {"type": "string", "enum": words})
        return [
            {"in": "query", "name": name, "schema": schema}
            for name, schema in zip(PAGE_PARAMETERS, schemas, strict=True)
        ]


def first_page(rows: list[Any], limit: int, url: str, orderings: Mapping[str, Ordering]) -> Page:
    """The first page of the list at `url`, whose first rows (one more than `limit`, if there are) are known already."""
    name, fields = next(iter(orderings.items()))
    has_more, window = len(rows) > limit, rows[:limit]
    following = _link(url, {}, "next", window[-1], fields, f"{url}?ordering={name}") if has_more else None
    return Page(window, next=following, previous=None)


def paginate(
    rows: QuerySet[Any], params: Mapping[str, str], url: str, orderings: Mapping[str, Ordering], most: int = MAX_LIMIT
) -> Page:
    """The page that `params` (limit, cursor, ordering) ask for.

    `url`: the list's absolute address without query. `orderings`: name as in `?ordering=` to model fields, the last
    of which is unique; the first one is the default. Raises Problem 400 (cursor) or 422 (limit, ordering).
    """
    limit = _limit(params, most)
    name, fields = _ordering(params, orderings)
    key = f"{url}?ordering={name}"
    direction, values = _read_cursor(params["cursor"], key) if "cursor" in params else ("next", None)
    flipped = tuple(_flip(field) for field in fields) if direction == "previous" else fields
    window, has_more = _window(rows.prefetch_related(None).order_by(*flipped), flipped, values, limit)
    wanted = rows._prefetch_related_lookups  # type: ignore[attr-defined]  # Django has no other name for them
    models.prefetch_related_objects(window, *wanted)  # once, however many batches there were
    if direction == "previous":
        window.reverse()
    has_before = values is not None if direction == "next" else has_more
    has_after = has_more if direction == "next" else True

    return Page(
        window,
        next=_link(url, params, "next", window[-1], fields, key) if window and has_after else None,
        previous=_link(url, params, "previous", window[0], fields, key) if window and has_before else None,
    )


def _window(rows: QuerySet[Any], fields: Ordering, after: Sequence[Any] | None, limit: int) -> tuple[list[Any], bool]:
    """At most `limit` rows behind `after`, fewer but one at least where they are heavy; whether there are more."""
    window: list[Any] = []
    weight = 0
    while True:
        rest = rows if after is None else rows.filter(_beyond(fields, after))
        batch = list(rest[: min(BATCH, limit + 1 - len(window))])
        for row in batch:
            if len(window) == limit or weight > HEAVY:
                return window, True
            window.append(row)
            weight += _weight(row)
        if len(batch) < BATCH:
            return window, False
        after = [_value(window[-1], field) for field in fields]


def _weight(row: models.Model) -> int:
    loaded = row.__dict__
    columns = (each.attname for each in row._meta.concrete_fields if isinstance(each, models.JSONField))
    return sum(len(json.dumps(loaded[name], cls=JSONEncoder)) for name in columns if loaded.get(name))


def _link(url: str, params: Mapping[str, str], towards: str, row: Any, fields: Ordering, key: str) -> str:
    cursor = _write_cursor(towards, [_value(row, field) for field in fields], key)
    others = {name: text for name, text in params.items() if name != "cursor"}
    return f"{url}?{urlencode({**others, 'cursor': cursor})}"


def _limit(params: Mapping[str, str], most: int) -> int:
    text = params.get("limit", str(min(DEFAULT_LIMIT, most)))
    if text.isascii() and text.isdigit() and len(text) < 6 and 1 <= int(text) <= most:
        return int(text)
    raise _invalid("limit", f"expected a number from 1 to {most}")


def _ordering(params: Mapping[str, str], orderings: Mapping[str, Ordering]) -> tuple[str, Ordering]:
    name = params.get("ordering", next(iter(orderings)))
    if name in orderings:
        return name, orderings[name]
    opposite = name[1:] if name.startswith("-") else f"-{name}"
    if opposite in orderings:
        return name, tuple(_flip(field) for field in orderings[opposite])
    raise _invalid("ordering", f"expected one of {', '.join(orderings)}, or with the other sign")


def _invalid(field: str, detail: str) -> Problem:
    return Problem(422, "invalid", f"{field}: {detail}", errors=(FieldError(field, "invalid", detail),))


def _flip(field: str) -> str:
    return field[1:] if field.startswith("-") else f"-{field}"


def _beyond(fields: Sequence[str], values: Sequence[Any]) -> Q:
    """The rows after `values` in the order of `fields`."""
    beyond, equal = Q(), Q()
    for field, value in zip(fields, values, strict=True):
        name = field.lstrip("-")
        beyond |= equal & Q(**{f"{name}__{'lt' if field.startswith('-') else 'gt'}": value})
        equal &= Q(**{name: value})
    return beyond


def _value(row: Any, field: str) -> Any:
    for name in field.lstrip("-").split("__"):
        row = getattr(row, name)
    return row


def _write_cursor(direction: str, values: list[Any], key: str) -> str:
    payload = json.dumps([direction, values], default=_text, separators=(",", ":")).encode()
    return base64.urlsafe_b64encode(_signature(payload, key) + payload).decode().rstrip("=")


def _text(value: Any) -> str:
    if isinstance(value, datetime):
        return value.isoformat()
    if isinstance(value, UUID):
        return str(value)
    raise TypeError(f"{type(value).__name__} cannot stand in a cursor")


def _read_cursor(cursor: str, key: str) -> tuple[str, list[Any]]:
    try:
        raw = base64.b64decode(cursor + "=" * (-len(cursor) % 4), altchars=b"-_", validate=True)
    except ValueError:
        raw = b""
    if not hmac.compare_digest(raw[:16], _signature(raw[16:], key)):
        raise Problem(400, "bad_cursor", "this cursor is not one of ours, or is of another list or ordering")
    direction, values = json.loads(raw[16:])
    return direction, values


def _signature(payload: bytes, key: str) -> bytes:
    secret = settings.SECRET_KEY.encode()
    return hmac.new(secret, b"cursor\x00" + key.encode() + b"\x00" + payload, hashlib.sha256).digest()[:16]
