"""How a job of each operation is asked for: one complete object for each, for those who make clients from the document.

The view takes them all by `JobRequestSerializer`; the catalogue's own parser looks at the params.
"""

from drf_spectacular.utils import PolymorphicProxySerializer, extend_schema_field

from api.fields import Choice, JsonObject, StrictSerializer, Text
from api.schema import component_name
from api.v1.serializers.jobs import JobRequestSerializer
from fleet.mta.params.catalogue import CATALOGUE, OperationSpec

OF_CHANGES = ("dry_run", "confirm", "approval_ttl")
"""What says something of a plan: a reading operation has none."""


def _params(spec: OperationSpec) -> type[JsonObject]:
    reference = {"$ref": f"#/components/schemas/{component_name(spec.name)}Params"}
    return extend_schema_field(reference)(type(f"{component_name(spec.name)}Params", (JsonObject,), {}))


def _request(spec: OperationSpec) -> type[StrictSerializer]:
    needs_params = bool(spec.choose_one or spec.choose_some or any(each.required for each in spec.params.values()))
    fields = {
        "__doc__": spec.description,
        "operation": Choice(choices=[spec.name]),
        "params": _params(spec)(required=needs_params),
        **({"reason": Text(max_length=2000)} if spec.changes else dict.fromkeys(OF_CHANGES)),
    }
    return type(f"{component_name(spec.name)}Serializer", (JobRequestSerializer,), fields)


ANY_REQUEST = PolymorphicProxySerializer(
    component_name="Job",
    serializers={name: _request(spec) for name, spec in CATALOGUE.items()},
    resource_type_field_name="operation",
)
"""The document's `JobRequest`: `operation` tells which of them it is."""
