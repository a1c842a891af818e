"""How a queue differs from the plan that was frozen from it. Pure."""

from collections.abc import Iterable
from typing import Any

from fleet.mta.records import Fingerprint
from jobs.rules.plan import SAMPLE, PlanRow, sample_of

FILES = ("diffs", "wiring")
"""What of a plan tells of files; its commands and notes follow from these and from the messages."""


def drift_of(frozen: PlanRow, now: PlanRow) -> dict[str, Any]:
    """`gone`, `new`, `changed` since then, with samples.

    Gone: what the plan names and would not be selected any more. New: what would be, and the plan does not name.
    Changed: queue IDs that name another message now. `files_changed`: other files than the plan shows would be written.
    """
    was = {message.queue_id: message for message in frozen.messages}
    found = {message.queue_id: message for message in now.messages}
    gone = [message for name, message in was.items() if name not in found]
    new = [message for name, message in found.items() if name not in was]
    changed = [message for name, message in found.items() if name in was and was[name] != message]
    return {
        "planned": len(was),
        "gone": len(gone),
        "new": len(new),
        "changed": len(changed),
        "files_changed": any(now.summary[name] != frozen.summary[name] for name in FILES),
        "samples": {"gone": _samples(gone), "new": _samples(new), "changed": _samples(changed)},
    }


def _samples(messages: Iterable[Fingerprint]) -> list[dict[str, Any]]:
    return [sample_of(message) for message in list(messages)[:SAMPLE]]
