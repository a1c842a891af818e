"""One remote command that reads a mail log over its rotated files, as read_log.sh does it."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

from fleet.mta.bounds import count_of, moment_of, second_of
from fleet.mta.errors import RemoteError, UnparsedOutput, Unsupported
from fleet.mta.host.commands import LISTING_SECONDS, error_of, reading
from fleet.mta.logs.times import ZONE, LineClock, Zone, offset_of
from fleet.mta.records import Context, InstanceFacts
from fleet.mta.steps import Steps, run

SCRIPT = "read_log.sh"
LONGEST_LINE = 65_536
ATTEMPTS = 3


@dataclass(frozen=True, slots=True)
class Window:
    """From `since` to `until`, epoch seconds, both included. `is_open`: until now, and what is logged meanwhile.

    Of the host's clock we know half a second more or less, so that an open window has no bound that could leave out
    what was logged just before.
    """

    since: float
    until: float
    is_open: bool = False

    def is_past(self, moment: float) -> bool:
        """Whether the moment is after the window."""
        return moment > self.until and not self.is_open

    def has(self, moment: float) -> bool:
        return self.since <= moment and not self.is_past(moment)


@dataclass(frozen=True, slots=True)
class Read:
    """How the reading ended. `files`: those read; `unread`: those that could not be; `cut`: only so many messages."""

    files: tuple[str, ...] = ()
    unread: tuple[str, ...] = ()
    cut: int = 0
    moved: bool = False

    @property
    def notes(self) -> list[str]:
        notes = [f"{path} could not be read" for path in self.unread]
        if self.cut:
            notes.append(f"only the newest {self.cut} messages were joined; narrow the window or the addresses")
        if self.moved:
            notes.append("the log was rotated while it was read, each time; lines may be missing or doubled")
        return notes


def window_of(since: datetime | timedelta, until: datetime | None, context: Context) -> Window:
    """The window by the host's clock: `since` is a moment, or so long before now."""
    begin = context.now - since.total_seconds() if isinstance(since, timedelta) else since.timestamp()
    return Window(begin, until.timestamp() if until else context.now, is_open=until is None)


class LogSink:
    """Parses what read_log.sh prints while it streams in. What is longer than LONGEST_LINE is cut off."""

    def __init__(self, take: Callable[[LineClock, str, bytes], None]) -> None:
        self._take = take
        self._pending = b""
        self._zones: list[Zone] = []
        self._now = 0.0
        self._clock: LineClock | None = None
        self._file = ""
        self._files: list[str] = []
        self._unread: list[str] = []
        self._cut = 0
        self._moved = self._ended = False

    def feed(self, data: bytes) -> None:
        lines = (self._pending + data).split(b"\n")
        self._pending = lines.pop()[:LONGEST_LINE]
        for line in lines:
            if line[:1] == b" ":
                if self._clock is None:
                    raise UnparsedOutput(f"{SCRIPT} told a line before any file")
                self._take(self._clock, self._file, line[1 : LONGEST_LINE + 1])
            else:
                self._head(line.decode("utf-8", "backslashreplace"))

    def _head(self, line: str) -> None:
        word, _, value = line.partition(" ")
        match word:
            case "=now":
                self._now = float(second_of(value))
            case "=zone":
                begin, _, zone = value.partition(" ")
                if not ZONE.fullmatch(zone):
                    raise UnparsedOutput(f"{SCRIPT} said {line[:80]!r}")
                self._zones.append((moment_of(begin), offset_of(zone)))
            case "=file":
                self._file = value
                self._files.append(value)
                self._clock = self._clock or LineClock(self._zones, self._now)
            case "=unread":
                self._unread.append(value)
            case "=cut":
                self._cut = count_of(value)
            case "=moved":
                self._moved = True
            case "=end":
                self._ended = True
            case _:
                raise UnparsedOutput(f"{SCRIPT} said {line[:80]!r}")

    def close(self) -> Read:
        """Raises UnparsedOutput when the end did not come."""
        if self._pending or not self._ended:
            raise UnparsedOutput(f"{SCRIPT} did not come to its end")
        return Read(tuple(self._files), tuple(self._unread), self._cut, self._moved)


def log_source(instance: InstanceFacts) -> str:
    """The instance's log, a path or "journald", or "none"."""
    return str(instance.options.get("log_source") or "none")


def sources_of(instance: InstanceFacts) -> tuple[str, ...]:
    """The instance's log. Raises Unsupported where discovery found none."""
    source = log_source(instance)
    if source == "none":
        raise Unsupported("no mail log is known on this host", hint="discover the host again once there is one")
    return (source,)


def read_log(
    kind: str,
    sources: Sequence[str],
    since: float,
    text: str,
    fresh: Callable[[], Callable[[LineClock, str, bytes], None]],
) -> Steps[Read]:
    """Reads the log; `fresh` gives the taker of each attempt, since a log that was rotated meanwhile is read again.

    Raises SudoDenied, UnparsedOutput, RemoteError (there is no such log), OutputTooLarge.
    """
    for attempt in range(ATTEMPTS):
        command = reading(
            SCRIPT,
            (kind, *sources),
            f"{max(0, int(since))}\n{text}\n".encode(),
            seconds=LISTING_SECONDS,
            sink=LogSink(fresh()),
        )
        done = yield from run(command)
        if done.exit_status == 66:
            raise RemoteError(f"there is no log {' '.join(sources)}", hint="discover the host again")
        if done.exit_status or done.result is None:
            raise error_of(done, SCRIPT)
        read: Read = done.result
        if not read.moved or attempt == ATTEMPTS - 1:
            return read
    raise AssertionError("the last attempt returns")
