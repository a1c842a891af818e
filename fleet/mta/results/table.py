"""Which result, and which evidence, each operation has."""

from typing import Any

from fleet.mta.results.changing import (
    MessageDeliverResult,
    MessageSeen,
    MessagesResult,
    MessagesSeen,
    SenderResult,
    SenderSeen,
)
from fleet.mta.results.host import HostCheckResult, HostDiscoverResult
from fleet.mta.results.reading import (
    AddressTestResult,
    BlockListResult,
    LogSearchResult,
    MessageShowResult,
    MessageTraceResult,
    QueueListResult,
    QueueSummaryResult,
    SmtpProbeResult,
)

RESULTS: dict[str, Any] = {
    "host.discover": HostDiscoverResult,
    "host.check": HostCheckResult,
    "queue.list": QueueListResult,
    "queue.summary": QueueSummaryResult,
    "message.show": MessageShowResult,
    "log.search": LogSearchResult,
    "message.trace": MessageTraceResult,
    "address.test": AddressTestResult,
    "smtp.probe": SmtpProbeResult,
    "block.list": BlockListResult,
    "queue.purge": MessagesResult,
    "queue.hold": MessagesResult,
    "queue.release": MessagesResult,
    "message.deliver": MessageDeliverResult,
    "queue.flush": MessagesResult,
    "queue.bounce": MessagesResult,
    "queue.requeue": MessagesResult,
    "quarantine.restore": MessagesResult,
    "quarantine.erase": MessagesResult,
    "sender.block": SenderResult,
    "sender.unblock": SenderResult,
}
"""By operation."""

EVIDENCE: dict[Any, Any] = {
    MessagesResult: MessagesSeen,
    MessageDeliverResult: MessageSeen,
    SenderResult: SenderSeen,
}
"""What is seen before and after, by the result; where one is missing, nothing is."""
