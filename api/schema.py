"""The OpenAPI document: what the library makes of the viewsets, with what all of ours have in common."""

from typing import TYPE_CHECKING, Any

from drf_spectacular.openapi import AutoSchema
from drf_spectacular.plumbing import is_list_serializer

from api.codes import FIELD_CODES, HOST_CODES, PROBLEM_CODES
from api.errors import ERRORS_LISTED, JSON_TYPE
from api.fields import StrictSerializer, Text
from fleet.mta.params.catalogue import CATALOGUE

if TYPE_CHECKING:
    from api.viewsets import ApiViewSet

PROBLEM = "Problem"
ERROR_STATUSES = (
    "400", "401", "403", "404", "405", "408", "409", "412", "413", "415", "422", "429", "431", "500", "502", "503",
)  # fmt: skip


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
        if self.method in ("PATCH", "DELETE"):
            found.append(_header("If-Match", {"type": "string"}))
        return found

    def _get_response_bodies(self, direction: Any = "response") -> dict[str, Any]:
        bodies = {
            status: {**body, "description": self.get_summary() if "content" in body else "done"}
            for status, body in super()._get_response_bodies(direction).items()
        }
        if self._makes_job():
            bodies["200"] = {**bodies["202"], "description": "the job has ended, or awaits people"}
        if self.method == "GET":
            bodies["304"] = {"description": "unchanged: If-None-Match names what is there"}
        reference = {"schema": {"$ref": f"#/components/schemas/{PROBLEM}"}}
        problem = {"content": {JSON_TYPE: reference}, "description": "a problem"}
        return {**bodies, **dict.fromkeys(ERROR_STATUSES, problem)}

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
    for spec in CATALOGUE.values():
        schemas[f"{component_name(spec.name)}Params"] = {k: v for k, v in spec.schema.items() if k != "$schema"}
    components["securitySchemes"] = {"token": {"type": "http", "scheme": "bearer", "bearerFormat": "mxf_..."}}
    return result


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
        "error": {"type": "object", "description": "of a host that was asked: code, detail, hint"},
    }
    required = [name for name in properties if name not in ("error", "more_errors")]
    return {"type": "object", "description": "RFC 9457", "properties": properties, "required": required}
