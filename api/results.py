"""The document's components of what operations come to, made of the types that adapters and planners are held to."""

from inspect import cleandoc
from typing import Any

import msgspec

from fleet.mta.results.changing import MessagesResult
from fleet.mta.results.table import EVIDENCE, RESULTS
from jobs.rules.drift import DriftResult
from jobs.rules.plan import PlanInstance
from jobs.summary.shapes import MERGED, DriftMerged

COMPONENT = "#/components/schemas/{name}"


def reference(kind: Any) -> dict[str, str]:
    """To a type's component."""
    return {"$ref": COMPONENT.format(name=kind.__name__)}


def results() -> dict[str, Any]:
    """All of them by name. Those that count messages have the first page of them beside the counts."""
    all_kinds = (*RESULTS.values(), *EVIDENCE.values(), PlanInstance, DriftResult, *MERGED.values(), DriftMerged)
    kinds = {kind.__name__: kind for kind in all_kinds}
    _, made = msgspec.json.schema_components(kinds.values(), ref_template=COMPONENT)
    found: dict[str, Any] = {name: _strict(schema) for name, schema in made.items()}
    counted = found[MessagesResult.__name__]
    counted["properties"]["messages"] = {"$ref": COMPONENT.format(name="MessagePage")}
    counted["required"].append("messages")
    return found


def _strict(value: Any) -> Any:
    """As answers are: no further properties, and times are texts."""
    if isinstance(value, list):
        return [_strict(each) for each in value]
    if not isinstance(value, dict):
        return value
    schema = {name: _strict(each) for name, each in value.items() if name != "title" or not isinstance(each, str)}
    if isinstance(schema.get("description"), str):
        schema["description"] = cleandoc(schema["description"])
    if schema.get("format") == "date-time":
        schema["type"] = "string"
    return {**schema, "additionalProperties": False} if "properties" in schema else schema
