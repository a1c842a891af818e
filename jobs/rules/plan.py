"""From what the instances' plans selected to one frozen plan: its JSON, its digest, its blast radius. Pure."""

import hashlib
import json
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from typing import Any

from fleet.mta.records import Fingerprint
from fleet.mta.steps import Plan

SAMPLE = 20


@dataclass(frozen=True, slots=True)
class PlanRow:
    """One instance's part of a plan: `summary` as stored, `messages` the fingerprints, `way` how it is reached."""

    instance: str
    summary: dict[str, Any]
    messages: tuple[Fingerprint, ...]
    way: list[Any]


def summary_of(plan: Plan) -> dict[str, Any]:
    """What of a plan is kept beside the messages, as JSON."""
    return {
        "counts": {"messages": len(plan.selected), "bytes": plan.bytes},
        "queue_total": plan.queue_total,
        "sample": [sample_of(message) for message in plan.selected[:SAMPLE]],
        "diffs": [asdict(diff) for diff in plan.diffs],
        "commands": [list(argv) for argv in plan.commands],
        "notes": list(plan.notes),
        "wiring": plan.wiring,
        "foreign_holds": plan.foreign_holds,
        "drift": {"gone": plan.gone, "new": plan.new},
    }


def sample_of(message: Fingerprint) -> dict[str, Any]:
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
