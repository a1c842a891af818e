"""From what the instances' plans selected to one frozen plan: its JSON, its digest, its blast radius. Pure."""

import hashlib
import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, TypedDict

from fleet.mta.records import Fingerprint
from fleet.mta.results.reading import EntryState, Time
from fleet.mta.steps import Plan

SAMPLE = 20


class PlanCounts(TypedDict):
    """How many messages, and their bytes."""

    messages: int
    bytes: int


class SampledMessage(TypedDict):
    """A message of the plan; at most five of its recipients."""

    queue_id: str
    arrival_time: Time
    sender: str
    recipients: list[str]
    subject: str
    size: int
    state: EntryState


class PlannedDiff(TypedDict):
    """A file, and how it changes (diff -u)."""

    path: str
    unified: str


class PlanDrift(TypedDict):
    """What the queue has no more of the plan's messages, and has besides."""

    gone: int
    new: int


class InstancePlan(TypedDict):
    """What of a plan is kept beside the messages. `queue_total`: messages in the queue. `commands`: their arguments.
    `wiring`: the MTA is made to ask our list. `foreign_holds`: held messages that no job of ours held."""

    counts: PlanCounts
    queue_total: int
    sample: list[SampledMessage]
    diffs: list[PlannedDiff]
    commands: list[list[str]]
    notes: list[str]
    wiring: bool
    foreign_holds: int
    drift: PlanDrift


class PlanInstance(InstancePlan):
    """An instance's part of a plan. `queue_total`: messages in its queue. `commands`: their arguments. `notes`: what
    means something else than it may seem. `wiring`: the MTA is made to ask our list. `foreign_holds`: held messages
    that no job of ours held."""

    instance: str


@dataclass(frozen=True, slots=True)
class PlanRow:
    """One instance's part of a plan: `summary` as stored, `messages` the fingerprints, `way` how it is reached."""

    instance: str
    summary: Mapping[str, Any]
    messages: tuple[Fingerprint, ...]
    way: list[Any]


def summary_of(plan: Plan) -> InstancePlan:
    """What of a plan is kept beside the messages, as JSON."""
    return {
        "counts": {"messages": len(plan.selected), "bytes": plan.bytes},
        "queue_total": plan.queue_total,
        "sample": [sample_of(message) for message in plan.selected[:SAMPLE]],
        "diffs": [{"path": diff.path, "unified": diff.unified} for diff in plan.diffs],
        "commands": [list(argv) for argv in plan.commands],
        "notes": list(plan.notes),
        "wiring": plan.wiring,
        "foreign_holds": plan.foreign_holds,
        "drift": {"gone": plan.gone, "new": plan.new},
    }


def sample_of(message: Fingerprint) -> SampledMessage:
    """A message as samples show it."""
    return {
        "queue_id": message.queue_id,
        "arrival_time": message.arrival_time,
        "sender": message.sender,
        "recipients": list(message.recipients),
        "subject": message.subject,
        "size": message.size,
        "state": message.state,
    }


def digest_of(operation: str, params: dict[str, Any], rows: Iterable[PlanRow]) -> str:
    """`sha256:...` as plans have it that were frozen before jobs/rules/document.py; no other plan gets one.

    The order of rows and messages does not matter.
    """
    content = {
        "operation": operation,
        "params": params,
        "instances": sorted(
            (
                {
                    "instance": row.instance,
                    "way": row.way,
                    "commands": row.summary["commands"],
                    "diffs": row.summary["diffs"],
                    "wiring": row.summary["wiring"],
                    "queue_total": row.summary["queue_total"],
                    "messages": sorted([m.queue_id, m.arrival_time, m.sender, m.size] for m in row.messages),
                }
                for row in rows
            ),
            key=lambda part: str(part["instance"]),
        ),
    }
    text = json.dumps(content, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
    return "sha256:" + hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()
