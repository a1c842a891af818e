"""The merged results as the API shows them, and its document; times are RFC 3339. `instances`: those that answered."""

from typing import Annotated, Literal, TypedDict

from msgspec import Meta

from fleet.mta.results.reading import LogLine, QueuedMessage, SummaryGroup, SummaryTotal, Time, TraceRow


class MergedGroup(SummaryGroup):
    """Messages with one value. `more_at_most`: instances tell their largest groups only, so that those of which this
    one is missing may have so many more; 0: none."""

    more_at_most: int


class MergedCounts(TypedDict):
    """The sums over instances. `ages`: as in a run's result."""

    instances: int
    total: SummaryTotal
    groups: dict[str, list[MergedGroup]]
    ages: dict[str, int]


class CustomerCounts(MergedCounts):
    """The sums over one customer's instances, at most ten groups of each list."""

    customer: str


class QueueSummaryMerged(MergedCounts):
    """The sums over all instances, and by customer. `taken_from`, `taken_to`: when the first and last was counted."""

    customers: list[CustomerCounts]
    refused: int
    taken_from: Time | None
    taken_to: Time | None


class MergedMessage(QueuedMessage):
    """A queued message, and where it is queued."""

    instance: str


class QueueListMerged(TypedDict):
    """Entries in the order that was asked for; where `fields` left out what that goes by, `order` is `instance`.

    `total`: messages in the queues. `matched`: those that match; `truncated`: not all of them are here.
    """

    instances: int
    entries: list[MergedMessage]
    order: Literal["age", "size", "instance"]
    total: int
    matched: int
    truncated: bool
    refused: int
    taken_from: Time | None
    taken_to: Time | None


class MergedLogs(TypedDict):
    """`matched`: how many there are; where `truncated` at most so many, since instances of one host that share a log
    each count what is in it.

    `since`, `until`: from the earliest to the latest, by the hosts' clocks. `truncated`: not all is here.
    """

    instances: int
    matched: int
    truncated: bool
    since: Time | None
    until: Time | None


class MergedLine(LogLine):
    """A line, and whose log it is in; of instances that share one, the first."""

    instance: str


class LogSearchMerged(MergedLogs):
    """The newest lines, oldest first."""

    lines: list[MergedLine]


class MergedRow(TraceRow):
    """A row of `message.trace` in whose log it is, of instances that share one the first. `log_name`: `instance` of the
    row: which instance the log itself names."""

    log_name: str


class MessageTraceMerged(MergedLogs):
    """The newest rows, oldest first; `totals`: as `matched`, by status."""

    rows: list[MergedRow]
    totals: dict[str, int]


class ChangeCounts(TypedDict):
    """`planned`: messages of the plans, with their `bytes`. `already`: those that were as wanted before. Runs told of
    `asked` (= `done` + `already_gone` + `left_queue` + `in_delivery` + `left`); of planned ones `open` are in runs that
    go on, `unknown` in those of which nobody knows yet what they did, `unreported` in those that ended without telling
    of messages."""

    instances: int
    planned: int
    bytes: int
    already: int
    asked: int
    done: int
    already_gone: int
    left_queue: int
    in_delivery: int
    left: int
    open: int
    unknown: int
    unreported: int


class CustomerChanges(ChangeCounts):
    """The same of one customer's instances."""

    customer: str


class LargestShare(TypedDict):
    """The queue of which the plan takes the largest part."""

    instance: str
    planned: int
    queue_total: int


class MessagesMerged(ChangeCounts):
    """The sums over all instances, and by customer. `instances`: those that told of messages."""

    customers: list[CustomerChanges]
    largest_share: LargestShare | None


class DriftMerged(TypedDict):
    """How the queues differ from a frozen plan: `planned`, `gone`, `new`, `changed` are sums. `differing`: on how many
    instances anything does, `named` at most a hundred of them; `files_changed`: on how many a file would be another."""

    instances: int
    planned: int
    gone: int
    new: int
    changed: int
    files_changed: int
    differing: int
    named: list[str]


class BlockSeen(TypedDict):
    """A block, or its end, on one instance. `run`: the run's state. `state`: where the block stands there by now, null
    where it does not (any more); `detail`: why."""

    instance: str
    run: str
    state: str | None
    detail: str


class SenderMerged(TypedDict):
    """`states`: how many blocks stand how."""

    instances: list[BlockSeen]
    states: dict[str, int]


class Outcome(TypedDict):
    """What instances have in common. `instances`: at most a hundred of them, `count` says how many they are."""

    value: str
    count: int
    instances: list[str]


Value = Annotated[
    list[Outcome],
    Meta(
        description="By `outcome` of message.deliver, `verdict` of smtp.probe, the classes of address.test, our "
        "patterns of block.list, MTA and version of host.discover; the most frequent first."
    ),
]


class OutcomesMerged(TypedDict):
    """Which instances came to the same. `more`: further values, of which there is no room."""

    instances: int
    outcomes: Value
    more: int


MERGED: dict[str, type] = {
    "host.discover": OutcomesMerged,
    "host.check": OutcomesMerged,
    "queue.list": QueueListMerged,
    "queue.summary": QueueSummaryMerged,
    "log.search": LogSearchMerged,
    "message.trace": MessageTraceMerged,
    "address.test": OutcomesMerged,
    "smtp.probe": OutcomesMerged,
    "block.list": OutcomesMerged,
    "queue.purge": MessagesMerged,
    "queue.hold": MessagesMerged,
    "queue.release": MessagesMerged,
    "message.deliver": OutcomesMerged,
    "queue.flush": MessagesMerged,
    "queue.bounce": MessagesMerged,
    "queue.requeue": MessagesMerged,
    "quarantine.restore": MessagesMerged,
    "quarantine.erase": MessagesMerged,
    "sender.block": SenderMerged,
    "sender.unblock": SenderMerged,
}
"""By operation. `message.show` is of one message: there is nothing to merge."""
