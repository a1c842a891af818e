"""A run as merging takes it, and what all kinds of results need."""

import heapq
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Protocol

from jobs.rules.state import RunState

NAMED = 100
"""Instances that are named of those which have something in common."""
OPEN = frozenset({RunState.PENDING, RunState.RUNNING})
EMPTY = ("", "null")


@dataclass(frozen=True, slots=True)
class Part:
    """One run. `instance`: HOST/NAME, or the host of a discovery. `result`, `plan`: JSON as it is stored, "" where
    there is none. `error`: as stored. `block`: state and detail of the block there, where the job is about one."""

    instance: str
    host: str
    customer: str
    state: RunState
    error: dict[str, Any] | None = None
    result: str = ""
    plan: str = ""
    block: tuple[str, str] | None = None

    @property
    def has_result(self) -> bool:
        return self.result not in EMPTY

    @property
    def has_plan(self) -> bool:
        return self.plan not in EMPTY


class Merger(Protocol):
    """Merges the results of one kind. `add` returns the notes of the run."""

    def add(self, part: Part) -> Iterable[str]: ...

    def as_json(self) -> Any: ...


def moment(text: str) -> float:
    """Epoch seconds of a time as results have it."""
    return datetime.fromisoformat(text).timestamp()


def earlier(first: str | None, second: str | None) -> str | None:
    """The first of two times, each as results have it or null. All end in Z; without it they are in order as texts."""
    if first is None or second is None:
        return second or first
    return first if first[:-1] <= second[:-1] else second


def later(first: str | None, second: str | None) -> str | None:
    """The last of two."""
    if first is None or second is None:
        return second or first
    return second if first[:-1] <= second[:-1] else first


class Common:
    """Texts, each with the instances that have it: the first hundred by name, and how many there are.

    Of more than `most` texts the rarest are left out; `more` says how many, at least.
    """

    def __init__(self, most: int) -> None:
        self._most = most
        self._counts: dict[str, int] = {}
        self._names: dict[str, list[str]] = {}
        self.left_out = 0

    def add(self, text: str, instance: str) -> None:
        if text not in self._counts and len(self._counts) >= 20 * self._most:
            self._trim()
        self._counts[text] = self._counts.get(text, 0) + 1
        names = self._names.setdefault(text, [])
        names.append(instance)
        if len(names) >= 2 * NAMED:
            self._names[text] = heapq.nsmallest(NAMED, names)

    def _trim(self) -> None:
        kept = self._ranked()[: 10 * self._most]
        self.left_out += len(self._counts) - len(kept)
        self._counts = {text: self._counts[text] for text in kept}
        self._names = {text: self._names[text] for text in kept}

    def _ranked(self) -> list[str]:
        return sorted(self._counts, key=lambda text: (-self._counts[text], text))

    def ranked(self) -> list[tuple[str, int, list[str]]]:
        """(text, how many have it, the first of them by name), the most frequent first."""
        return [
            (text, self._counts[text], heapq.nsmallest(NAMED, self._names[text]))
            for text in self._ranked()[: self._most]
        ]

    @property
    def more(self) -> int:
        return self.left_out + max(0, len(self._counts) - self._most)
