"""queue.summary of many instances: sums, and per group how much may be missing of it.

Each instance tells its largest groups. What one does not tell of a group is at most its smallest told one, where its
list was cut: what Elasticsearch calls `doc_count_error_upper_bound`.
"""

from collections.abc import Mapping
from typing import Any

import msgspec

from fleet.mta.queue.summary import OTHERS
from jobs.summary.part import Part, earlier, later

KEPT = 5000
"""Groups of one list that are kept at most while merging; of more the smallest half goes."""
KEPT_OF_CUSTOMER = 200
READ_OF_CUSTOMER = 50
"""Groups of an instance's list that are looked at for its customer, as if no more had been asked for."""
TOP_OF_CUSTOMER = 10
"""Groups of a customer that are shown."""


class Sum(msgspec.Struct):
    """As in a result."""

    count: int
    bytes: int
    oldest_at: str | None = None

    def add(self, other: "Sum") -> None:
        self.count += other.count
        self.bytes += other.bytes
        self.oldest_at = earlier(self.oldest_at, other.oldest_at)


class Group(Sum):
    """A group. `told`: the sum of the smallest told groups of those instances that tell of this one; `lost`: how many
    of it may have been dropped before."""

    value: str = ""
    ages: dict[str, int] = {}
    told: int = 0
    lost: int = 0


class Counted(msgspec.Struct):
    """A run's result."""

    total: Sum
    groups: dict[str, list[Group]]
    ages: dict[str, int]
    taken_at: str | None = None
    refused: int = 0
    notes: list[str] = []


def add_up(sums: dict[str, int], more: Mapping[str, int]) -> None:
    """Add to each of `sums` what `more` has under its name."""
    for name, number in more.items():
        sums[name] = sums.get(name, 0) + number


def most_untold(groups: list[Group], top: int) -> int:
    """How large a group can be of which this list of an instance does not tell."""
    if len(groups) < top:
        return 0
    together = next((group.count for group in groups if group.value == OTHERS), 0)
    return max(together, min(group.count for group in groups))


class Groups:
    """One list, merged. `top`: how long an instance's is at most. `shown`: how many groups are; `kept`: till then."""

    def __init__(self, top: int, shown: int, kept: int) -> None:
        self._top, self._shown, self._kept = top, shown, max(kept, 2 * shown)
        self._groups: dict[str, Group] = {}
        self._smallest = 0
        self._lost = 0

    def add(self, groups: list[Group]) -> None:
        """A list of an instance, the largest first."""
        groups = groups[: self._top]
        smallest = most_untold(groups, self._top)
        self._smallest += smallest
        for group in groups:
            known = self._groups.get(group.value)
            if known is None:
                self._groups[group.value] = msgspec.structs.replace(
                    group, ages=dict(group.ages), told=smallest, lost=self._lost
                )
                continue
            known.add(group)
            add_up(known.ages, group.ages)
            known.told += smallest
        if len(self._groups) > self._kept:
            self._drop()

    def _drop(self) -> None:
        ranked = self._ranked()
        kept, dropped = ranked[: self._kept // 2], ranked[self._kept // 2 :]
        self._lost += max(group.count + group.lost for group in dropped)
        self._groups = {group.value: group for group in kept}

    def _ranked(self) -> list[Group]:
        return sorted(self._groups.values(), key=lambda group: (-group.count, group.value))

    def as_json(self) -> list[dict[str, Any]]:
        """The largest groups, by what is known of them."""
        return [
            {
                "value": group.value,
                "count": group.count,
                "bytes": group.bytes,
                "oldest_at": group.oldest_at,
                "ages": group.ages,
                "more_at_most": self._smallest - group.told + group.lost,
            }
            for group in self._ranked()[: self._shown]
        ]


class Counts:
    """The sums over some instances."""

    def __init__(self, top: int, shown: int, kept: int) -> None:
        self._sizes = top, shown, kept
        self._instances = 0
        self._total = Sum(0, 0)
        self._groups: dict[str, Groups] = {}
        self._ages: dict[str, int] = {}

    def add(self, counted: Counted) -> None:
        self._instances += 1
        self._total.add(counted.total)
        add_up(self._ages, counted.ages)
        for word, groups in counted.groups.items():
            self._groups.setdefault(word, Groups(*self._sizes)).add(groups)

    def as_json(self) -> dict[str, Any]:
        return {
            "instances": self._instances,
            "total": msgspec.structs.asdict(self._total),
            "groups": {word: groups.as_json() for word, groups in sorted(self._groups.items())},
            "ages": _in_order(self._ages),
        }


class QueueSummaries:
    """Merges `queue.summary`. `top`: as the job asked for it."""

    def __init__(self, top: int) -> None:
        self._top = top
        self._all = Counts(top, top, KEPT)
        self._customers: dict[str, Counts] = {}
        self._refused = 0
        self._times: tuple[str | None, str | None] = None, None

    def add(self, part: Part) -> list[str]:
        if not part.has_result:
            return []
        counted = msgspec.json.decode(part.result, type=Counted)
        read, shown = min(self._top, READ_OF_CUSTOMER), min(self._top, TOP_OF_CUSTOMER)
        of_customer = self._customers.setdefault(part.customer, Counts(read, shown, KEPT_OF_CUSTOMER))
        for counts in (self._all, of_customer):
            counts.add(counted)
        self._refused += counted.refused
        first, last = self._times
        self._times = earlier(first, counted.taken_at), later(last, counted.taken_at)
        return counted.notes

    def as_json(self) -> dict[str, Any]:
        first, last = self._times
        return {
            **self._all.as_json(),
            "customers": [{"customer": name, **each.as_json()} for name, each in sorted(self._customers.items())],
            "refused": self._refused,
            "taken_from": first,
            "taken_to": last,
        }


def _in_order(ages: Mapping[str, int]) -> dict[str, int]:
    """The youngest first."""
    return dict(sorted(ages.items(), key=lambda item: int(item[0]) if item[0].isdigit() else 1 << 30))
