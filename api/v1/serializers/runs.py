"""A run of each operation, for those who make clients from the document: its result and evidence have types there.

The view answers with `RunSerializer`, which is the same for all.
"""

from typing import Any

from drf_spectacular.utils import PolymorphicProxySerializer, extend_schema_field
from rest_framework import serializers

from api.fields import Choice, StrictSerializer
from api.results import reference
from api.schema import component_name
from api.v1.serializers.jobs import Drift, EvidenceSerializer, Result, RunSerializer
from fleet.mta.params.catalogue import CATALOGUE
from fleet.mta.results.table import EVIDENCE, RESULTS
from jobs.rules.drift import DriftResult

NOTHING = {"type": "null"}


def _evidence(name: str, schema: dict[str, Any]) -> type[StrictSerializer]:
    seen = extend_schema_field(schema)(type("Seen", (serializers.JSONField,), {}))
    fields = {side: seen(allow_null="$ref" in schema) for side in ("before", "after")}
    return type(f"{name}Serializer", (EvidenceSerializer,), {"__doc__": EvidenceSerializer.__doc__, **fields})


NO_EVIDENCE = _evidence("NoEvidence", NOTHING)
EVIDENCES = {
    kind: _evidence(seen.__name__.replace("Seen", "Evidence"), reference(seen)) for kind, seen in EVIDENCE.items()
}


def _run(operation: str) -> type[StrictSerializer]:
    kind = RESULTS[operation]
    changes = CATALOGUE[operation].changes
    result = extend_schema_field(reference(kind))(type("Result", (Result,), {}))
    drift = extend_schema_field(reference(DriftResult) if changes else NOTHING)(type("Drift", (Drift,), {}))
    fields = {
        "__doc__": f"{CATALOGUE[operation].description} On one instance, or host.",
        "operation": Choice(choices=[operation], source="job.operation"),
        "result": result(allow_null=True, source="*"),
        "drift": drift(allow_null=changes, source="*"),
        "evidence": EVIDENCES.get(kind, NO_EVIDENCE)(source="*"),
    }
    return type(f"{component_name(operation)}RunSerializer", (RunSerializer,), fields)


RUN_OF: dict[str, type[serializers.Serializer[Any]] | serializers.Serializer[Any]] = {
    operation: _run(operation) for operation in CATALOGUE
}


def any_run(*, many: bool = False) -> Any:
    """The document's `Run`: `operation` tells which of them it is."""
    return PolymorphicProxySerializer(
        component_name="Run", serializers=RUN_OF, resource_type_field_name="operation", many=many or None
    )
