"""Serializer fields that take JSON types as they are: nothing is coerced, trimmed or ignored."""

import re
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

from rest_framework import serializers
from rest_framework.exceptions import ErrorDetail, ValidationError

from jobs.jsonvalues import rfc3339

RFC_3339 = re.compile(r"\d{4}-\d\d-\d\d[Tt]\d\d:\d\d:\d\d(\.\d{1,6})?([Zz]|[+-]\d\d:\d\d)", re.ASCII)
DURATION = re.compile(r"([1-9][0-9]{0,8})([smhd])", re.ASCII)
SECONDS = {"s": 1, "m": 60, "h": 3600, "d": 86_400}
NAME = (r"[A-Za-z0-9][A-Za-z0-9._-]*", "a name of letters, digits, dots, hyphens and underscores")
NAME_LENGTH = 63
LINE = (r"[^\x00-\x1f\x7f-\x9f\u2028\u2029\u202a-\u202e\u2066-\u2069]*", "one line without control characters")
JSON_NAMES = {str: "string", bool: "boolean", int: "integer", float: "number", list: "array", dict: "object"}


def wrong_type(expected: str, value: Any) -> ValidationError:
    """The error for a value of another JSON type."""
    got = "null" if value is None else JSON_NAMES.get(type(value), type(value).__name__)
    return ValidationError(f"expected {expected}, got {got}", code="wrong_type")


class Text(serializers.CharField):
    """A string, kept exactly. `pattern`: (regular expression for all of it, what it means in words)."""

    def __init__(self, *, pattern: tuple[str, str] | None = None, **options: Any) -> None:
        super().__init__(trim_whitespace=False, **options)
        self.pattern = pattern

    def to_internal_value(self, data: Any) -> str:
        if not isinstance(data, str):
            raise wrong_type("a string", data)
        if self.pattern and not re.fullmatch(self.pattern[0], data):
            raise ValidationError(f"expected {self.pattern[1]}", code="invalid")
        return data

    def to_representation(self, value: Any) -> str:
        return str(value)


class OrNull(Text):
    """A text of an answer; null where there is none."""

    def __init__(self, **options: Any) -> None:
        super().__init__(allow_null=True, **options)

    def to_representation(self, value: Any) -> Any:
        return value or None


class Reference(Text):
    """Another row by the name that it has in `attribute`; that there is such a row is looked at by who takes it."""

    def __init__(self, attribute: str, **options: Any) -> None:
        super().__init__(**options)
        self.attribute = attribute

    def to_representation(self, value: Any) -> str:
        return str(getattr(value, self.attribute))


class Name(Text):
    """A name, as objects have it."""

    def __init__(self, **options: Any) -> None:
        super().__init__(pattern=NAME, max_length=NAME_LENGTH, **options)


class Integer(serializers.IntegerField):
    """A JSON integer."""

    def to_internal_value(self, data: Any) -> int:
        if type(data) is not int:
            raise wrong_type("an integer", data)
        return int(data)


class Flag(serializers.BooleanField):
    """true or false."""

    def to_internal_value(self, data: Any) -> bool:
        if not isinstance(data, bool):
            raise wrong_type("true or false", data)
        return data


class Choice(serializers.ChoiceField):
    """One of a few words."""

    def to_internal_value(self, data: Any) -> str:
        if not isinstance(data, str):
            raise wrong_type("a string", data)
        if data not in self.choices:
            raise ValidationError(f"expected one of {', '.join(map(str, self.choices))}", code="invalid")
        return data


class Instant(serializers.DateTimeField):
    """RFC 3339 with a zone; no leap seconds. Kept in UTC."""

    def to_internal_value(self, value: Any) -> datetime:
        if not isinstance(value, str):
            raise wrong_type("a time as a string", value)
        return parse_instant(value)


class Epoch(Instant):
    """The same, kept in seconds since 1970."""

    def to_representation(self, value: Any) -> str:
        return rfc3339(value)


def parse_instant(text: str) -> datetime:
    """A time of RFC 3339, in UTC. Raises ValidationError."""
    try:
        if not RFC_3339.fullmatch(text):
            raise ValueError("form")
        return datetime.fromisoformat(text.upper()).astimezone(UTC)
    except (ValueError, OverflowError):
        raise ValidationError("expected a time such as 2026-01-31T12:00:00Z", code="invalid") from None


class Duration(Text):
    """`90s`, `15m`, `4h`, `7d`; kept in seconds."""

    def __init__(self, **options: Any) -> None:
        super().__init__(pattern=(DURATION.pattern, "a duration such as 90s, 15m, 4h or 7d"), **options)

    def to_internal_value(self, data: Any) -> Any:
        number, unit = DURATION.fullmatch(super().to_internal_value(data)).groups()  # type: ignore[union-attr]  # matched
        return int(number) * SECONDS[unit]


class JsonObject(serializers.DictField):
    """A JSON object whose inside another layer checks."""

    def to_internal_value(self, data: Any) -> dict[str, Any]:
        if not isinstance(data, Mapping):
            raise wrong_type("an object", data)
        return dict(data)

    def to_representation(self, value: Any) -> Any:
        return value


class Texts(serializers.ListField):
    """A list of strings."""

    def __init__(self, child: serializers.Field[Any, Any, Any, Any] | None = None, **options: Any) -> None:
        super().__init__(child=child or Text(), **options)

    def to_internal_value(self, data: Any) -> list[Any]:
        if not isinstance(data, list):
            raise wrong_type("an array", data)
        if self.max_length is not None and len(data) > self.max_length:  # before each item is looked at
            self.fail("max_length", max_length=self.max_length)
        return list(super().to_internal_value(data))


class StrictSerializer(serializers.Serializer[Any]):
    """An object with exactly these fields: what is unknown or read only is an error, not ignored."""

    def to_internal_value(self, data: Any) -> Any:
        if not isinstance(data, Mapping):
            raise ValidationError({"non_field_errors": wrong_type("an object", data).detail})
        wrong: dict[str, Any] = {}
        for name in data:
            if name not in self.fields:
                wrong[name] = [ErrorDetail(f"there is no field {name[:100]!r} here", code="unknown_field")]
            elif self.fields[name].read_only:
                wrong[name] = [ErrorDetail("is read only", code="unknown_field")]
        try:
            values = super().to_internal_value(data)
        except ValidationError as error:
            wrong.update(error.detail if isinstance(error.detail, dict) else {})
        if wrong:
            raise ValidationError(wrong)
        return values
