"""What a service refuses. api/errors.py turns these into problem+json; the kind decides the status.

ServiceError
├── Invalid        422   a field is wrong: `errors` names each
├── Forbidden      403   the caller may see it, and may not do that
├── NotFound       404   not there, or not the caller's to see: the same answer
├── Clash          409   the object's state stands against it
└── Unavailable    503   the record cannot be written, so nothing is begun
"""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class FieldError:
    """`field` as a path in the request body (`params.match`)."""

    field: str
    code: str
    detail: str


class ServiceError(Exception):
    """Base: `code` as in the API, `detail` for people."""

    def __init__(self, code: str, detail: str, errors: tuple[FieldError, ...] = ()) -> None:
        super().__init__(detail)
        self.code = code
        self.detail = detail
        self.errors = errors


class Invalid(ServiceError):
    """A field is wrong."""

    @classmethod
    def field(cls, field: str, code: str, detail: str) -> "Invalid":
        """One wrong field; its code is also the error's own when integrations may switch on it."""
        return cls.fields(FieldError(field, code, detail))

    @classmethod
    def fields(cls, *errors: FieldError) -> "Invalid":
        """Several wrong fields; the first one speaks for all."""
        first = errors[0]
        return cls(first.code if first.code in TOP_CODES else "invalid", first.detail, errors)


TOP_CODES = frozenset(
    {
        "no_target",
        "unknown_target",
        "disabled",
        "matches_all",
        "too_broad",
        "protected",
        "bad_pattern",
        "bad_queue_id",
        "forbidden_range",
        "unsupported",
        "unusable_key",
        "name_taken",
        "reserved_name",
        "scope_mismatch",
    }
)
"""422 codes that stand at the top of the answer; every other one is `invalid` there and named in errors[]."""


class Forbidden(ServiceError):
    """The caller may see it, and may not do that."""


class NotFound(ServiceError):
    """Not there, or not the caller's to see."""


class Clash(ServiceError):
    """The object's state stands against it."""


class Unavailable(ServiceError):
    """The record cannot be written, so nothing is begun."""
