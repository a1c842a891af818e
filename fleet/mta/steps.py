"""What adapters and the transport say to each other. Pure data.

An operation is a generator (`Steps`): it yields a `Command`, a `Dialogue`, a `DnsQuery` or a `Plan`, and is sent a
`Completed`, a `Transcript`, a `DnsReply` or None. It never touches a socket, a clock or a file, so whoever answers
what it yields can carry it out: a connection, or a test.
"""

from collections.abc import Generator
from dataclasses import dataclass, field
from typing import Any, Protocol, TypeVar

from fleet.mta.records import Fingerprint

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

    `argv`: program and arguments; with `script` (the name of one of our files) the script's arguments only.
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
    """A remote command that ended by itself. A missing exit status is never a Completed.

    `noise`: what the login printed before and behind the command's own output, which is not in `stdout`.
    """

    exit_status: int
    stdout: bytes = b""
    stderr: bytes = b""
    result: Any = None
    duration: float = 0.0
    noise: bytes = b""


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
    """What was exchanged: (line sent, reply), the greeting first with an empty line. `error` when it broke off."""

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


Yielded = Command | Dialogue | DnsQuery | Plan
Steps = Generator[Yielded, Any, T]


def run(command: Command) -> Steps[Completed]:
    """`done = yield from run(command)`: the typed way to run a command inside an operation."""
    done: Completed = yield command
    return done


def talk(dialogue: Dialogue) -> Steps[Transcript]:
    """`transcript = yield from talk(dialogue)`: the typed way to hold an SMTP dialogue inside an operation."""
    transcript: Transcript = yield dialogue
    return transcript


def ask(query: DnsQuery) -> Steps[DnsReply]:
    """`reply = yield from ask(query)`: the typed way to ask a nameserver inside an operation."""
    reply: DnsReply = yield query
    return reply
