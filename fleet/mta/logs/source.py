"""One remote command that reads a mail log over its rotated files, as read_log.sh does it."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta

from fleet.mta.bounds import count_of, moment_of, second_of
from fleet.mta.errors import RemoteError, UnparsedOutput, Unsupported
from fleet.mta.host.commands import LISTING_SECONDS, error_of, reading
from fleet.mta.logs.times import ZONE, LineClock, Zone, offset_of
from fleet.mta.records import Context, InstanceFacts
from fleet.mta.results.reading import LogFile, LogRead
from fleet.mta.steps import Steps, run

SCRIPT = "read_log.sh"
LONGEST_LINE = 65_536
AHEAD = 300
"""Seconds that a log may be ahead of the host's clock, which is set back now and then."""
ELSEWHERE = "if the MTA logs elsewhere by now, discover the host again"
OTHER_ZONE = "if the MTA has a time zone of its own, discover the host again"
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


@dataclass(slots=True)
class FileRead:
    """What was read of one file. `first_time`, `last_time`: those of its beginning and end, None where they are not
    known; a packed file's end is not looked for. `lines`: those looked at here, `untimed` those without a time."""

    path: str
    first_time: float | None = None
    last_time: float | None = None
    lines: int = 0
    untimed: int = 0

    @property
    def is_empty(self) -> bool:
        return self.first_time is None and self.last_time is None and not self.untimed

    def as_json(self) -> LogFile:
        return {
            "path": self.path,
            "first_time": self.first_time,
            "last_time": self.last_time,
            "lines": self.lines,
            "untimed": self.untimed,
        }


@dataclass(slots=True)
class SourceRead:
    """One log with the files that it was rotated to. `before`: the newest of those that ended before the window, and
    when; "" where there is none."""

    name: str
    files: list[FileRead] = field(default_factory=list)
    before: str = ""
    ended: float = 0.0

    def notes(self, since: float, now: float) -> list[str]:
        """Where the log does not reach. `since`, `now`: by the host's clock."""
        ended = f"{self.before} was last written to at {stamp(self.ended)}" if self.before else ""
        if not self.files:
            return [f"{ended}; {ELSEWHERE}"] if ended else []
        if all(each.is_empty for each in self.files):
            return ["; ".join(filter(None, (f"{self.name} has no lines", ended, ELSEWHERE)))]
        notes = []
        first, last = self.files[0].first_time, self.files[-1].last_time
        if first is not None and first > since and not self.before:
            notes.append(f"{self.name} begins at {stamp(first)}: of what was before that nothing can be found")
        if last is not None and last > now + AHEAD:
            notes.append(f"{self.name} ends at {stamp(last)}, after the host's {stamp(now)}; {OTHER_ZONE}")
        return notes


@dataclass(frozen=True, slots=True)
class Read:
    """How the reading ended. `unread`: files that could not be read; `cut`: only so many messages were joined."""

    since: float = 0.0
    now: float = 0.0
    sources: tuple[SourceRead, ...] = ()
    unread: tuple[str, ...] = ()
    cut: int = 0
    moved: bool = False

    @property
    def read(self) -> list[FileRead]:
        return [each for source in self.sources for each in source.files]

    @property
    def notes(self) -> list[str]:
        notes = [f"{path} could not be read" for path in self.unread]
        for source in self.sources:
            if not any(each.path in self.unread for each in source.files):
                notes += source.notes(self.since, self.now)
        notes += [
            f"lines of {each.path} whose time was not understood: {each.untimed}" for each in self.read if each.untimed
        ]
        if self.cut:
            notes.append(f"only the newest {self.cut} messages were joined; narrow the window or the addresses")
        if self.moved:
            notes.append("the log was rotated while it was read, each time; lines may be missing or doubled")
        return notes

    def as_json(self) -> LogRead:
        """The part of a result that says what was read."""
        return {"files": [each.path for each in self.read], "read": [each.as_json() for each in self.read]}


def stamp(moment: float) -> str:
    """A moment as notes tell it, in UTC."""
    return datetime.fromtimestamp(moment, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def window_of(since: datetime | timedelta, until: datetime | None, context: Context) -> Window:
    """The window by the host's clock: `since` is a moment, or so long before now."""
    begin = context.now - since.total_seconds() if isinstance(since, timedelta) else since.timestamp()
    return Window(begin, until.timestamp() if until else context.now, is_open=until is None)


Take = Callable[[float | None, bytes, bytes, str], None]
"""Takes the time of a line, what follows it there, the whole line, and its file."""


class LogSink:
    """Parses what read_log.sh prints while it streams in. What is longer than LONGEST_LINE is cut off."""

    def __init__(self, take: Take, since: float = 0.0) -> None:
        self._take = take
        self._since = since
        self._pending = b""
        self._zones: list[Zone] = []
        self._now = 0.0
        self._clock: LineClock | None = None
        self._sources: list[SourceRead] = []
        self._file: FileRead | None = None
        self._unread: list[str] = []
        self._cut = 0
        self._moved = self._ended = False

    def feed(self, data: bytes) -> None:
        lines = (self._pending + data).split(b"\n")
        self._pending = lines.pop()[:LONGEST_LINE]
        for line in lines:
            if line[:1] == b" ":
                self._line(line[1 : LONGEST_LINE + 1])
            elif line.startswith((b"=first ", b"=last ")):
                self._end(*line.split(b" ", 1))
            else:
                self._head(line.decode("utf-8", "backslashreplace"))

    def _line(self, line: bytes) -> None:
        if self._clock is None or self._file is None:
            raise UnparsedOutput(f"{SCRIPT} told a line before any file")
        moment, rest = self._clock.split(line)
        file = self._file
        file.lines += 1
        if moment is None:
            file.untimed += 1
        self._take(moment, rest, line, file.path)

    def _end(self, word: bytes, line: bytes) -> None:
        """Of the lines of a file's beginning the first that has a time, of those of its end the last."""
        if self._clock is None or self._file is None:
            raise UnparsedOutput(f"{SCRIPT} told a line before any file")
        moment, _ = self._clock.split(line)
        if word == b"=last":
            self._file.last_time = self._file.last_time if moment is None else moment
        elif self._file.first_time is None:
            self._file.first_time = moment

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
            case "=source":
                self._sources.append(SourceRead(value))
            case "=before" if self._sources:
                ended, _, self._sources[-1].before = value.partition(" ")
                self._sources[-1].ended = moment_of(ended)
            case "=file" if self._sources:
                self._file = FileRead(value)
                self._sources[-1].files.append(self._file)
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
        return Read(self._since, self._now, tuple(self._sources), tuple(self._unread), self._cut, self._moved)


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
    texts: Sequence[str],
    fresh: Callable[[], Take],
    zone: str = "",
) -> Steps[Read]:
    """Reads the log; `fresh` gives the taker of each attempt, since a log that was rotated meanwhile is read again.
    `texts`: lines with one of them are meant, all lines with ("",). `zone`: see MailLog.

    Raises SudoDenied, UnparsedOutput, RemoteError (there is no such log), OutputTooLarge.
    """
    for attempt in range(ATTEMPTS):
        command = reading(
            SCRIPT,
            (kind, *sources),
            f"{max(0, int(since))} {zone}".rstrip().encode() + "".join(f"\n{text}" for text in texts).encode() + b"\n",
            seconds=LISTING_SECONDS,
            sink=LogSink(fresh(), since),
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
