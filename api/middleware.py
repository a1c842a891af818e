"""What every answer has in common: the request's id, the Host check, and headers that keep browsers careful."""

import re
import uuid
from collections.abc import Awaitable, Callable
from inspect import iscoroutinefunction
from typing import Any, cast

from django.core.exceptions import DisallowedHost
from django.http import HttpRequest
from django.http.response import HttpResponseBase
from django.utils.decorators import sync_and_async_middleware

from api.access import record_route
from api.errors import Problem, respond
from api.limits import body_limit

REQUEST_ID = re.compile(r"[A-Za-z0-9._-]{1,64}")
METHODS = frozenset({"GET", "HEAD", "POST", "PATCH", "DELETE", "PUT", "OPTIONS"})
PROBES = frozenset({"/healthz", "/readyz", "/metrics"})
"""Asked for by address, not by name, so their Host header says nothing."""


@sync_and_async_middleware
def envelope(get_response: Callable[[HttpRequest], Any]) -> Callable[[HttpRequest], Any]:
    """The only middleware."""
    if iscoroutinefunction(get_response):
        respond = cast(Callable[[HttpRequest], Awaitable[HttpResponseBase]], get_response)

        async def enveloped(request: HttpRequest) -> HttpResponseBase:
            return _finish(request, _refusal(request) or await respond(request))

        return enveloped

    def plain(request: HttpRequest) -> HttpResponseBase:
        return _finish(request, _refusal(request) or get_response(request))

    return plain


def request_id(given: str) -> str:
    """The caller's X-Request-ID where it is harmless, else a new one."""
    return given if REQUEST_ID.fullmatch(given) else uuid.uuid4().hex


def _refusal(request: HttpRequest) -> HttpResponseBase | None:
    request.request_id = request_id(request.headers.get("X-Request-ID", ""))  # type: ignore[attr-defined]  # ours alone
    if request.method not in METHODS:
        return respond(request, Problem(405, "method_not_allowed", "this method is not known here"))
    if request.path not in PROBES:
        try:
            request.get_host()
        except DisallowedHost:
            return respond(request, Problem(400, "bad_request", "this Host header is not in MXFLEET_ALLOWED_HOSTS"))
    length = request.META.get("CONTENT_LENGTH") or "0"
    if not length.isascii() or not length.isdigit():
        return respond(request, Problem(400, "bad_request", "Content-Length is no number"))
    limit = body_limit(request.path)
    if int(length[:20]) > limit:
        return respond(request, Problem(413, "too_large", f"a body has at most {limit} bytes"))
    return None


def _finish(request: HttpRequest, response: HttpResponseBase) -> HttpResponseBase:
    record_route(request.resolver_match.route if request.resolver_match else None)
    response.headers["X-Request-ID"] = request.request_id  # type: ignore[attr-defined]  # set above
    response.headers["X-Content-Type-Options"] = "nosniff"
    if request.path.startswith("/api/"):
        response.headers.setdefault("Cache-Control", "no-store")
    return response
