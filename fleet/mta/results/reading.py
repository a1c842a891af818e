"""What operations that change nothing come to."""

from typing import Annotated, NotRequired, Required, TypedDict

from msgspec import Meta

Time = Annotated[float, Meta(extra_json_schema={"format": "date-time"})]
EntryState = Annotated[str, Meta(extra_json_schema={"enum": ["incoming", "active", "deferred", "hold", "maildrop"]})]


class QueuedRecipient(TypedDict):
    """`reason`: of the last delay, or empty. `raw`: as the MTA stores the address, where that is another text."""

    address: str
    reason: str
    state: Annotated[str, Meta(extra_json_schema={"enum": ["undelivered", "delivered"]})]
    raw: NotRequired[str]


class QueuedMessage(TypedDict, total=False):
    """A queued message; of its fields those that were asked for. `native_state`: the MTA's own word. `size`: bytes.

    `attempts`: null where the MTA does not count them. `sender_raw`: base64 of a sender that is no UTF-8.
    """

    queue_id: Required[str]
    state: EntryState
    native_state: str
    arrival_time: Time
    sender: str
    recipients: list[QueuedRecipient]
    size: int
    attempts: int | None
    next_attempt: Time | None
    subject: str
    sender_raw: str


class QueueListResult(TypedDict):
    """`total`: messages in the queue. `matched`: those that match, of which `entries` are the first. `refused`: lines
    of the listing that could not be read."""

    entries: list[QueuedMessage]
    total: int
    matched: int
    truncated: bool
    taken_at: Time
    refused: int
    notes: list[str]


class SummaryTotal(TypedDict):
    """How many messages, their bytes, and when the oldest arrived."""

    count: int
    bytes: int
    oldest_at: Time | None


class SummaryGroup(SummaryTotal):
    """The same of the messages with one value."""

    value: str
    ages: dict[str, int]


class QueueSummaryCounts(TypedDict):
    """`groups`: a list for each word of `group_by`. `ages`: how many are younger than so many minutes, `+`: older."""

    total: SummaryTotal
    groups: dict[str, list[SummaryGroup]]
    ages: dict[str, int]


class QueueSummaryResult(QueueSummaryCounts):
    """The counts, when they were taken, and how many lines of the listing could not be read."""

    taken_at: Time
    refused: int
    notes: list[str]


class MessageEnvelope(TypedDict):
    """From whom, to whom, since when."""

    sender: str
    arrival_time: Time
    recipients: list[QueuedRecipient]


class MessageHeader(TypedDict):
    """`value`: decoded (RFC 2047). `raw`: as it stands there."""

    name: str
    value: str
    raw: str


class MessageBody(TypedDict):
    """`text`: what of it is UTF-8."""

    text: str
    raw_base64: str


class MessageShowResult(TypedDict):
    """The parts that were asked for; `truncated`: one is longer than max_bytes."""

    queue_id: str
    size: int
    state: EntryState
    truncated: bool
    envelope: NotRequired[MessageEnvelope]
    headers: NotRequired[list[MessageHeader]]
    body: NotRequired[MessageBody]


class LogFile(TypedDict):
    """What was read of one file. `untimed`: lines without a time."""

    path: str
    first_time: Time | None
    last_time: Time | None
    lines: int
    untimed: int


class LogRead(TypedDict):
    """Which files were read."""

    files: list[str]
    read: list[LogFile]


class LogLine(TypedDict):
    """A line of a log."""

    time: Time
    line: str
    file: str


class LogSearchResult(LogRead):
    """The newest lines that were found, oldest first; `matched`: how many there are."""

    lines: list[LogLine]
    matched: int
    truncated: bool
    since: Time
    until: Time
    notes: list[str]


STATUSES = (
    "sent", "deferred", "bounced", "expired", "rejected", "discarded", "held", "queued", "handed_over", "unclear",
    "removed",
)  # fmt: skip
"""`queued`: no attempt was logged. `handed_over`: to another queue or program of this host, of which no more was read.
`unclear`: the log tells what became of it, in a line that was not understood. `removed`: taken out of the queue by an
administrator."""


class TraceRow(TypedDict):
    """A message and one of its recipients. `arrival_time`, `size`, `sender`, `delay` (seconds): null where the log does
    not tell."""

    time: Time
    arrival_time: Time | None
    queue_id: str
    message_id: str
    size: int | None
    direction: Annotated[str, Meta(extra_json_schema={"enum": ["in", "local", "out"]})]
    client: str
    sender: str | None
    recipient: str
    orig_to: str
    relay: str
    status: Annotated[str, Meta(extra_json_schema={"enum": list(STATUSES)})]
    dsn: str
    reply: str
    delay: float | None
    instance: str


class MessageTraceResult(LogRead):
    """The newest rows, oldest first; `totals`: how many there are of each status."""

    rows: list[TraceRow]
    totals: dict[str, int]
    matched: int
    truncated: bool
    since: Time
    until: Time
    notes: list[str]


class RouteHost(TypedDict):
    """A next hop. `preference`: null where no MX record names it."""

    name: str
    preference: int | None
    addresses: list[str]
    port: int


RouteClass = Annotated[
    str, Meta(extra_json_schema={"enum": ["local", "virtual", "relay", "remote", "undeliverable", "deferred"]})
]
MailRoute = TypedDict(
    "MailRoute",
    {
        "recipient": str,
        "class": RouteClass,
        "transport": str,
        "nexthop": str,
        "via": list[str],
        "resolution": str,
        "detail": str,
        "hosts": list[RouteHost],
    },
)


class AddressTestResult(TypedDict):
    """How the MTA routes the address: a route for each recipient that it stands for."""

    address: str
    routes: list[MailRoute]
    notes: list[str]


class ProbeAttempt(TypedDict):
    """A host that was asked. `error`: why it settled nothing, or empty."""

    host: str
    address: str
    port: int
    error: str


class Exchange(TypedDict):
    """A line that was sent, empty for the greeting, and its reply."""

    sent: str
    reply: str


Verdict = Annotated[
    str,
    Meta(extra_json_schema={"enum": ["accepted", "refused", "deferred", "unreachable", "not_remote", "unknown"]}),
]


class ProbeOutcome(TypedDict):
    """What the first host that settles it said."""

    attempts: list[ProbeAttempt]
    dialogue: list[Exchange]
    verdict: Verdict
    reason: str


SmtpProbeResult = TypedDict(
    "SmtpProbeResult",
    {
        "from": str,
        "to": str,
        "route": MailRoute,
        "attempts": list[ProbeAttempt],
        "dialogue": list[Exchange],
        "verdict": Verdict,
        "reason": str,
        "notes": list[str],
    },
)


class ListedBlock(TypedDict):
    """A block of ours, as it stands on the host."""

    pattern: str
    action: Annotated[str, Meta(extra_json_schema={"enum": ["reject", "discard"]})]
    reply: str


class ListedLine(TypedDict):
    """A line of the administrator."""

    file: str
    line: str


class BlockListResult(TypedDict):
    """What the lists that the MTA asks say."""

    ours: list[ListedBlock]
    others: list[ListedLine]
