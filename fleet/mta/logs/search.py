"""log.search: the lines of a mail log that contain a text or match a regular expression."""

import heapq
import re
from collections.abc import Callable

from fleet.match import patterns
from fleet.mta.logs.mail_log import MailLog
from fleet.mta.logs.source import Take, read_log, window_of
from fleet.mta.operations import LogSearch
from fleet.mta.records import Context, Ended, InstanceFacts, Result
from fleet.mta.results.reading import LogLine, LogSearchResult
from fleet.mta.steps import Steps
from fleet.mta.text import text_of

LONGEST_SHOWN = 4096  # bytes of one line
ROOM = 8 << 20  # bytes of all lines together
ODD_ESCAPE = re.compile(r"\\[^bBdDwWsSAz\W]")


class Lines:
    """The newest lines that fit, in the order of the log. A line without a time of its own has that of the one before.

    `matched` counts all lines in the window that fit; kept are the last `limit`, and no more than ROOM bytes.
    """

    def __init__(self, fits: Callable[[bytes], bool], has: Callable[[float], bool], limit: int) -> None:
        self._fits = fits
        self._has = has
        self._limit = limit
        self._kept: list[tuple[float, int, str, bytes]] = []
        self._size = 0
        self._last: dict[str, float] = {}
        self.matched = 0

    def take(self, moment: float | None, rest: bytes, line: bytes, file: str) -> None:
        if not self._fits(line):
            return
        if moment is None:
            moment = self._last.get(file)
        if moment is None or not self._has(moment):
            return
        self._last[file] = moment
        self.matched += 1
        heapq.heappush(self._kept, (moment, self.matched, file, line[:LONGEST_SHOWN]))
        self._size += len(line[:LONGEST_SHOWN])
        while len(self._kept) > self._limit or self._size > ROOM:
            self._size -= len(heapq.heappop(self._kept)[3])

    def as_json(self) -> list[LogLine]:
        return [{"time": moment, "line": text_of(line), "file": file} for moment, _, file, line in sorted(self._kept)]


def log_search(log: MailLog, instance: InstanceFacts, operation: LogSearch, context: Context) -> Steps[Result]:
    """`log.search`. The text is looked for on the host; of an expression, its longest fixed part is."""
    sources = log.searched(instance)
    window = window_of(operation.since, operation.until, context)
    text = operation.contains or fixed_part(operation.regex)
    fits: Callable[[bytes], bool] = (
        patterns.search_bytes(operation.regex, ignore_case=False) if operation.regex else lambda line: True
    )
    lines = Lines(fits, window.has, operation.limit)

    def fresh() -> Take:
        nonlocal lines
        lines = Lines(fits, window.has, operation.limit)
        return lines.take

    read = yield from read_log("any", sources, window.since, (text,), fresh, log.zone(instance))
    rows = lines.as_json()
    data: LogSearchResult = {
        "lines": rows,
        "matched": lines.matched,
        "truncated": lines.matched > len(rows),
        "since": window.since,
        "until": window.until,
        **read.as_json(),
        "notes": read.notes,
    }
    return Result(Ended.SUCCEEDED, data)


def fixed_part(regex: str) -> str:
    """A text that stands in every line that the expression matches; "" where none can be found easily.

    Looked at is what stands before the first and after the last group, class or count.
    """
    pieces: list[str] = re.findall(r"\\.|.", regex)
    if "|" in pieces or "(?" in regex or any(ODD_ESCAPE.fullmatch(piece) for piece in pieces):
        return ""
    opening = next((at for at, piece in enumerate(pieces) if piece in "[({"), len(pieces))
    closing = max((at for at, piece in enumerate(pieces) if piece in "])}"), default=-1)
    parts = [""]
    for at, piece in enumerate(pieces):
        after = pieces[at + 1] if at + 1 < len(pieces) else ""
        is_literal = (len(piece) == 1 and piece not in "^$.*+?") or (len(piece) == 2 and not piece[1].isalnum())
        if (opening <= at <= closing) or not is_literal or after in ("*", "?", "{"):
            parts.append("")
        else:
            parts[-1] += piece[-1]
    return max(parts, key=len)
