"""How a queue differs from the plan that was frozen from it. Pure."""

from collections.abc import Iterable
from typing import TypedDict

from fleet.mta.records import Fingerprint
from jobs.rules.plan import SAMPLE, PlanRow, SampledMessage, sample_of

FILES = ("diffs", "wiring")
"""What of a plan tells of files; its commands and notes follow from these and from the messages."""


class DriftSamples(TypedDict):
    """Some of these messages."""

    gone: list[SampledMessage]
    new: list[SampledMessage]
    changed: list[SampledMessage]


class DriftResult(TypedDict):
    """How what would be planned now differs from the frozen plan; the `drift` of a run whose job has `drift_of`.

    `gone`: messages that the plan names and that would not be selected any more. `new`: those that would be, and the
    plan does not name. `changed`: queue IDs that name another message now. `files_changed`: other files than the plan
    shows would be written.
    """

    planned: int
    gone: int
    new: int
    changed: int
    files_changed: bool
    samples: DriftSamples


def drift_of(frozen: PlanRow, now: PlanRow) -> DriftResult:
    """How `now` differs from `frozen`."""
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


def _samples(messages: Iterable[Fingerprint]) -> list[SampledMessage]:
    return [sample_of(message) for message in list(messages)[:SAMPLE]]
