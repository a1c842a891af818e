"""message.trace: what the log says became of messages, the same for every MTA but for the parser of its lines."""

import re
from collections.abc import Callable, Sequence
from typing import Any

from fleet.mta.bounds import OutOfBounds
from fleet.mta.errors import Unsupported
from fleet.mta.logs.rows import Trace, Wanted
from fleet.mta.logs.source import Read, Window, read_log, window_of
from fleet.mta.logs.times import LineClock
from fleet.mta.operations import MessageTrace
from fleet.mta.records import Context, Ended, Result
from fleet.mta.steps import Steps
from fleet.mta.text import text_of

SYSLOG = re.compile(r"(?:\S+ )?(?P<tag>[^\s\[\]:]+)(?:\[\d+\])?: (?P<text>.*)", re.DOTALL)
DSN = re.compile(r"(?:\b\d{3}[ -]|#)([245]\.\d{1,3}\.\d{1,3})\b")

Parser = Callable[[float, str], None]
"""Takes the time of a line and what follows it there: `host tag[pid]: text`, or what the MTA itself writes."""

UNCLEAR = "lines that could be read in two ways or not at all and were left out (log.search shows them): {}"


def message_trace(
    kind: str,
    sources: Sequence[str],
    parser: Callable[[Trace], Parser],
    operation: MessageTrace,
    context: Context,
    notes: Sequence[str] = (),
    as_logged: Callable[[str], str] = str,
) -> Steps[Result]:
    """`message.trace`. `kind`: the MTA's word for read_log.sh. `notes`: what this MTA does not log. `as_logged`: an
    address as it writes it."""
    window = window_of(operation.since, operation.until, context)
    wanted = Wanted.of(operation, as_logged)
    trace = Trace(wanted, window)

    def fresh() -> Callable[[LineClock, str, bytes], None]:
        nonlocal trace
        trace = Trace(wanted, window)
        read_line = parser(trace)

        def take(clock: LineClock, file: str, line: bytes) -> None:
            moment, rest = clock.split(line)
            if moment is None or window.is_past(moment):
                return
            try:
                read_line(moment, text_of(rest))
            except OutOfBounds:
                trace.unclear += 1

        return take

    read = yield from read_log(kind, sources, window.since, wanted.text(), fresh)
    return Result(Ended.SUCCEEDED, _found(trace, window, read, notes))


def _found(trace: Trace, window: Window, read: Read, notes: Sequence[str]) -> dict[str, Any]:
    rows = trace.rows()
    unclear = [UNCLEAR.format(trace.unclear)] if trace.unclear else []
    return {
        "rows": rows,
        "totals": trace.totals,
        "matched": trace.matched,
        "truncated": trace.matched > len(rows) or bool(read.cut),
        "since": window.since,
        "until": window.until,
        "files": list(read.files),
        "notes": [*read.notes, *unclear, *notes],
    }


def check_message_id(operation: MessageTrace, title: str) -> None:
    """Raises Unsupported for an MTA that logs no Message-ID."""
    if operation.message_id:
        raise Unsupported(f"{title} logs no Message-ID, so a message cannot be traced by it")


def dsn_of(reply: str) -> str:
    """The enhanced status code (RFC 3463) after the first SMTP code of a reply or a #, or ""."""
    found = DSN.search(reply)
    return found[1] if found else ""


def null_or(address: str) -> str:
    """The sender in the form of results: the null sender is "<>"."""
    return address or "<>"
