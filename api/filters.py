"""Filters of lists, strict: a value that cannot be is an error, and what is given is never left out silently.

Those that take words or names take several, with commas between them, and let pass what fits any of them. `\\,` is a
comma in a value, `\\\\` a backslash; a backslash before anything else is itself.
"""

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import partial, reduce
from operator import or_
from typing import Any
from uuid import UUID

from django.db.models import Func, Q, QuerySet, TextField, Value
from django.db.models.functions import Lower
from rest_framework.exceptions import ValidationError
from rest_framework.filters import BaseFilterBackend
from rest_framework.request import Request

from api.errors import Problem
from api.fields import parse_instant
from fleet.inventory import called
from jobs.actor import Actor
from jobs.errors import FieldError
from jobs.models.quarantine import SENDER_INDEXED, IndexedSender

Rows = QuerySet[Any]
MOST_VALUES = 100
PART = re.compile(r"\\[\\,]|.", re.DOTALL)


@dataclass(frozen=True, slots=True)
class Through:
    """Other rows that lead to those of the list, by their column `key`. What several filters of a request ask of them
    must be so of one and the same: a role as approver, and at that customer."""

    rows: Callable[[Actor], Rows]
    key: str


@dataclass(frozen=True, slots=True)
class Filter:
    """A query parameter. `read` turns its text into a value or raises ValueError; `apply` narrows the rows by that,
    or those that lead to them."""

    description: str
    apply: Callable[[Rows, Any], Rows]
    read: Callable[[str], Any] = str
    schema: dict[str, Any] = field(default_factory=lambda: {"type": "string"})
    through: Through | None = None


class StrictFilterBackend(BaseFilterBackend):
    """Narrows a list by the view's `filters`, in their order: a costly one stands last and sees what others left."""

    def filter_queryset(self, request: Request, queryset: Any, view: Any) -> Any:
        found = [(view.filters[name], value) for name, value in asked(request, view.filters).items()]
        ways = {each.through: each.through.rows(view.actor) for each, _ in found if each.through}
        for each, value in found:
            if each.through:
                ways[each.through] = each.apply(ways[each.through], value)
        for way, rows in ways.items():
            queryset = queryset.filter(pk__in=rows.order_by().values(way.key))
        for each, value in found:
            queryset = queryset if each.through else each.apply(queryset, value)
        return queryset

    def get_schema_operation_parameters(self, view: Any) -> list[dict[str, Any]]:
        return [
            {"in": "query", "name": name, "description": each.description, "schema": each.schema}
            for name, each in view.filters.items()
        ]


def asked(request: Request, filters: Mapping[str, Filter]) -> dict[str, Any]:
    """What the query says of these, in their order. Raises Problem 422."""
    given: Mapping[str, str] = request.query_params
    return {name: _value(name, each, given[name]) for name, each in filters.items() if name in given}


def _value(name: str, wanted: Filter, text: str) -> Any:
    """The value of a filter. Raises Problem 422."""
    try:
        if "\x00" in text:
            raise ValueError("a NUL character")
        return wanted.read(text)
    except ValueError as error:
        problem = FieldError(name, "invalid", f"{text[:100]!r} is not taken here: {error}")
        raise Problem(422, "invalid", f"{name}: {problem.detail}", errors=(problem,)) from None


def split(text: str) -> list[str]:
    """The values that the commas of a query's text separate. Raises ValueError."""
    values = [""]
    for part in PART.findall(text):
        if part == ",":
            values.append("")
        else:
            values[-1] += part[-1]
    if len(values) > MOST_VALUES:
        raise ValueError(f"at most {MOST_VALUES} values are taken")
    if len(values) > 1 and "" in values:
        raise ValueError(r"a value between commas is empty; a comma in a value is said \,")
    return values


def any_of(
    description: str,
    apply: Callable[[Rows, list[Any]], Rows],
    read: Callable[[str], Any] = str,
    schema: Mapping[str, Any] | None = None,
    through: Through | None = None,
) -> Filter:
    """A filter that takes several values. `read` reads one of them, `apply` has the list of all."""

    def read_all(text: str) -> list[Any]:
        return [read(value) for value in split(text)]

    shape = {"type": "string", **(schema or {})}
    return Filter(f"{description} Several with commas between them.", apply, read_all, shape, through)


def equals(column: str, description: str, through: Through | None = None) -> Filter:
    """Rows whose column is exactly one of these texts."""
    return any_of(description, lambda rows, values: rows.filter(**{f"{column}__in": values}), through=through)


def one_of(column: str, words: list[str], description: str, through: Through | None = None) -> Filter:
    """Rows whose column is one of a few words."""

    def apply(rows: Rows, values: list[str]) -> Rows:
        return rows.filter(**{f"{column}__in": values})

    known = "|".join(words)
    return any_of(description, apply, partial(word_of, words), {"pattern": f"^({known})(,({known}))*$"}, through)


def choice(words: list[str], description: str) -> Filter:
    """One of a few words, which narrows no rows."""
    return Filter(description, lambda rows, word: rows, partial(word_of, words), {"type": "string", "enum": words})


def word_of(words: list[str], text: str) -> str:
    """The text, which is one of these words. Raises ValueError."""
    if text not in words:
        raise ValueError(f"expected one of {', '.join(words)}")
    return text


def flag(column: str, description: str) -> Filter:
    """`true` or `false`."""
    return Filter(description, lambda rows, value: rows.filter(**{column: value}), _read_flag, {"type": "boolean"})


def _read_flag(text: str) -> bool:
    if text not in ("true", "false"):
        raise ValueError("expected true or false")
    return text == "true"


def switch(description: str) -> Filter:
    """`true` or `false` of an action that reads it itself, by `asked`."""
    return Filter(description, lambda rows, _: rows, _read_flag, {"type": "boolean"})


def word(description: str) -> Filter:
    """A text of such an action."""
    return Filter(description, lambda rows, _: rows)


def number(least: int, most: int, default: int, description: str) -> Filter:
    """A number for the view itself (`asked`): it narrows no rows."""

    def read(text: str) -> int:
        if text.isascii() and text.isdigit() and len(text) < 10 and least <= int(text) <= most:
            return int(text)
        raise ValueError(f"expected a number from {least} to {most}")

    schema = {"type": "integer", "minimum": least, "maximum": most, "default": default}
    return Filter(description, lambda rows, value: rows, read, schema)


def instant(text: str) -> Any:
    """A time of RFC 3339. Raises ValueError."""
    try:
        return parse_instant(text)
    except ValidationError:
        raise ValueError("expected a time such as 2026-01-31T12:00:00Z") from None


def when(lookup: str, description: str) -> Filter:
    """Rows before or after a time of RFC 3339."""
    schema = {"type": "string", "format": "date-time"}
    return Filter(description, lambda rows, value: rows.filter(**{lookup: value}), instant, schema)


def identity(column: str, description: str) -> Filter:
    """Rows whose column is that UUID."""
    schema = {"type": "string", "format": "uuid"}
    return Filter(description, lambda rows, value: rows.filter(**{column: value}), UUID, schema)


def instance(path: str, description: str, through: Through | None = None) -> Filter:
    """Rows of the instance `host/name`."""

    def read(text: str) -> tuple[str, str]:
        host, slash, name = text.partition("/")
        if not host or not slash or not name:
            raise ValueError("expected host/name, such as mx1/postfix")
        return host, name

    def apply(rows: Rows, values: list[tuple[str, str]]) -> Rows:
        wanted = (Q(called(name, path), **{f"{path}host__name": host}) for host, name in values)
        return rows.filter(reduce(or_, wanted))

    return any_of(description, apply, read, through=through)


class LabelValue(Func):
    """The value of one of a host's labels. Django's own transform takes a key such as 1 for the place in an array."""

    function = "jsonb_extract_path_text"
    output_field = TextField()
    arity = 2

    def as_sqlite(self, compiler: Any, connection: Any, **extra: Any) -> Any:
        template = "(SELECT value FROM json_each(%(expressions)s))"
        return self.as_sql(compiler, connection, template=template, arg_joiner=") WHERE key = (", **extra)


def label(description: str) -> Filter:
    """Hosts that carry the label `key=value`: as in a target, one value of each key that is named."""

    def read(text: str) -> tuple[str, str]:
        key, separator, value = text.partition("=") if "=" in text else text.partition(":")
        if not key or not separator:
            raise ValueError("expected key=value, such as role=mx")
        return key, value

    def apply(rows: Rows, values: list[tuple[str, str]]) -> Rows:
        for number, key in enumerate(sorted({key for key, _ in values})):
            wanted = [to for each, to in values if each == key]
            rows = rows.alias(**{f"label_{number}": LabelValue("labels", Value(key))})
            rows = rows.filter(**{f"label_{number}__in": wanted})
        return rows

    return any_of(description, apply, read)


def sender(description: str) -> Filter:
    """Quarantined messages from that address, whatever the case of its letters."""

    def read(text: str) -> str:
        if len(text) >= SENDER_INDEXED:
            raise ValueError(f"an address of up to {SENDER_INDEXED - 1} characters is expected")
        return text

    def apply(rows: Rows, values: list[str]) -> Rows:
        lowered = [Lower(Value(value)) for value in values]
        found: Rows = rows.alias(from_address=IndexedSender("sender")).filter(from_address__in=lowered)
        return found

    return any_of(description, apply, read)
