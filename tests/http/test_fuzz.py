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
from hypothesis import strategies as st
from schemathesis.checks import not_a_server_error
from schemathesis.core.failures import FailureGroup
from schemathesis.specs.openapi.checks import (
    content_type_conformance,
    response_schema_conformance,
    status_code_conformance,
)

from api.v1.serializers.jobs import RunSerializer
from fleet.models import Host
from tests.http.cast import World
from tests.http.test_foreign import fill

CONFORMS = [status_code_conformance, content_type_conformance, response_schema_conformance]
CHECKS = [not_a_server_error, *CONFORMS]
HOST_FAILED = 502
DOCUMENT = json.loads(json.dumps(SchemaGenerator().get_schema(request=None, public=True)))
API = schemathesis.openapi.from_dict(DOCUMENT)
API.app = get_wsgi_application()
STREAMED = {"/api/v1/audit/export/", "/api/v1/jobs/{id}/events/"}  # which need ASGI
OPERATIONS = [one for result in API.get_all_operations() if (one := result.ok()).path not in STREAMED]


@pytest.fixture
def there(world: World) -> dict[str, str]:
    """By the first word of an address: the parameters of an object that is there. No host is where one may be asked."""
    Host.objects.update(address="127.0.0.1")
    return fill(world)


@pytest.fixture(autouse=True)
def _one_connection(there: dict[str, str]) -> Iterator[None]:
    """A request's end would close the connection that the test's transaction is on.

    Django's client minds that too, and connects them again after each of its requests: it has to be done with them.
    """
    signals = (request_started, request_finished)
    for signal in signals:
        signal.disconnect(close_old_connections)
    yield
    for signal in signals:
        signal.connect(close_old_connections)


def filled(operation: Any, there: dict[str, str]) -> dict[str, str]:
    """The address of what is there."""
    names = [each.name for each in operation.path_parameters]
    return dict(zip(names, there[operation.path.split("/")[3]].split(), strict=False)) if names else {}


@pytest.mark.parametrize("operation", OPERATIONS, ids=lambda one: f"{one.method} {one.path}")
def test_no_documented_request_breaks_the_server(
    world: World, there: dict[str, str], settings: Any, operation: Any
) -> None:
    settings.ALLOWED_HOSTS = ["*"]
    ask(operation, world.dana.token, filled(operation, there))


@pytest.mark.parametrize("operation", [one for one in OPERATIONS if one.method == "get"], ids=lambda one: one.path)
def test_what_is_there_is_answered_as_the_document_says(
    world: World, there: dict[str, str], settings: Any, operation: Any
) -> None:
    settings.ALLOWED_HOSTS = ["*"]
    answer = look(operation, world.dana.token, filled(operation, there))
    assert answer.status_code == 200, answer.content


def test_an_answer_that_the_document_does_not_say_is_noticed(
    world: World, there: dict[str, str], settings: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings.ALLOWED_HOSTS = ["*"]
    monkeypatch.setattr(RunSerializer, "to_representation", lambda self, row: {"id": str(row.pk)})
    for path in ("/api/v1/jobs/{id}/runs/", "/api/v1/jobs/{id}/runs/{run}/", "/api/v1/runs/"):
        [operation] = [one for one in OPERATIONS if one.path == path]
        with pytest.raises(FailureGroup, match="Response violates schema"):
            look(operation, world.dana.token, filled(operation, there))


def look(operation: Any, token: str, address: dict[str, str]) -> Any:
    """At one object or list, without any parameter that is not in its address. Raises FailureGroup."""
    case = operation.Case(path_parameters=address, headers={"Authorization": f"Bearer {token}"})
    answer = case.call()
    case.validate_response(answer, checks=CHECKS)
    return answer


def ask(operation: Any, token: str, address: dict[str, str]) -> None:
    """A few requests, the same each time; about half of them at what is there."""

    @settings(
        max_examples=8,
        deadline=None,
        database=None,
        derandomize=True,
        suppress_health_check=list(HealthCheck),
        phases=[Phase.generate],
    )
    @given(case=operation.as_strategy(), is_there=st.booleans())
    def each(case: Any, is_there: bool) -> None:
        case.headers["Authorization"] = f"Bearer {token}"
        if is_there:
            case.path_parameters = {**case.path_parameters, **address}
        if operation.method == "post":
            case.headers["Prefer"] = "wait=0"
        answer = case.call()
        case.validate_response(answer, checks=CONFORMS if answer.status_code == HOST_FAILED else CHECKS)

    each()
