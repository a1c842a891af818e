"""What adapters tell of hosts, instances, queued messages and what became of them. Pure data."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any

from fleet.mta.errors import FleetError
from fleet.mta.results.reading import QueuedRecipient


class Support(StrEnum):
    NATIVE = "native"
    EMULATED = "emulated"
    ABSENT = "absent"


@dataclass(frozen=True, slots=True)
class Capability:
    support: Support
    note: str = ""


@dataclass(slots=True)
class Recipient:
    """An envelope recipient. `state`: "undelivered" or "delivered". `reason`: last delay reason or "". `raw`: as the
    MTA stores the address, "" where it is the same."""

    address: str
    reason: str = ""
    state: str = "undelivered"
    raw: str = ""

    def as_json(self) -> QueuedRecipient:
        """As the API shows it. `raw` only where it is another address."""
        shown: QueuedRecipient = {"address": self.address, "reason": self.reason, "state": self.state}
        return {**shown, "raw": self.raw} if self.raw else shown


@dataclass(slots=True)
class QueueEntry:
    """A queued message as its MTA lists it.

    `state` is one of incoming, active, deferred, hold, maildrop; `native_state` the MTA's own word. `arrival_time`:
    epoch seconds. `sender` in RFC 5321 form, the null sender "<>"; bytes that are no UTF-8 as \\xHH, and then
    `sender_raw` has them. `size`: bytes of header and body as stored. `attempts` None: this MTA does not count them.
    `held_by`: the job of ours that the host itself names on the message's hold; most MTAs keep no such word.
    """

    queue_id: str
    state: str
    native_state: str
    arrival_time: float
    sender: str
    recipients: Sequence[Recipient]
    size: int
    attempts: int | None = None
    next_attempt: float | None = None
    subject: str | None = None
    sender_raw: bytes | None = None
    held_by: str = ""

    def entry(self) -> "QueueEntry":
        """Itself: it stands by itself already."""
        return self


@dataclass(frozen=True, slots=True)
class Fingerprint:
    """What names a message: a queue ID by itself does not. `size` as in QueueEntry; `state` what it was when chosen."""

    queue_id: str
    arrival_time: float
    sender: str
    size: int
    state: str = field(default="deferred", compare=False)
    recipients: tuple[str, ...] = field(default=(), compare=False)
    subject: str = field(default="", compare=False)


class MessageState(StrEnum):
    """What became of one message.

    LEFT_QUEUE: no longer queued when a deletion that was cut off is read back: deleted by it, or delivered meanwhile.
    """

    DONE = "done"
    ALREADY_GONE = "already_gone"
    LEFT_QUEUE = "left_queue"
    IN_DELIVERY = "in_delivery"
    LEFT = "left"


WORST_FIRST = ("bounced", "discarded", "left_queue", "deferred")
"""What came of an attempt, from the worst; whatever else is better. Of several recipients, or lines of one, the worst
counts."""


@dataclass(frozen=True, slots=True)
class MessageOutcome:
    queue_id: str
    outcome: MessageState
    new_id: str = ""


class Ended(StrEnum):
    """How an operation on one instance ended, as far as the adapter can say."""

    SUCCEEDED = "succeeded"
    UNCHANGED = "unchanged"
    FAILED = "failed"


@dataclass(frozen=True, slots=True)
class Result:
    """What an operation returns. `data` is the run's `result`, `before`/`after` are the evidence: fleet.mta.results."""

    ended: Ended
    data: Mapping[str, Any] = field(default_factory=dict)
    messages: tuple[MessageOutcome, ...] = ()
    before: Any = None
    after: Any = None
    error: FleetError | None = None


@dataclass(frozen=True, slots=True)
class HostFacts:
    """What discovery learnt about the host itself.

    `clock_skew`: seconds the host is ahead of us, None if unknown. `exchange`: by which program two files can be
    exchanged in one step (exchange.sh), "none", or "" if unknown. `login_noise`: what the login prints beside
    each command, as far as it was kept.
    """

    os: str = ""
    login_shell: str = ""
    has_sudo: bool = False
    is_root: bool = False
    clock_skew: float | None = None
    service_manager: str = ""
    log_source: str = ""
    exchange: str = ""
    helpers: tuple[tuple[str, str], ...] = ()
    login_noise: str = ""

    @property
    def notes(self) -> list[str]:
        """What its administrator should mend."""
        if not self.login_noise:
            return []
        first = self.login_noise.strip().partition("\n")[0][:200]
        return [
            f"the login prints text beside each command, beginning with {first!r}; it is left out here, but scp, rsync "
            "and others may fail by it: make it silent for logins that are not interactive"
        ]


@dataclass(frozen=True, slots=True)
class InstanceFacts:
    """An MTA instance, as discovery found it and as adapters need it again. `options` is the adapter's own (JSON)."""

    host: str
    name: str
    mta: str
    version: str
    config_dir: str
    queue_dirs: tuple[str, ...]
    front_ends: tuple[str, ...] = ()
    options: dict[str, Any] = field(default_factory=dict, compare=False)

    @property
    def id(self) -> str:
        return f"{self.host}/{self.name}"


@dataclass(frozen=True, slots=True)
class Context:
    """What an operation may know besides its parameters.

    `now`: epoch seconds by the database's clock, moved by the host's clock skew. `job`: the job's id, the mark on what
    we leave on the host. `frozen`: the plan's messages; given when a plan is applied or read back, and nothing else is
    touched then. `ours`: fingerprints that some job of ours put on hold. `wanted_blocks`: our patterns that stay wanted
    here besides the operation's own (so that unblock knows when wiring may go). `wiring_approved`: the plan had it.
    `undo`: the job puts back what another one changed. `fence`: the number of the hold on the host under which this
    runs, microseconds since the epoch by the database's clock, growing and never reused; 0: none is known, and nothing
    is checked. A host refuses a changing script with a lower one than it has seen (fence.sh), so runs that may change
    one host at the same time have the same.
    """

    now: float
    job: str = ""
    frozen: tuple[Fingerprint, ...] | None = None
    ours: frozenset[Fingerprint] = frozenset()
    wanted_blocks: tuple[str, ...] = ()
    wiring_approved: bool = False
    undo: bool = False
    fence: int = 0


@dataclass(frozen=True, slots=True, order=True)
class Found:
    """A message in quarantine. `job`: its name there (Adapter.quarantine_mark); `place`: as in a purge's result."""

    job: str
    queue_id: str
    place: str


@dataclass(frozen=True, slots=True)
class InQuarantine:
    """One look. `more`: messages beyond what was listed; `odd`: files that no job of ours can have put there so."""

    found: tuple[Found, ...]
    more: int = 0
    odd: int = 0
