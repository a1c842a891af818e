"""What all runs of a job came to together. The view answers with `JobSummarySerializer`, which is the same for all
operations; who makes clients from the document has a type of each one's `result`."""

from collections.abc import Sequence
from typing import Any

from drf_spectacular.utils import PolymorphicProxySerializer, extend_schema_field
from rest_framework import serializers

from api.codes import HOST_CODES
from api.fields import Choice, Flag, Integer, JsonObject, StrictSerializer, Text, Texts
from api.results import reference
from api.schema import component_name
from api.v1.serializers.jobs import JOB_STATES, RUN_STATES
from fleet.mta.params.catalogue import CATALOGUE
from jobs import words
from jobs.models import Job
from jobs.rules.state import JobState, RunState
from jobs.selectors import FINAL
from jobs.summary.merge import Merged
from jobs.summary.shapes import MERGED, DriftMerged


class NotDoneSerializer(StrictSerializer):
    """Runs that did not come, or not yet, to what was asked, by state and error code; null: there is no error."""

    state = Choice(choices=RUN_STATES)
    code = Choice(choices=HOST_CODES, allow_null=True)
    hint = Text(allow_blank=True)
    count = Integer()
    instances = Texts()


class MergedNoteSerializer(StrictSerializer):
    """A note of plans or results. `instances`: at most a hundred of them, `count` says how many they are."""

    text = Text()
    count = Integer()
    instances = Texts()


class JobSummarySerializer(StrictSerializer):
    """A job's runs together. `complete`: nothing more is expected, no run is open or unknown. `awaits`: whose word the
    job waits for, its requester's or an approver's. `kept`: false where the job is old and its results are gone.
    `drift`: of a job that compares a frozen plan with the queues, which has no `result`. `text`: the same as a few
    lines for people."""

    job = serializers.UUIDField()
    operation = Choice(choices=list(CATALOGUE))
    state = Choice(choices=JOB_STATES)
    dry_run = Flag()
    complete = Flag()
    awaits = Choice(choices=["confirmation", "approval"], allow_null=True)
    kept = Flag()
    runs = serializers.DictField(child=Integer())
    result = JsonObject(allow_null=True)
    drift = JsonObject(allow_null=True)
    not_done = NotDoneSerializer(many=True)
    notes = MergedNoteSerializer(many=True)
    more_notes = Integer()
    text = Text(allow_blank=True)


def _typed(kind: Any) -> JsonObject:
    """That type, or null; without one, null."""
    schema = reference(kind) if kind else {"type": "null"}
    field: type[JsonObject] = extend_schema_field(schema)(type("Merged", (JsonObject,), {}))
    return field(allow_null=kind is not None)


def _summary(operation: str) -> type[StrictSerializer]:
    told = {"result": MERGED.get(operation), "drift": DriftMerged if CATALOGUE[operation].changes else None}
    fields = {
        "__doc__": f"{CATALOGUE[operation].description} On all instances, or hosts, together.",
        "operation": Choice(choices=[operation]),
        **{name: _typed(kind) for name, kind in told.items()},
    }
    return type(f"{component_name(operation)}JobSummarySerializer", (JobSummarySerializer,), fields)


ANY_SUMMARY = PolymorphicProxySerializer(
    component_name="JobSummary",
    serializers={operation: _summary(operation) for operation in CATALOGUE},
    resource_type_field_name="operation",
)
"""The document's `JobSummary`: `operation` tells which of them it is."""


def _awaits(job: Job) -> str | None:
    if job.state != JobState.AWAITING_APPROVAL:
        return None
    return "approval" if job.is_confirmed else "confirmation"


def _not_done(merged: Merged, unserved: Sequence[str]) -> list[dict[str, Any]]:
    entries = merged.not_done()
    for each in entries:
        if each["state"] == RunState.PENDING and unserved:
            each["hint"] = f"No worker serves {words.named(unserved)} now; who runs mxfleet sees in readyz which."
    return entries


def summary_of(job: Job, merged: Merged, unserved: Sequence[str] = ()) -> dict[str, Any]:
    """What `JobSummarySerializer` takes. `unserved`: hosts for which it waits, and which no worker serves."""
    is_kept = job.totals is None
    told = merged.result() if is_kept else None
    summary = {
        "job": job.pk,
        "operation": job.operation,
        "state": job.state,
        "dry_run": job.dry_run,
        "complete": job.state in FINAL and not merged.runs[RunState.UNKNOWN],
        "awaits": _awaits(job),
        "kept": is_kept,
        "runs": dict(sorted(merged.runs.items())),
        "result": told if job.drift_of_id is None else None,
        "drift": told if job.drift_of_id is not None else None,
        "not_done": _not_done(merged, unserved),
        "notes": merged.notes(),
        "more_notes": merged.more_notes,
    }
    asked = job.undo_of.params if job.undo_of else job.params  # an undo has none of its own
    return {**summary, "text": words.text_of(summary, asked)}
