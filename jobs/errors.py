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
        """One wrong field; its code is also the error's own, unless it is one of the shape codes."""
        top = "invalid" if code in SHAPE_CODES else code
        return cls(top, detail, (FieldError(field, code, detail),))


SHAPE_CODES = frozenset({"unknown_field", "required", "wrong_type", "invalid"})


class Forbidden(ServiceError):
    """The caller may see it, and may not do that."""


class NotFound(ServiceError):
    """Not there, or not the caller's to see."""


class Clash(ServiceError):
    """The object's state stands against it."""


class Unavailable(ServiceError):
    """The record cannot be written, so nothing is begun."""
