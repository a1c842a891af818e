"""Told against truth: what the service says of a purge beside what lies on the host. Pure."""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

Places = Mapping[str, Sequence[tuple[str, str]]]
"""Queue ID -> (place, SHA-256) of each file of that name."""


@dataclass(frozen=True)
class Told:
    """A job's only run as the API tells it. `rows`: queue IDs that quarantine/ has as kept for the job."""

    job: str
    state: str
    result: Mapping[str, Any] = field(default_factory=dict)
    rows: Sequence[str] = ()

    @property
    def counts(self) -> dict[str, int]:
        names = ("done", "already_gone", "in_delivery", "left")
        return {name: int(self.result.get(name, 0)) for name in names}


@dataclass(frozen=True)
class Truth:
    """The host. `before`: queue ID -> SHA-256 of what was to be purged. `effects`: (what, queue ID), in order."""

    before: Mapping[str, str]
    queued: Places
    kept: Places
    effects: Sequence[tuple[str, str]] = ()

    @property
    def here(self) -> set[str]:
        return {name for name in self.before if self.queued.get(name)}

    @property
    def away(self) -> set[str]:
        return {name for name in self.before if self.kept.get(name)}

    @property
    def held(self) -> set[str]:
        return {name for name in self.here if any(place == "hold" for place, _ in self.queued[name])}


def problems(told: Told, truth: Truth) -> list[str]:
    """Every promise that this purge broke, in words that name it first; empty when told and truth agree."""
    return [*_mail(truth), *_rows(told, truth), *_claims(told, truth)]


def _mail(truth: Truth) -> Iterable[str]:
    yield from _named("lost", set(truth.before) - truth.here - truth.away)
    files = {name: [*truth.queued.get(name, ()), *truth.kept.get(name, ())] for name in truth.before}
    yield from _named("doubled", (name for name, found in files.items() if len(found) > 1))
    changed = (name for name, found in files.items() if any(digest != truth.before[name] for _, digest in found))
    yield from _named("not the same bytes", changed)
    times = Counter(truth.effects)
    yield from _named("done twice", (f"{what} {name}" for (what, name), count in times.items() if count > 1))


def _rows(told: Told, truth: Truth) -> Iterable[str]:
    mine = {name for name in truth.away if any(job == told.job for job, _ in truth.kept[name])}
    yield from _named("in a quarantine without a row", truth.away - set(told.rows))
    yield from _named("a row without its message", set(told.rows) - mine)
    yield from _named("two rows", (name for name, count in Counter(told.rows).items() if count > 1))


def _claims(told: Told, truth: Truth) -> Iterable[str]:
    if told.state == "succeeded" and truth.here:
        yield f"succeeded with messages left: {len(truth.here)} of {len(truth.before)}"
    counts = told.counts
    if counts["done"] != len(truth.away):
        yield f"claimed wrongly: done {counts['done']}, in quarantine {len(truth.away)} ({told.state})"
    if told.result and counts["left"] + counts["in_delivery"] != len(truth.here):
        yield f"claimed wrongly: left {counts['left'] + counts['in_delivery']}, queued {len(truth.here)} ({told.state})"
    yield from _named("on hold without being told", truth.held - set(told.result.get("held", ())))


def restored(before: Mapping[str, str], queued: Places, kept: Places, held: Iterable[str]) -> list[str]:
    """What an undo left undone. `held`: messages that the purge said it left on hold, and that its undo leaves so."""
    may_hold = set(held)
    said = [*_named("not back after undo", (name for name in before if not queued.get(name)))]
    said += _named("still in quarantine after undo", (name for name in before if kept.get(name)))
    for name, digest in before.items():
        for place, found in queued.get(name, ()):
            if found != digest:
                said.append(f"other bytes after undo: {name}")
            if place != "deferred" and name not in may_hold:
                said.append(f"in {place} after undo: {name}")
    return said


def _named(problem: str, names: Iterable[str]) -> list[str]:
    found = sorted(names)
    return [f"{problem}: {len(found)} ({', '.join(found[:3])})"] if found else []
