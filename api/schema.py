"""The OpenAPI document, from the same declarations that the views work with (`methods`, `filters`, `orderings`)."""

from typing import TYPE_CHECKING, Any

from drf_spectacular.openapi import AutoSchema

from api.errors import ERRORS_LISTED, JSON_TYPE
from api.fields import StrictSerializer, Text
from fleet.mta.params.catalogue import CATALOGUE

if TYPE_CHECKING:
    from api.view import ApiView, Filter, Method

PAGING = {
    "limit": {"type": "integer", "minimum": 1, "maximum": 500, "default": 100},
    "cursor": {"type": "string", "description": "from `next` or `previous` of a page"},
}
PROBLEM = "Problem"
ADDRESS = {"type": ["string", "null"], "format": "uri"}
ERROR_STATUSES = (
    "400", "401", "403", "404", "405", "408", "409", "412", "413", "415", "422", "429", "431", "500", "502", "503",
)  # fmt: skip
WORDS = {"GET": "get", "POST": "post", "PATCH": "patch", "DELETE": "delete"}


class ApiSchema(AutoSchema):
    """Describes an ApiView."""

    view: "ApiView"  # type: ignore[override]  # it describes no other views

    @property
    def declared(self) -> "Method":
        """The declaration of this operation."""
        return self.view.methods[str(self.method)]

    def get_tags(self) -> list[str]:
        return [self.view.tag]

    def get_summary(self) -> str:
        return self.declared.summary

    def get_operation_id(self) -> str:
        name = "".join(f"_{char.lower()}" if char.isupper() else char for char in type(self.view).__name__)
        return f"{WORDS[str(self.method)]}{name}"

    def get_auth(self) -> list[dict[str, list[str]]]:
        return [{"token": []}]

    def get_request_serializer(self) -> Any:
        return self.declared.request() if self.declared.request else None

    def get_response_serializers(self) -> Any:
        return self.declared.answer() if self.declared.answer else None

    def get_filter_backends(self) -> list[Any]:
        return []

    def _is_list_view(self, serializer: Any = None) -> bool:
        return False

    def _get_parameters(self) -> list[dict[str, Any]]:
        found: list[dict[str, Any]] = list(super()._get_parameters())
        if self.method in self.view.queried:
            found += [_query(name, parameter) for name, parameter in self.view.filters.items()]
        if self.method == "GET" and self.view.orderings:
            words = [word for name in self.view.orderings for word in (name, _opposite(name))]
            found += [{"in": "query", "name": name, "schema": schema} for name, schema in PAGING.items()]
            found.append({"in": "query", "name": "ordering", "schema": {"type": "string", "enum": words}})
        if self.method == "POST":
            found.append(_header("Idempotency-Key", {"type": "string", "maxLength": 255, "pattern": "^[!-+\\--~]+$"}))
        if self.declared.makes_job:
            found.append(_header("Prefer", {"type": "string", "examples": ["wait=10"], "pattern": "^wait=[0-9]{1,6}$"}))
        if self.method in ("PATCH", "DELETE"):
            found.append(_header("If-Match", {"type": "string"}))
        return found

    def _get_response_bodies(self, direction: Any = "response") -> dict[str, Any]:
        declared = self.declared
        bodies: dict[str, Any] = {str(declared.status): self._answer(declared)}
        if declared.makes_job:
            bodies["200"] = {**bodies["202"], "description": "the job has ended, or awaits people"}
        if self.method == "GET":
            bodies["304"] = {"description": "unchanged: If-None-Match names what is there"}
        reference = {"schema": {"$ref": f"#/components/schemas/{PROBLEM}"}}
        problem = {"content": {JSON_TYPE: reference}, "description": "a problem"}
        return {**bodies, **dict.fromkeys(ERROR_STATUSES, problem)}

    def _answer(self, declared: "Method") -> dict[str, Any]:
        if declared.status == 204:
            return {"description": "done"}
        if declared.answer is None:
            return {"content": {declared.media: {"schema": {"type": "string"}}}, "description": declared.summary}
        schema: dict[str, Any] = self.resolve_serializer(declared.answer(), "response").ref
        if declared.is_page:
            schema = {
                "type": "object",
                "properties": {"next": ADDRESS, "previous": ADDRESS, "results": {"type": "array", "items": schema}},
                "required": ["next", "previous", "results"],
                "additionalProperties": False,
            }
        return {"content": {declared.media: {"schema": schema}}, "description": declared.summary}

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


def _query(name: str, parameter: "Filter") -> dict[str, Any]:
    return {"in": "query", "name": name, "description": parameter.description, "schema": parameter.schema}


def _header(name: str, schema: dict[str, Any]) -> dict[str, Any]:
    return {"in": "header", "name": name, "schema": schema}


def _opposite(name: str) -> str:
    return name[1:] if name.startswith("-") else f"-{name}"


def document_operations(result: dict[str, Any], generator: Any, request: Any, public: bool) -> dict[str, Any]:
    """A post-processing hook: the problem, the token, and for each operation what its job's params are."""
    components = result.setdefault("components", {})
    schemas = components.setdefault("schemas", {})
    schemas[PROBLEM] = _problem_schema()
    for spec in CATALOGUE.values():
        schemas[f"params.{spec.name}"] = {k: v for k, v in spec.schema.items() if k != "$schema"}
    if "JobRequestRequest" in schemas:
        schemas["JobRequestRequest"]["anyOf"] = [_params_of(name) for name in CATALOGUE]
    components["securitySchemes"] = {"token": {"type": "http", "scheme": "bearer", "bearerFormat": "mxf_..."}}
    return result


def _params_of(name: str) -> dict[str, Any]:
    return {
        "title": name,
        "properties": {"operation": {"const": name}, "params": {"$ref": f"#/components/schemas/params.{name}"}},
    }


def _problem_schema() -> dict[str, Any]:
    text = {"type": "string"}
    error = {
        "type": "object",
        "properties": {"field": text, "code": text, "detail": text},
        "required": ["field", "code", "detail"],
    }
    properties = {
        "type": text,
        "title": text,
        "status": {"type": "integer"},
        "detail": text,
        "code": text,
        "request_id": text,
        "errors": {"type": "array", "items": error, "maxItems": ERRORS_LISTED},
        "more_errors": {"type": "integer", "description": "how many are not in `errors`"},
        "error": {"type": "object", "description": "of a host that was asked: code, detail, hint"},
    }
    required = [name for name in properties if name not in ("error", "more_errors")]
    return {"type": "object", "description": "RFC 9457", "properties": properties, "required": required}
