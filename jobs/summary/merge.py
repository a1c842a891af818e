"""The whole of it: what the runs of a job came to, its notes, and what did not answer."""

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from fleet.mta.params.catalogue import CATALOGUE
from jobs.rules.state import RunState
from jobs.summary.changes import VALUES, Commonalities, Drifts, MessageChanges, Senders
from jobs.summary.counts import QueueSummaries
from jobs.summary.part import Common, Merger, Part
from jobs.summary.rows import Logs, QueueLists

MOST_NOTES = 100
ORDER = tuple(dict.fromkeys((RunState.UNKNOWN, RunState.FAILED, RunState.UNREACHABLE, *RunState)))
ANSWERED = frozenset({RunState.SUCCEEDED, RunState.UNCHANGED, RunState.PLANNED})


@dataclass(slots=True)
class NotDone:
    """Runs that did not come, or not yet, to what was asked, by state and code. `hint`: what helps."""

    state: str
    code: str
    hint: str
    instances: list[str] = field(default_factory=list)


class Merged:
    """A job's runs together. `params`: as they are stored. `limit`: rows of a listing that are shown at most.
    `is_drift`: the job compares a frozen plan with the queues."""

    def __init__(self, operation: str, params: Mapping[str, Any], limit: int, *, is_drift: bool = False) -> None:
        self._merger = Drifts() if is_drift else merger_of(operation, params, limit)
        self._notes = Common(MOST_NOTES)
        self._not_done: dict[tuple[str, str], NotDone] = {}
        self.runs: Counter[str] = Counter()

    def add(self, part: Part) -> None:
        """In any order."""
        self.runs[part.state.value] += 1
        notes = self._merger.add(part) if self._merger is not None else ()
        for text in dict.fromkeys(notes):
            self._notes.add(text, part.instance)
        if part.state not in ANSWERED:
            self._add_not_done(part)

    def _add_not_done(self, part: Part) -> None:
        error = part.error or {}
        key = part.state.value, error.get("code", "")
        known = self._not_done.setdefault(key, NotDone(*key, hint=""))
        known.instances.append(part.instance)
        known.hint = min(filter(None, (known.hint, error.get("hint", ""))), default="")

    def result(self) -> Any:
        """By operation, as `shapes.MERGED` says; null where no run has told anything, or there is nothing to merge."""
        return self._merger.as_json() if self._merger is not None else None

    def notes(self) -> list[dict[str, Any]]:
        """The texts with the instances that they hold for, the most frequent first."""
        return [{"text": text, "count": count, "instances": names} for text, count, names in self._notes.ranked()]

    @property
    def more_notes(self) -> int:
        return self._notes.more

    def not_done(self) -> list[dict[str, Any]]:
        """What nobody knows first, then what failed, then what may still come."""
        ranked = sorted(self._not_done.values(), key=lambda each: (ORDER.index(RunState(each.state)), each.code))
        return [
            {
                "state": each.state,
                "code": each.code or None,
                "hint": each.hint,
                "count": len(each.instances),
                "instances": sorted(each.instances),
            }
            for each in ranked
        ]


def merger_of(operation: str, params: Mapping[str, Any], limit: int) -> Merger | None:
    """How the results of that operation are merged. None: they are not."""
    defaults = {name: param.default for name, param in CATALOGUE[operation].params.items()}
    asked = {**defaults, **params}
    if operation == "queue.summary":
        return QueueSummaries(asked["top"])
    if operation == "queue.list":
        return QueueLists(asked["order"], asked["fields"] or (), limit)
    if operation in ("message.trace", "log.search"):
        return Logs("rows" if operation == "message.trace" else "lines", limit)
    if operation in ("sender.block", "sender.unblock"):
        return Senders()
    if operation in VALUES:
        return Commonalities(VALUES[operation])
    return MessageChanges() if CATALOGUE[operation].changes else None
