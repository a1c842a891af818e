"""Whether what adapters tell is what the API's document says of it."""

from functools import cache
from typing import Any

import jsonschema

from api.results import COMPONENT, results
from fleet.mta.records import Result
from fleet.mta.results.changing import MessagesResult
from fleet.mta.results.table import EVIDENCE, RESULTS
from fleet.mta.steps import Plan
from jobs.jsonvalues import readable, shown
from jobs.rules.plan import PlanInstance, summary_of


@cache
def _validator(kind: Any) -> jsonschema.Draft202012Validator:
    schemas = {**results(), "MessagePage": {"type": "object"}}
    reference = {"$ref": COMPONENT.format(name=kind.__name__)}
    return jsonschema.Draft202012Validator({**reference, "components": {"schemas": schemas}})


def check_told(operation: str, value: Any) -> None:
    """Of a plan or a result. Raises jsonschema.ValidationError."""
    if isinstance(value, Plan):
        _validator(PlanInstance).validate(readable({"instance": "mx1/mta", **summary_of(value)}))
    if isinstance(value, Result):
        kind = RESULTS[operation]
        page = {"messages": {}} if kind is MessagesResult else {}
        _validator(kind).validate({**shown(value.data), **page})
        for seen in (value.before, value.after):
            if seen is not None:
                _validator(EVIDENCE[kind]).validate(readable(seen))
