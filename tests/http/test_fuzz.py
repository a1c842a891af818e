"""Requests made from the OpenAPI document: none is a server error, and every answer is as the document says."""

import json
from collections.abc import Iterator
from typing import Any

import pytest
import schemathesis
from django.core.signals import request_finished, request_started
from django.core.wsgi import get_wsgi_application
from django.db import close_old_connections
from drf_spectacular.generators import SchemaGenerator
from hypothesis import HealthCheck, Phase, given, settings
from schemathesis.checks import not_a_server_error
from schemathesis.specs.openapi.checks import (
    content_type_conformance,
    response_schema_conformance,
    status_code_conformance,
)

from tests.http.cast import World

CHECKS = [not_a_server_error, status_code_conformance, content_type_conformance, response_schema_conformance]
DOCUMENT = json.loads(json.dumps(SchemaGenerator().get_schema(request=None, public=True)))
API = schemathesis.openapi.from_dict(DOCUMENT)
API.app = get_wsgi_application()
STREAMED = {"/api/v1/audit/export/", "/api/v1/jobs/{id}/events/"}  # which need ASGI
OPERATIONS = [one for result in API.get_all_operations() if (one := result.ok()).path not in STREAMED]


@pytest.fixture(autouse=True)
def _one_connection() -> Iterator[None]:
    """A request's end would close the connection that the test's transaction is on (Django's client minds that too)."""
    signals = (request_started, request_finished)
    for signal in signals:
        signal.disconnect(close_old_connections)
    yield
    for signal in signals:
        signal.connect(close_old_connections)


@pytest.mark.parametrize("operation", OPERATIONS, ids=lambda one: f"{one.method} {one.path}")
def test_no_documented_request_breaks_the_server(world: World, settings: Any, operation: Any) -> None:
    settings.ALLOWED_HOSTS = ["*"]
    ask(operation, world.dana.token)


def ask(operation: Any, token: str) -> None:
    """A few requests, the same each time."""

    @settings(
        max_examples=8,
        deadline=None,
        database=None,
        derandomize=True,
        suppress_health_check=list(HealthCheck),
        phases=[Phase.generate],
    )
    @given(case=operation.as_strategy())
    def each(case: Any) -> None:
        case.headers["Authorization"] = f"Bearer {token}"
        if operation.method == "post":
            case.headers["Prefer"] = "wait=0"
        case.validate_response(case.call(), checks=CHECKS)

    each()
