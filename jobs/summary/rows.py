"""Listings of many instances as one: the first rows by a common order, with the instance of each.

What is kept is bounded by number and size, whatever the runs are.
"""

from collections import Counter
from collections.abc import Iterable, Mapping
from typing import Any

import msgspec

from jobs.summary.counts import add_up
from jobs.summary.part import Part, earlier, later, moment

HEAVY = 4 << 20
"""Bytes of JSON of the rows shown, after which they end, whatever their limit: a message may have any number of
recipients."""

Key = tuple[float, str, int]
"""The lowest comes first: what the order goes by, the instance, the place in its list."""
Same = tuple[str, bytes, int]
"""What two instances that read one log have in common: host, row, how often the row was told before."""


class FirstRows:
    """The first `limit` rows by their keys, and no more than HEAVY bytes. `is_shared`: a row that several instances of
    a host tell is one row, of the first of them."""

    def __init__(self, limit: int, *, is_shared: bool) -> None:
        self._limit, self._is_shared = limit, is_shared
        self._rows: dict[Any, tuple[Key, bytes]] = {}
        self._last: Key | None = None
        self._size = 0
        self.is_cut = False

    def add(self, part: Part, rows: Iterable[tuple[float, int, msgspec.Raw]]) -> None:
        """The rows of an instance as (key, place, JSON), the lowest key first."""
        times: dict[bytes, int] = {}
        for first, place, raw in rows:
            key: Key = first, part.instance, place
            if self._last is not None and key > self._last:
                self.is_cut = True
                return
            row = bytes(raw)  # a copy: Raw would keep the whole result alive
            nth = times[row] = times.get(row, -1) + 1
            same: Same | Key = (part.host, row, nth) if self._is_shared else key
            known = self._rows.get(same)
            if known is None or key < known[0]:
                self._rows[same] = key, row
                self._size += 0 if known else len(row)
            if len(self._rows) >= 2 * self._limit + 100 or self._size > 4 * HEAVY:
                self._trim()

    def _trim(self) -> None:
        kept: dict[Any, tuple[Key, bytes]] = {}
        size = 0
        for same, (key, row) in sorted(self._rows.items(), key=lambda item: item[1][0]):
            if len(kept) == self._limit or size > HEAVY:
                self.is_cut = True
                break
            kept[same] = key, row
            size += len(row)
            self._last = key
        if not self.is_cut:
            self._last = None
        self._rows, self._size = kept, size

    def rows(self) -> list[tuple[Key, dict[str, Any]]]:
        """The kept rows in order."""
        self._trim()
        return [(key, msgspec.json.decode(row)) for key, row in self._rows.values()]


class Listed(msgspec.Struct):
    """A run's result of queue.list."""

    entries: list[msgspec.Raw]
    total: int
    matched: int
    truncated: bool
    taken_at: str | None = None
    refused: int = 0
    notes: list[str] = []


class Aged(msgspec.Struct):
    """What an entry says of its place; nothing where that was not asked for."""

    arrival_time: str | None = None
    size: int | None = None


class QueueLists:
    """Merges `queue.list`. `order` and `fields`: as the job asked for them."""

    def __init__(self, order: str, fields: Iterable[str], limit: int) -> None:
        needed = {"age": "arrival_time", "size": "size"}[order]
        self._order = order if not fields or needed in fields else "instance"
        self._rows = FirstRows(limit, is_shared=False)
        self._sums = {"instances": 0, "total": 0, "matched": 0, "refused": 0}
        self._is_cut = False
        self._times: tuple[str | None, str | None] = None, None

    def add(self, part: Part) -> list[str]:
        if not part.has_result:
            return []
        listed = msgspec.json.decode(part.result, type=Listed)
        add_up(self._sums, {name: getattr(listed, name) for name in ("total", "matched", "refused")} | {"instances": 1})
        self._is_cut = self._is_cut or listed.truncated
        first, last = self._times
        self._times = earlier(first, listed.taken_at), later(last, listed.taken_at)
        self._rows.add(part, ((self._key(raw), place, raw) for place, raw in enumerate(listed.entries)))
        return listed.notes

    def _key(self, raw: msgspec.Raw) -> float:
        if self._order == "instance":
            return 0
        entry = msgspec.json.decode(raw, type=Aged)
        if self._order == "size":
            return -(entry.size or 0)
        return moment(entry.arrival_time) if entry.arrival_time else 0

    def as_json(self) -> dict[str, Any]:
        rows = self._rows.rows()
        return {
            "instances": self._sums["instances"],
            "entries": [{"instance": instance, **entry} for (_, instance, _), entry in rows],
            "order": self._order,
            "total": self._sums["total"],
            "matched": self._sums["matched"],
            "truncated": self._is_cut or self._rows.is_cut,
            "refused": self._sums["refused"],
            "taken_from": self._times[0],
            "taken_to": self._times[1],
        }


class Logged(msgspec.Struct):
    """A run's result of log.search or message.trace."""

    matched: int
    truncated: bool
    rows: list[msgspec.Raw] = []
    lines: list[msgspec.Raw] = []
    totals: dict[str, int] = {}
    since: str | None = None
    until: str | None = None
    notes: list[str] = []


class Timed(msgspec.Struct):
    """A row's or line's time."""

    time: str


class Logs:
    """Merges `message.trace` (`name`: rows) and `log.search` (lines): the newest, oldest first."""

    def __init__(self, name: str, limit: int) -> None:
        self._name = name
        self._rows = FirstRows(limit, is_shared=True)
        self._instances = self._matched = 0
        self._totals: dict[str, int] = {}
        self._is_cut = False
        self._window: tuple[str | None, str | None] = None, None

    def add(self, part: Part) -> list[str]:
        if not part.has_result:
            return []
        logged = msgspec.json.decode(part.result, type=Logged)
        self._instances += 1
        self._matched += logged.matched
        add_up(self._totals, logged.totals)
        self._is_cut = self._is_cut or logged.truncated
        since, until = self._window
        self._window = earlier(since, logged.since), later(until, logged.until)
        newest = reversed(list(enumerate(logged.rows or logged.lines)))
        self._rows.add(part, ((-moment(_time(raw)), -place, raw) for place, raw in newest))
        return logged.notes

    def as_json(self) -> dict[str, Any]:
        rows = sorted(self._rows.rows(), key=lambda row: (-row[0][0], row[0][1], -row[0][2]))
        is_cut = self._is_cut or self._rows.is_cut
        merged = {
            "instances": self._instances,
            self._name: [_with_instance(row, key[1]) for key, row in rows],
            "matched": self._matched if is_cut else len(rows),
            "truncated": is_cut,
            "since": self._window[0],
            "until": self._window[1],
        }
        if self._name == "lines":
            return merged
        shown = Counter(row["status"] for _, row in rows)
        return {**merged, "totals": self._totals if is_cut else {name: shown[name] for name in self._totals}}


def _time(raw: msgspec.Raw) -> str:
    return msgspec.json.decode(raw, type=Timed).time


def _with_instance(row: Mapping[str, Any], instance: str) -> dict[str, Any]:
    """A row of a trace has an `instance` already, as its log names it."""
    named = {"log_name": row["instance"]} if "instance" in row else {}
    return {**row, **named, "instance": instance}
