"""queue.summary: how many, how large, how old, per group."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field

from fleet.mta.address import domain_of
from fleet.mta.operations import QueueSummary
from fleet.mta.queue.content import Stored
from fleet.mta.queue.listing import Queue, StreamedEntry, matching
from fleet.mta.records import Context, Ended, InstanceFacts, Result
from fleet.mta.results.reading import QueueSummaryCounts, QueueSummaryResult, SummaryGroup, SummaryTotal
from fleet.mta.steps import Steps

# qshape(1): 5 minutes, doubled. Upper bounds in minutes; what is older than the last is in the bucket "+".
BUCKETS = (5, 10, 20, 40, 80, 160, 320, 640, 1280, 2560, 5120)
LONGEST_GROUP = 50_000
OTHERS = "(others)"
"""The value of what comes after so many."""


@dataclass(slots=True)
class Tally:
    """A group: how many messages, their bytes, the oldest arrival (epoch seconds) and the age histogram."""

    count: int = 0
    bytes: int = 0
    oldest_at: float | None = None
    ages: list[int] = field(default_factory=lambda: [0] * (len(BUCKETS) + 1))

    def add(self, message: StreamedEntry, bucket: int) -> None:
        self.count += 1
        self.bytes += message.size
        if self.oldest_at is None or message.arrival_time < self.oldest_at:
            self.oldest_at = message.arrival_time
        self.ages[bucket] += 1

    def as_json(self) -> SummaryTotal:
        return {"count": self.count, "bytes": self.bytes, "oldest_at": self.oldest_at}


def bucket_of(age: float) -> int:
    """The index of the age (seconds) in BUCKETS; what arrived in the future is young."""
    return next((at for at, minutes in enumerate(BUCKETS) if age < minutes * 60), len(BUCKETS))


KEYS: dict[str, Callable[[StreamedEntry], Iterable[str]]] = {
    "from": lambda message: (message.sender,),
    "from-domain": lambda message: (domain_of(message.sender) or message.sender,),
    "to": lambda message: {each.address for each in message.recipients},
    "to-domain": lambda message: {domain_of(each.address) or each.address for each in message.recipients},
    "reason": lambda message: {each.reason for each in message.recipients if each.reason},
    "state": lambda message: (message.state,),
}


class Summary:
    """Counts while the listing streams in. A message with three recipient domains counts once in each of them."""

    def __init__(self, operation: QueueSummary, now: float) -> None:
        self.now = now
        self.top = operation.top
        self.total = Tally()
        self.groups: dict[str, dict[str, Tally]] = {name: {} for name in operation.group_by}

    def add(self, message: StreamedEntry) -> None:
        bucket = bucket_of(self.now - message.arrival_time)
        self.total.add(message, bucket)
        for name, group in self.groups.items():
            values = (bucket_name(bucket),) if name == "age" else KEYS[name](message)
            for value in values:
                if value not in group and len(group) >= LONGEST_GROUP:
                    value = OTHERS
                group.setdefault(value, Tally()).add(message, bucket)

    def as_json(self) -> QueueSummaryCounts:
        return {
            "total": self.total.as_json(),
            "groups": {name: self._top(name) for name in self.groups},
            "ages": histogram(self.total.ages),
        }

    def _top(self, name: str) -> list[SummaryGroup]:
        ranked = sorted(self.groups[name].items(), key=lambda item: (-item[1].count, item[0]))
        return [
            {"value": value, **tally.as_json(), "ages": histogram(tally.ages)} for value, tally in ranked[: self.top]
        ]


def bucket_name(bucket: int) -> str:
    """ "5", "10", ... are minutes, as qshape's columns; "+" is older than all."""
    return str(BUCKETS[bucket]) if bucket < len(BUCKETS) else "+"


def histogram(ages: list[int]) -> dict[str, int]:
    """Counts by bucket name."""
    return {bucket_name(at): count for at, count in enumerate(ages)}


def queue_summary(queue: Queue, instance: InstanceFacts, operation: QueueSummary, context: Context) -> Steps[Result]:
    """`queue.summary`."""
    judge = operation.match.compile(context.now)
    summary = Summary(operation, context.now)

    def take(message: StreamedEntry, content: Stored | None = None) -> None:
        summary.add(message)

    listing = yield from matching(queue, instance, operation.match, judge, take)
    data: QueueSummaryResult = {
        **summary.as_json(),
        "taken_at": context.now,
        "refused": listing.refused,
        "notes": list(listing.notes),
    }
    return Result(Ended.SUCCEEDED, data)
