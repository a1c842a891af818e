"""Changes of many instances: messages counted, blocks with their states, and what else instances have in common."""

from collections import Counter
from collections.abc import Callable, Iterable
from typing import Any

import msgspec

from fleet.mta.records import MessageState
from jobs.rules.state import RunState
from jobs.summary.part import NAMED, OPEN, Common, Part

DETAIL = 200
"""Characters of a block's detail."""
MOST_VALUES = 200


class PlanCounts(msgspec.Struct):
    messages: int = 0
    bytes: int = 0


class Planned(msgspec.Struct):
    """A run's plan."""

    counts: PlanCounts = msgspec.field(default_factory=PlanCounts)
    queue_total: int = 0
    notes: list[str] = []


class Told(msgspec.Struct):
    """A run's result. `asked` None: it counts no messages."""

    asked: int | None = None
    done: int = 0
    already_gone: int = 0
    left_queue: int = 0
    in_delivery: int = 0
    left: int = 0
    already: int = 0
    notes: list[str] = []

    def counts(self) -> dict[str, int]:
        return {name: getattr(self, name) for name in OUTCOMES}


OUTCOMES = ("already", "asked", *(state.value for state in MessageState))


class Changes:
    """The sums over some instances."""

    def __init__(self) -> None:
        self._sums: Counter[str] = Counter()

    def add(self, state: RunState, planned: Planned, told: Told) -> None:
        messages = planned.counts.messages
        self._sums.update(planned=messages, bytes=planned.counts.bytes)
        if told.asked is not None:
            self._sums.update(instances=1, **told.counts())
        elif state != RunState.PLANNED:
            self._sums[_untold(state)] += messages

    def as_json(self) -> dict[str, int]:
        names = ("instances", "planned", "bytes", *OUTCOMES, "open", "unknown", "unreported")
        return {name: self._sums[name] for name in names}


def _untold(state: RunState) -> str:
    """What is to be said of the planned messages of a run that has told nothing of them."""
    if state in OPEN:
        return "open"
    return "unknown" if state == RunState.UNKNOWN else "unreported"


class MessageChanges:
    """Merges what changes messages, from its plans on."""

    def __init__(self) -> None:
        self._all = Changes()
        self._customers: dict[str, Changes] = {}
        self._largest: tuple[float, str, Planned] | None = None

    def add(self, part: Part) -> list[str]:
        planned, told = _planned(part), _told(part)
        if part.has_plan or part.has_result:
            for changes in (self._all, self._customers.setdefault(part.customer, Changes())):
                changes.add(part.state, planned, told)
        if planned.queue_total:
            share = (-planned.counts.messages / planned.queue_total, part.instance, planned)
            self._largest = min(self._largest or share, share, key=lambda each: each[:2])
        return [*told.notes, *planned.notes]

    def as_json(self) -> dict[str, Any]:
        customers = [{"customer": name, **each.as_json()} for name, each in sorted(self._customers.items())]
        return {**self._all.as_json(), "customers": customers, "largest_share": self._share()}

    def _share(self) -> dict[str, Any] | None:
        if self._largest is None:
            return None
        _, instance, planned = self._largest
        return {"instance": instance, "planned": planned.counts.messages, "queue_total": planned.queue_total}


def _planned(part: Part) -> Planned:
    return msgspec.json.decode(part.plan, type=Planned) if part.has_plan else Planned()


def _told(part: Part) -> Told:
    return msgspec.json.decode(part.result, type=Told) if part.has_result else Told()


class Drifted(msgspec.Struct):
    """A run's result of a job that compares a plan."""

    planned: int
    gone: int
    new: int
    changed: int
    files_changed: bool


class Drifts:
    """Merges how queues differ from the plan."""

    def __init__(self) -> None:
        self._sums: Counter[str] = Counter()
        self._differing: list[str] = []

    def add(self, part: Part) -> list[str]:
        if part.has_result:
            drifted = msgspec.json.decode(part.result, type=Drifted)
            self._sums.update(instances=1, **{name: int(n) for name, n in msgspec.structs.asdict(drifted).items()})
            if drifted.gone or drifted.new or drifted.changed or drifted.files_changed:
                self._differing.append(part.instance)
        return []

    def as_json(self) -> dict[str, Any]:
        names = ("instances", *Drifted.__struct_fields__)
        named = {"differing": len(self._differing), "named": sorted(self._differing)[:NAMED]}
        return {**{name: self._sums[name] for name in names}, **named}


class Senders:
    """Merges `sender.block` and `sender.unblock`: how it stands on each instance."""

    def __init__(self) -> None:
        self._seen: list[dict[str, Any]] = []
        self._states: Counter[str] = Counter()

    def add(self, part: Part) -> list[str]:
        state, detail = part.block or (None, "")
        self._seen.append(
            {"instance": part.instance, "run": part.state.value, "state": state, "detail": detail[:DETAIL]}
        )
        if state:
            self._states[state] += 1
        return [*_told(part).notes, *_planned(part).notes]

    def as_json(self) -> dict[str, Any]:
        return {
            "instances": sorted(self._seen, key=lambda seen: str(seen["instance"])),
            "states": dict(sorted(self._states.items())),
        }


class Commonalities:
    """Merges what has an outcome in one word. `values_of`: those of a result."""

    def __init__(self, values_of: Callable[[dict[str, Any]], Iterable[str]]) -> None:
        self._values_of = values_of
        self._instances = 0
        self._common = Common(MOST_VALUES)

    def add(self, part: Part) -> list[str]:
        notes = _planned(part).notes
        if not part.has_result:
            return notes
        result: dict[str, Any] = msgspec.json.decode(part.result)
        self._instances += 1
        for value in set(self._values_of(result)):
            self._common.add(value, part.instance)
        return [*result.get("notes", ()), *notes]

    def as_json(self) -> dict[str, Any]:
        ranked = [
            {"value": value, "count": count, "instances": names[:NAMED]}
            for value, count, names in self._common.ranked()
        ]
        return {"instances": self._instances, "outcomes": ranked, "more": self._common.more}


def _amiss(result: dict[str, Any]) -> list[str]:
    """Which checks of a host did not come out well; `ok` null: it could not be found out."""
    words = {False: "amiss", None: "not found out"}
    return [f"{each['name']} {words[each['ok']]}" for each in result["checks"] if not each["ok"]]


VALUES: dict[str, Callable[[dict[str, Any]], Iterable[str]]] = {
    "message.deliver": lambda result: [result["outcome"]] if "outcome" in result else [],
    "smtp.probe": lambda result: [result["verdict"]],
    "address.test": lambda result: [" and ".join(sorted({route["class"] for route in result["routes"]}))],
    "block.list": lambda result: [block["pattern"] for block in result["ours"]],
    "host.check": lambda result: _amiss(result) or ["ok"],
    "host.discover": lambda result: [f"{each['mta']} {each['version']}".strip() for each in result["instances"]],
}
"""By operation."""
