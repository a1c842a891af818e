"""The OpenAPI document: what the library makes of the viewsets, with what all of ours have in common."""

from typing import TYPE_CHECKING, Any

from drf_spectacular.openapi import AutoSchema
from drf_spectacular.plumbing import is_list_serializer

from api.codes import FIELD_CODES, HOST_CODES, PROBLEM_CODES
from api.errors import ERRORS_LISTED, JSON_TYPE
from api.fields import StrictSerializer, Text
from api.results import results
from fleet.mta.params.catalogue import CATALOGUE

if TYPE_CHECKING:
    from api.viewsets import ApiViewSet

PROBLEM = "Problem"
ERROR_STATUSES = (
    "400", "401", "403", "404", "405", "408", "409", "412", "413", "415", "422", "429", "431", "500", "502", "503",
)  # fmt: skip
TRY_AGAIN = ("429", "503")


def _described(description: str) -> dict[str, Any]:
    return {"description": description, "schema": {"type": "string"}}


HEADERS = {
    "ETag": _described("for If-None-Match and If-Match"),
    "Idempotency-Replayed": _described(
        "`true`: this is the answer of an earlier request with the same Idempotency-Key"
    ),
    "Location": _described("the address of what was made"),
    "Preference-Applied": _described("how long the answer was held at most"),
    "Retry-After": _described("seconds"),
}
EVENTS = "/api/v1/jobs/{id}/events/"


class ApiSchema(AutoSchema):
    """Describes an ApiViewSet."""

    view: "ApiViewSet"  # type: ignore[override]  # it describes no other views

    def get_auth(self) -> list[dict[str, list[str]]]:
        return [{"token": []}]

    def get_paginated_name(self, serializer_name: str) -> str:
        return f"{serializer_name}Page"

    def get_filter_backends(self) -> list[Any]:
        return list(self.view.filter_backends) if self.view.action in self.view.filtered else []

    def _get_pagination_parameters(self) -> list[dict[str, Any]]:
        if self.view.action not in self.view.paged:
            return []
        return list(self.view.pagination_class().get_schema_operation_parameters(self.view))

    def _is_list_view(self, serializer: Any = None) -> bool:
        return self.view.action == "list" or is_list_serializer(serializer or self.get_response_serializers())

    def _makes_job(self) -> bool:
        answers = self.get_response_serializers()
        return isinstance(answers, dict) and 202 in answers

    def _get_parameters(self) -> list[dict[str, Any]]:
        found: list[dict[str, Any]] = list(super()._get_parameters())
        if self.method == "POST":
            found.append(_header("Idempotency-Key", {"type": "string", "maxLength": 255, "pattern": "^[!-+\\--~]+$"}))
        if self._makes_job():
            found.append(_header("Prefer", {"type": "string", "examples": ["wait=10"], "pattern": "^wait=[0-9]{1,6}$"}))
        if self.method in ("PUT", "PATCH", "DELETE") and self.view.action != "bulk_update":
            found.append(_header("If-Match", {"type": "string"}))
        if self.method == "PUT":
            found.append(_header("If-None-Match", {"type": "string", "enum": ["*"]}))
        return found

    def _get_request_body(self, direction: Any = "request") -> Any:
        """Of one object of several the library does not see that it has to be there."""
        body = super()._get_request_body(direction)  # type: ignore[no-untyped-call]  # untyped there
        return {**body, "required": True} if body and self.view.action == "create" else body

    def _get_response_bodies(self, direction: Any = "response") -> dict[str, Any]:
        bodies = {
            status: {**body, "description": self.get_summary() if "content" in body else "done"}
            for status, body in super()._get_response_bodies(direction).items()
        }
        for status, names in self._headers().items():
            bodies[status]["headers"] = {name: HEADERS[name] for name in names}
        if self._makes_job():
            bodies["200"] = {**bodies["202"], "description": "the job has ended, or awaits people"}
        if self.method == "GET":
            bodies["304"] = {"description": "unchanged: If-None-Match names what is there"}
        reference = {"schema": {"$ref": f"#/components/schemas/{PROBLEM}"}}
        problem = {"content": {JSON_TYPE: reference}, "description": "a problem"}
        again = {**problem, "headers": {"Retry-After": HEADERS["Retry-After"]}}
        return {**bodies, **dict.fromkeys(ERROR_STATUSES, problem), **dict.fromkeys(TRY_AGAIN, again)}

    def _headers(self) -> dict[str, tuple[str, ...]]:
        """What answers of this operation have besides their body, by status."""
        if self._makes_job():
            return {"202": ("Location", "Retry-After", "Idempotency-Replayed", "Preference-Applied")}
        if self.view.action == "create":
            return {"201": ("Location", "Idempotency-Replayed")}
        if self.method == "PUT":
            return {"200": ("ETag",), "201": ("ETag", "Location")}
        if self.method == "POST":
            return {"200": ("Idempotency-Replayed",)}
        is_object = self.view.detail or self.view.action == "one"
        tagged = ("retrieve", "replacement", "partial_update", "one", "run", "summary", "installer")
        is_tagged = is_object and self.view.action in tagged
        return {"200": ("ETag",)} if is_tagged else {}

    def _map_serializer_field(self, field: Any, direction: Any, bypass_extensions: bool = False) -> Any:
        bypass = bypass_extensions
        schema = super()._map_serializer_field(field, direction, bypass)  # type: ignore[no-untyped-call]  # untyped there
        if isinstance(field, Text) and field.pattern and direction == "request":
            schema["pattern"] = f"^({field.pattern[0]}){'?' if field.allow_blank else ''}$"
        return schema

    def _map_basic_serializer(self, serializer: Any, direction: Any) -> Any:
        schema = super()._map_basic_serializer(serializer, direction)  # type: ignore[no-untyped-call]  # untyped there
        if isinstance(serializer, StrictSerializer):
            schema["additionalProperties"] = False
        return schema


def _header(name: str, schema: dict[str, Any]) -> dict[str, Any]:
    return {"in": "header", "name": name, "schema": schema}


def document_operations(result: dict[str, Any], generator: Any, request: Any, public: bool) -> dict[str, Any]:
    """A post-processing hook: the problem, the token, and what each operation's params are."""
    components = result.setdefault("components", {})
    schemas = components.setdefault("schemas", {})
    schemas[PROBLEM] = _problem_schema()
    schemas |= results()
    for spec in CATALOGUE.values():
        schemas[f"{component_name(spec.name)}Params"] = _one_type(spec.schema)
    result["paths"][EVENTS] = {"get": _events(result["paths"]["/api/v1/jobs/{id}/"]["get"])}
    result["paths"] = dict(sorted(result["paths"].items()))
    components["securitySchemes"] = {"token": {"type": "http", "scheme": "bearer", "bearerFormat": "mxf_..."}}
    return result


def _one_type(schema: dict[str, Any]) -> dict[str, Any]:
    """The same schema, so that generators make one type of it: which of its properties are needed they take for types
    of their own. So that stands where they do not look."""
    choices = {name: schema[name] for name in ("oneOf", "anyOf") if name in schema}
    kept = {name: value for name, value in schema.items() if name != "$schema" and name not in choices}
    return {**kept, "if": choices, "else": False} if choices else kept


def _events(job: dict[str, Any]) -> dict[str, Any]:
    """The stream, which is no view of the framework's. `job`: GET of the job itself, whose problems it shares."""
    problems = {status: body for status, body in job["responses"].items() if status in ERROR_STATUSES}
    stream = {"text/event-stream": {"schema": {"type": "string"}}}
    return {
        "operationId": "get_job_events",
        "summary": "Follow a job",
        "description": "What happens to it: events `job`, `run` and `progress`, with data in JSON.",
        "parameters": [
            *(each for each in job["parameters"] if each["in"] == "path"),
            {"in": "query", "name": "after", "schema": {"type": "integer"}, "description": "as Last-Event-ID"},
            _header("Last-Event-ID", {"type": "integer"}),
        ],
        "tags": job["tags"],
        "security": job["security"],
        "responses": {
            "200": {"content": stream, "description": "the events from then on"},
            "204": {"description": "the job has ended, and all of it is known"},
            **problems,
        },
    }


def component_name(operation: str) -> str:
    """`queue.purge` as in names of the document: `QueuePurge`."""
    return "".join(part.capitalize() for part in operation.split("."))


def _problem_schema() -> dict[str, Any]:
    text = {"type": "string"}
    error = {
        "type": "object",
        "properties": {"field": text, "code": {"type": "string", "enum": list(FIELD_CODES)}, "detail": text},
        "required": ["field", "code", "detail"],
    }
    properties = {
        "type": text,
        "title": text,
        "status": {"type": "integer"},
        "detail": text,
        "code": {"type": "string", "enum": sorted({*PROBLEM_CODES, *HOST_CODES})},
        "request_id": text,
        "errors": {"type": "array", "items": error, "maxItems": ERRORS_LISTED},
        "more_errors": {"type": "integer", "description": "how many are not in `errors`"},
        "found": {"type": "integer", "description": "of `count_differs`: how many there are"},
        "error": {"type": "object", "description": "of a host that was asked: code, detail, hint"},
    }
    required = [name for name in properties if name not in ("error", "found", "more_errors")]
    return {"type": "object", "description": "RFC 9457", "properties": properties, "required": required}
