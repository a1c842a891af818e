"""Filters of lists, strict: a value that cannot be is an error, and what is given is never left out silently."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any
from uuid import UUID

from django.db.models import QuerySet, TextField
from django.db.models.fields.json import KeyTextTransform
from django.db.models.functions import Cast
from rest_framework.exceptions import ValidationError
from rest_framework.filters import BaseFilterBackend
from rest_framework.request import Request

from api.errors import Problem
from api.fields import parse_instant
from fleet.inventory import called
from jobs.errors import FieldError

Rows = QuerySet[Any]


@dataclass(frozen=True, slots=True)
class Filter:
    """A query parameter. `read` turns its text into a value or raises ValueError; `apply` narrows the rows by that."""

    description: str
    apply: Callable[[Rows, Any], Rows]
    read: Callable[[str], Any] = str
    schema: dict[str, Any] = field(default_factory=lambda: {"type": "string"})


class StrictFilterBackend(BaseFilterBackend):
    """Narrows a list by the view's `filters`, in their order: a costly one stands last and sees what others left."""

    def filter_queryset(self, request: Request, queryset: Any, view: Any) -> Any:
        for name, value in asked(request, view.filters).items():
            queryset = view.filters[name].apply(queryset, value)
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


def equals(column: str, description: str) -> Filter:
    """Rows whose column is exactly that text."""
    return Filter(description, lambda rows, value: rows.filter(**{column: value}))


def one_of(column: str, words: list[str], description: str) -> Filter:
    """Rows whose column is that one of a few words."""

    def read(text: str) -> str:
        if text not in words:
            raise ValueError(f"expected one of {', '.join(words)}")
        return text

    schema = {"type": "string", "enum": words}
    return Filter(description, lambda rows, value: rows.filter(**{column: value}), read, schema)


def choice(words: list[str], description: str) -> Filter:
    """One of a few words that says how the answer is given; it narrows nothing."""
    return replace(one_of("", words, description), apply=lambda rows, value: rows)


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


def when(lookup: str, description: str) -> Filter:
    """Rows before or after a time of RFC 3339."""

    def read(text: str) -> Any:
        try:
            return parse_instant(text)
        except ValidationError:
            raise ValueError("expected a time such as 2026-01-31T12:00:00Z") from None

    schema = {"type": "string", "format": "date-time"}
    return Filter(description, lambda rows, value: rows.filter(**{lookup: value}), read, schema)


def identity(column: str, description: str) -> Filter:
    """Rows whose column is that UUID."""
    schema = {"type": "string", "format": "uuid"}
    return Filter(description, lambda rows, value: rows.filter(**{column: value}), UUID, schema)


def instance(path: str, description: str) -> Filter:
    """Rows of the instance `host/name`."""

    def read(text: str) -> tuple[str, str]:
        host, slash, name = text.partition("/")
        if not host or not slash or not name:
            raise ValueError("expected host/name, such as mx1/postfix")
        return host, name

    def apply(rows: Rows, value: tuple[str, str]) -> Rows:
        return rows.filter(called(value[1], path), **{f"{path}host__name": value[0]}).distinct()

    return Filter(description, apply, read)


def label(description: str) -> Filter:
    """Hosts that carry the label `key=value`."""

    def read(text: str) -> tuple[str, str]:
        key, separator, value = text.partition("=") if "=" in text else text.partition(":")
        if not key or not separator:
            raise ValueError("expected key=value, such as role=mx")
        return key, value

    def apply(rows: Rows, value: tuple[str, str]) -> Rows:
        text = Cast(KeyTextTransform(value[0], "labels"), TextField())
        labelled: Rows = rows.annotate(wanted_label=text).filter(wanted_label=value[1])
        return labelled

    return Filter(description, apply, read)
