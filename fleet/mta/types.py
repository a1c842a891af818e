"""What adapters and the transport say to each other. Pure data.

An operation is a generator (`Steps`): it yields a `Command`, a `Dialogue`, a `DnsQuery` or a `Plan`, and is sent a
`Completed`, a `Transcript`, a `DnsReply` or None. It never touches a socket, a clock or a file, so a recorded session
replays it exactly.
"""

from collections.abc import Generator, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any, Protocol, TypeVar

from fleet.mta.errors import FleetError

T = TypeVar("T")


class Sink(Protocol):
    """An incremental parser, fed while output streams in."""

    def feed(self, data: bytes) -> None:
        """Take the next block of stdout, in any cut."""

    def close(self) -> object:
        """The result once the stream has ended. Raises UnparsedOutput when the last line is cut off."""


@dataclass(frozen=True, slots=True)
class Command:
    """One remote command.

    `argv`: program and arguments; with `script` (a file name in fleet/mta/scripts) the script's arguments only.
    `stdin`: bytes. `become`: run as root. `mutates`: may change the host. `timeout`: seconds, enforced on the host too.
    `max_output`: bytes of stdout without a sink, and of stderr. `secret`: argv indexes that are masked when shown.
    `may_be_denied`: the steps go on without it; sudo's refusal comes as a Completed then. `is_hint`: it hastens only
    what happens anyway, so the steps go on however it ends by itself: sudo's refusal, the end of its time and a signal
    (as a shell has it, 128 and the signal's number) come as a Completed. `fence`: the Context's, which goes to a
    changing script as the first line of its stdin; no adapter sets it.
    """

    argv: tuple[str, ...]
    script: str | None = None
    stdin: bytes = b""
    become: bool = False
    mutates: bool = False
    timeout: int = 30
    max_output: int = 1 << 20
    sink: Sink | None = field(default=None, compare=False)
    secret: frozenset[int] = frozenset()
    may_be_denied: bool = False
    is_hint: bool = False
    fence: int = 0


@dataclass(frozen=True, slots=True)
class Completed:
    """A remote command that ended by itself. A missing exit status is never a Completed."""

    exit_status: int
    stdout: bytes = b""
    stderr: bytes = b""
    result: Any = None
    duration: float = 0.0


@dataclass(frozen=True, slots=True)
class Dialogue:
    """An SMTP dialogue through the SSH connection, from the host itself to `address`:`port`.

    `lines` are sent one by one, each after the reply to the one before; nothing after a 421 or a refused connection.
    """

    address: str
    port: int
    lines: tuple[str, ...]
    timeout: int = 20


@dataclass(frozen=True, slots=True)
class Transcript:
    """What was said: (line sent, reply), the greeting first with an empty line. `error` when it broke off."""

    exchanges: tuple[tuple[str, str], ...]
    error: str = ""


@dataclass(frozen=True, slots=True)
class DnsQuery:
    """DNS questions through the SSH connection, over one TCP connection to a nameserver as the host reaches it.

    `packets`: queries without their length prefix (RFC 1035 4.2.2), sent one by one. `timeout`: seconds for all.
    """

    address: str
    packets: tuple[bytes, ...]
    port: int = 53
    timeout: int = 10


@dataclass(frozen=True, slots=True)
class DnsReply:
    """The answers in the order of the questions, fewer when it broke off; `error` says why."""

    packets: tuple[bytes, ...]
    error: str = ""


FORWARDING_PROHIBITED = "forwarding is prohibited on the host"
"""In the `error` of a Transcript or DnsReply: the host's sshd opens no connection for us, so nobody was asked."""


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
    """An envelope recipient. `state`: "undelivered" or "delivered". `reason`: last delay reason or ""."""

    address: str
    reason: str = ""
    state: str = "undelivered"


@dataclass(slots=True)
class QueueEntry:
    """A queued message as its MTA lists it.

    `state` is one of incoming, active, deferred, hold, maildrop; `native_state` the MTA's own word. `arrival_time`:
    epoch seconds. `sender` in RFC 5321 form, the null sender "<>"; bytes that are no UTF-8 as \\xHH, and then
    `sender_raw` has them. `size`: bytes of header and body as stored. `attempts` None: this MTA does not count them.
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


@dataclass(frozen=True, slots=True)
class Diff:
    path: str
    unified: str


@dataclass(frozen=True, slots=True)
class Plan:
    """Yielded once by every changing operation, before its first changing command; a dry run ends there.

    `selected`: the messages. `queue_total`: how many messages the queue holds (for max_fraction). `bytes` of the
    selected. `commands`: argv lists that will run. `notes`: differences in meaning, for the approver. `wiring`: the
    instance gets its sender check by this. `foreign_holds`: held messages among the selected that no job of ours held.
    `gone`, `new`: messages asked for that are not queued, and such as match and that the frozen plan does not name.
    `freed`: of the Context's `ours` those that are not on hold.
    """

    selected: tuple[Fingerprint, ...] = ()
    queue_total: int = 0
    bytes: int = 0
    diffs: tuple[Diff, ...] = ()
    commands: tuple[tuple[str, ...], ...] = ()
    notes: tuple[str, ...] = ()
    wiring: bool = False
    foreign_holds: int = 0
    gone: int = 0
    new: int = 0
    freed: tuple[Fingerprint, ...] = ()


class MessageState(StrEnum):
    """What became of one message.

    LEFT_QUEUE: no longer queued when a deletion that was cut off is read back: deleted by it, or delivered meanwhile.
    """

    DONE = "done"
    ALREADY_GONE = "already_gone"
    LEFT_QUEUE = "left_queue"
    IN_DELIVERY = "in_delivery"
    LEFT = "left"


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
    """What an operation returns. `data` is the run's `result` (JSON). `before`/`after` are the evidence (JSON)."""

    ended: Ended
    data: dict[str, Any] = field(default_factory=dict)
    messages: tuple[MessageOutcome, ...] = ()
    before: Any = None
    after: Any = None
    error: FleetError | None = None


Yielded = Command | Dialogue | DnsQuery | Plan
Steps = Generator[Yielded, Any, T]


def run(command: Command) -> Steps[Completed]:
    """`done = yield from run(command)`: the typed way to run a command inside an operation."""
    done: Completed = yield command
    return done


def talk(dialogue: Dialogue) -> Steps[Transcript]:
    """`said = yield from talk(dialogue)`: the typed way to hold an SMTP dialogue inside an operation."""
    said: Transcript = yield dialogue
    return said


def ask(query: DnsQuery) -> Steps[DnsReply]:
    """`said = yield from ask(query)`: the typed way to ask a nameserver inside an operation."""
    said: DnsReply = yield query
    return said


@dataclass(frozen=True, slots=True)
class HostFacts:
    """What discovery learnt about the host itself.

    `clock_skew`: seconds the host is ahead of us, None if unknown. `exchange`: by which program two files can be
    exchanged in one step (exchange.sh), "none", or "" if unknown.
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
