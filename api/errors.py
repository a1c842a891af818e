"""Every error as RFC 9457 application/problem+json: what services refuse, what DRF and Django raise, and bugs."""

import json
import logging
import uuid
from collections.abc import Sequence
from http import HTTPStatus
from typing import Any

from django.core.exceptions import SuspiciousOperation
from django.db import DatabaseError, DataError, IntegrityError, ProgrammingError
from django.http import HttpRequest, HttpResponse
from rest_framework import exceptions
from rest_framework.response import Response

from jobs import errors as service

logger = logging.getLogger(__name__)

JSON_TYPE = "application/problem+json"
STATUSES: dict[type[service.ServiceError], int] = {
    service.Invalid: 422,
    service.Forbidden: 403,
    service.NotFound: 404,
    service.Clash: 409,
    service.Unavailable: 503,
}
HOW_TO_LOG_IN = "send a token: Authorization: Bearer mxf_..."
CODES = {
    400: "bad_request",
    401: "unauthenticated",
    403: "forbidden",
    404: "not_found",
    405: "method_not_allowed",
    408: "request_timeout",
    409: "conflict",
    412: "precondition_failed",
    413: "too_large",
    415: "unsupported_media_type",
    422: "invalid",
    429: "rate_limited",
    431: "headers_too_large",
    500: "internal_error",
    503: "unavailable",
}
FIELD_CODES = {"null": "wrong_type", "not_a_list": "wrong_type", "not_a_dict": "wrong_type", "blank": "required"}
ERRORS_LISTED = 100
"""At most so many of a problem's errors are listed one by one; `more_errors` counts the others."""
FIELDS_LISTED = 3
"""At most so many wrong fields stand in a problem's `detail`, which counts the others."""
KEPT_CODES = frozenset({"unknown_field", "required", "wrong_type", "out_of_range"})


class Problem(Exception):
    """A request that is answered with an error of the HTTP layer itself."""

    def __init__(
        self,
        status: int,
        code: str,
        detail: str,
        headers: dict[str, str] | None = None,
        errors: tuple[service.FieldError, ...] = (),
    ) -> None:
        super().__init__(detail)
        self.status, self.code, self.detail = status, code, detail
        self.headers = headers or {}
        self.errors = errors
        self.extra: dict[str, Any] = {}


def document(request_id: str, problem: Problem) -> dict[str, Any]:
    """The problem as JSON."""
    more = len(problem.errors) - ERRORS_LISTED
    return {
        "type": f"urn:mxfleet:problem:{problem.code}",
        "title": HTTPStatus(problem.status).phrase,
        "status": problem.status,
        "detail": problem.detail,
        "code": problem.code,
        "request_id": request_id,
        "errors": [{"field": e.field, "code": e.code, "detail": e.detail} for e in problem.errors[:ERRORS_LISTED]],
        **({"more_errors": more} if more > 0 else {}),
        **problem.extra,
    }


def bare(problem: Problem) -> tuple[list[tuple[bytes, bytes]], bytes]:
    """The problem as headers and content, for where there is no Django yet. It ends the connection."""
    request_id = uuid.uuid4().hex
    content = json.dumps(document(request_id, problem)).encode()
    headers = {
        "content-type": JSON_TYPE,
        "content-length": str(len(content)),
        "x-request-id": request_id,
        "connection": "close",
        **{name.lower(): value for name, value in problem.headers.items()},
    }
    return [(name.encode(), value.encode()) for name, value in headers.items()], content


def respond(request: HttpRequest, problem: Problem) -> HttpResponse:
    """The problem as an answer of plain Django."""
    content = json.dumps(document(getattr(request, "request_id", ""), problem))
    return HttpResponse(content, status=problem.status, content_type=JSON_TYPE, headers=problem.headers)


def handle(error: Exception, context: dict[str, Any]) -> Response:
    """DRF's exception handler: no exception leaves a view."""
    problem = as_problem(error)
    request = context["request"]
    if isinstance(error, exceptions.MethodNotAllowed | exceptions.UnsupportedMediaType):
        problem.detail = _expected(error, context["view"])
    if problem.status >= 500:
        logger.error("request %s: %s", getattr(request, "request_id", ""), problem.code, exc_info=error)
    body = document(getattr(request, "request_id", ""), problem)
    return Response(body, status=problem.status, headers=problem.headers, content_type=JSON_TYPE)


def as_problem(error: Exception) -> Problem:
    """The problem that reports an exception. What we did not expect reports nothing but `internal_error`."""
    if isinstance(error, Problem):
        return error
    if isinstance(error, service.ServiceError):
        status = next(number for kind, number in STATUSES.items() if isinstance(error, kind))
        headers = {"Retry-After": "5"} if status == 503 else {}
        return Problem(status, error.code, _summary(error.errors) or error.detail, headers, error.errors)
    if isinstance(error, exceptions.ValidationError):
        found = tuple(flatten(error.detail))
        return Problem(422, "invalid", _summary(found), errors=found)
    if isinstance(error, exceptions.APIException):
        return _of_framework(error)
    if isinstance(error, SuspiciousOperation):  # too many query parameters, for one
        return Problem(400, "bad_request", "the request is malformed")
    if isinstance(error, IntegrityError) and _refers_to_nothing(error):
        return Problem(409, "conflict", "what this refers to was deleted meanwhile; look at it again")
    if isinstance(error, DatabaseError) and not isinstance(error, DataError | IntegrityError | ProgrammingError):
        return Problem(503, "unavailable", "the database does not take this now; try again", {"Retry-After": "5"})
    return Problem(500, "internal_error", "this is our fault; the log has the request_id")


def _refers_to_nothing(error: IntegrityError) -> bool:
    """Whether a foreign key is broken: the databases look at them at the commit, when somebody may have been faster."""
    return getattr(error.__cause__, "sqlstate", "") == "23503" or str(error) == "FOREIGN KEY constraint failed"


def _expected(error: exceptions.MethodNotAllowed | exceptions.UnsupportedMediaType, view: Any) -> str:
    """What the address takes instead."""
    if isinstance(error, exceptions.MethodNotAllowed):
        return f"this address takes {', '.join(each for each in view.allowed_methods if each != 'OPTIONS')}"
    return f"Content-Type must be {' or '.join(parser.media_type for parser in view.get_parsers())}"


def _summary(errors: Sequence[service.FieldError]) -> str:
    """The wrong fields in one line, for who shows only that; what is wrong with the body as such has no field."""
    parts = [f"{e.field}: {e.detail}" if e.field else e.detail for e in errors[:FIELDS_LISTED]]
    return "; ".join([*parts, *([f"and {len(errors) - len(parts)} more"] if len(errors) > len(parts) else [])])


def _of_framework(error: exceptions.APIException) -> Problem:
    headers = {}
    if isinstance(error, exceptions.NotAuthenticated | exceptions.AuthenticationFailed):
        headers["WWW-Authenticate"] = 'Bearer realm="mxfleet"'
    if isinstance(error, exceptions.Throttled):
        headers["Retry-After"] = str(max(1, int(getattr(error, "wait", None) or 1)))
    detail = HOW_TO_LOG_IN if isinstance(error, exceptions.NotAuthenticated) else str(error.detail)
    return Problem(error.status_code, CODES.get(error.status_code, "bad_request"), detail, headers)


def flatten(detail: Any, place: str = "") -> list[service.FieldError]:
    """DRF's nested error details as a flat list; places are written like `roles[0].customer`."""
    if isinstance(detail, dict):
        return [found for name, inner in detail.items() for found in flatten(inner, _below(place, name))]
    if isinstance(detail, list) and any(isinstance(item, dict | list) for item in detail):
        return [found for index, inner in enumerate(detail) for found in flatten(inner, f"{place}[{index}]")]
    items = detail if isinstance(detail, list) else [detail]
    return [service.FieldError(place, _field_code(getattr(item, "code", "invalid")), str(item)) for item in items]


def _below(place: str, name: str | int) -> str:
    if name == "non_field_errors":
        return place
    if isinstance(name, int):
        return f"{place}[{name}]"
    return f"{place}.{name}" if place else name


def _field_code(code: str) -> str:
    code = FIELD_CODES.get(code, code)
    return code if code in KEPT_CODES else "invalid"


def not_found(request: HttpRequest, exception: Exception | None = None) -> HttpResponse:
    """Django's handler404."""
    return respond(request, Problem(404, "not_found", "there is nothing here; paths begin with /api/v1/ and end in /"))


def bad_request(request: HttpRequest, exception: Exception | None = None) -> HttpResponse:
    """Django's handler400."""
    return respond(request, Problem(400, "bad_request", "the request is malformed"))


def internal(request: HttpRequest) -> HttpResponse:
    """Django's handler500; Django has logged the exception."""
    return respond(request, Problem(500, "internal_error", "this is our fault; the log has the request_id"))
