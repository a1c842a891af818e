"""The operations as data: what was requested of one MTA instance. Parsed in params.py, carried out by adapters."""

from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import ClassVar

from fleet.match import Expression


@dataclass(frozen=True, slots=True)
class Selection:
    """Which messages: by expression, or by explicit queue IDs. Exactly one of both is set."""

    match: Expression | None = None
    queue_ids: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Limits:
    """Stop before changing more than this of any one queue."""

    max_messages: int = 10_000
    max_fraction: float | None = None


@dataclass(frozen=True, slots=True)
class Operation:
    """Base. `name` as in the API, `changes`: may change the host, `deadline`: seconds for one run.

    `of_host`: it is asked of a host, whether MTAs are known there or not.
    """

    name: ClassVar[str]
    changes: ClassVar[bool] = False
    deadline: ClassVar[int] = 60
    of_host: ClassVar[bool] = False


@dataclass(frozen=True, slots=True)
class HostDiscover(Operation):
    name = "host.discover"
    of_host = True


@dataclass(frozen=True, slots=True)
class HostCheck(Operation):
    name = "host.check"
    deadline = 300
    of_host = True


@dataclass(frozen=True, slots=True)
class QueueList(Operation):
    name = "queue.list"
    deadline = 300
    match: Expression
    limit: int = 1000
    fields: tuple[str, ...] = ()
    order: str = "age"


@dataclass(frozen=True, slots=True)
class QueueSummary(Operation):
    name = "queue.summary"
    deadline = 300
    match: Expression
    group_by: tuple[str, ...] = ("from-domain",)
    top: int = 10


@dataclass(frozen=True, slots=True)
class MessageShow(Operation):
    name = "message.show"
    queue_id: str
    parts: tuple[str, ...] = ("envelope", "headers")
    max_bytes: int = 262_144


@dataclass(frozen=True, slots=True)
class BlockList(Operation):
    name = "block.list"


@dataclass(frozen=True, slots=True)
class LogSearch(Operation):
    """Exactly one of `contains` and `regex` (RE2) is not empty. `since`: a moment, or so long before now."""

    name = "log.search"
    deadline = 300
    contains: str = ""
    regex: str = ""
    since: datetime | timedelta = timedelta(hours=24)
    until: datetime | None = None
    limit: int = 1000


@dataclass(frozen=True, slots=True)
class MessageTrace(Operation):
    """At least one of the first four is not empty. `sender` and `recipient` are wildcard patterns of addresses."""

    name = "message.trace"
    deadline = 300
    sender: str = ""
    recipient: str = ""
    queue_id: str = ""
    message_id: str = ""
    since: datetime | timedelta = timedelta(hours=24)
    until: datetime | None = None
    limit: int = 1000


@dataclass(frozen=True, slots=True)
class AddressTest(Operation):
    """How the instance would route mail to `address` (RFC 5321 form)."""

    name = "address.test"
    address: str


@dataclass(frozen=True, slots=True)
class SmtpProbe(Operation):
    """What the hosts of the route say to mail from `sender` (`<>`: the null sender) to `recipient`, up to RCPT."""

    name = "smtp.probe"
    deadline = 180
    sender: str
    recipient: str


@dataclass(frozen=True, slots=True)
class ChangesMessages(Operation):
    """Base of what changes a selection of messages."""

    changes = True
    deadline = 600
    selection: Selection
    limits: Limits = Limits()


@dataclass(frozen=True, slots=True)
class QueueHold(ChangesMessages):
    name = "queue.hold"


@dataclass(frozen=True, slots=True)
class QueueRelease(ChangesMessages):
    name = "queue.release"


@dataclass(frozen=True, slots=True)
class QueuePurge(ChangesMessages):
    """`mode`: quarantine or delete. `keep`: seconds that the quarantined copy is kept."""

    name = "queue.purge"
    mode: str = "quarantine"
    keep: int = 7 * 86_400


@dataclass(frozen=True, slots=True)
class QueueFlush(ChangesMessages):
    name = "queue.flush"


@dataclass(frozen=True, slots=True)
class QueueBounce(ChangesMessages):
    """`notify`: whether the sender gets the non-delivery notice; False is unsupported where the MTA always sends it."""

    name = "queue.bounce"
    notify: bool = True


@dataclass(frozen=True, slots=True)
class QueueRequeue(ChangesMessages):
    name = "queue.requeue"


@dataclass(frozen=True, slots=True)
class MessageDeliver(Operation):
    """`verbose`: with the SMTP dialogue where the MTA can show it. `release`: also a held message."""

    name = "message.deliver"
    changes = True
    deadline = 180
    queue_id: str
    verbose: bool = False
    release: bool = False


@dataclass(frozen=True, slots=True)
class Quarantined:
    """A message in the host's quarantine: `id` is ours, `place` the adapter's own words for where it lies."""

    id: str
    queue_id: str
    place: str
    arrival_time: float
    sender: str
    size: int
    state: str


@dataclass(frozen=True, slots=True)
class QuarantineRestore(Operation):
    name = "quarantine.restore"
    changes = True
    deadline = 600
    items: tuple[Quarantined, ...]


@dataclass(frozen=True, slots=True)
class QuarantineErase(Operation):
    name = "quarantine.erase"
    changes = True
    deadline = 600
    items: tuple[Quarantined, ...]


@dataclass(frozen=True, slots=True)
class SenderBlock(Operation):
    """`pattern`: user@domain, domain, .domain (with sub-domains) or <>. `action`: reject or discard."""

    name = "sender.block"
    changes = True
    deadline = 180
    pattern: str
    action: str = "reject"
    code: int = 550
    enhanced: str = "5.7.1"
    text: str = "Sender address blocked"


@dataclass(frozen=True, slots=True)
class SenderUnblock(Operation):
    name = "sender.unblock"
    changes = True
    deadline = 180
    pattern: str
