"""message.trace: what the log says became of messages, the same for every MTA but for the parser of its lines."""

import re
from collections.abc import Sequence
from typing import Any

from fleet.mta.bounds import OutOfBounds
from fleet.mta.logs.mail_log import MailLog
from fleet.mta.logs.rows import Trace
from fleet.mta.logs.source import Read, Take, Window, read_log, window_of
from fleet.mta.logs.wanted import Wanted
from fleet.mta.operations import MessageTrace
from fleet.mta.records import Context, Ended, InstanceFacts, Result
from fleet.mta.steps import Steps
from fleet.mta.text import text_of

SYSLOG = re.compile(r"(?:\S+ )?(?P<tag>[^\s\[\]:]+)(?:\[\d+\])?: (?P<text>.*)", re.DOTALL)
REPEATED = re.compile(
    r"(?P<head>(?:\S+ )?[^\s\[\]:]+(?:\[\d+\])?: )message repeated (?P<times>\d{1,9}) times: \[ (?P<text>.*)\]",
    re.DOTALL,
)
"""rsyslog, $RepeatedMsgReduction."""
MOST_REPEATED = 10_000

# What stands before it is looked at last, so that a search goes from one such digit to the next.
DSN = re.compile(r"([245]\.(?:(?<=\b\d{3}[ -][245]\.)|(?<=#[245]\.))\d{1,3}\.\d{1,3})\b")

UNCLEAR = "lines that could be read in two ways or not at all and were left out (log.search shows them): {}"


def message_trace(log: MailLog, instance: InstanceFacts, operation: MessageTrace, context: Context) -> Steps[Result]:
    """`message.trace`. Raises Unsupported for a Message-ID that this MTA does not log."""
    log.check(operation)
    sources = log.sources(instance)
    window = window_of(operation.since, operation.until, context)
    wanted = Wanted.of(operation, log.as_logged)
    trace = Trace(wanted, window)

    def fresh() -> Take:
        nonlocal trace
        trace = Trace(wanted, window)
        read_line = log.parser(trace, instance)

        def take(moment: float | None, rest: bytes, line: bytes, file: str) -> None:
            if moment is None or window.is_past(moment):
                return
            text, times = once(text_of(rest))
            try:
                for _ in range(times):
                    read_line(moment, text)
            except OutOfBounds:
                trace.not_understood("", moment, text)

        return take

    read = yield from read_log(log.kind, sources, window.since, wanted.text(), fresh, log.zone(instance))
    return Result(Ended.SUCCEEDED, _data(trace, window, read, log.notes))


def _data(trace: Trace, window: Window, read: Read, notes: Sequence[str]) -> dict[str, Any]:
    rows = trace.rows()
    unclear = [UNCLEAR.format(trace.unclear)] if trace.unclear else []
    return {
        "rows": rows,
        "totals": trace.totals,
        "matched": trace.matched,
        "truncated": trace.matched > len(rows) or bool(read.cut),
        "since": window.since,
        "until": window.until,
        **read.as_json(),
        "notes": [*read.notes, *unclear, *notes],
    }


def once(text: str) -> tuple[str, int]:
    """A line, and how often it came: syslog writes equal lines once, and then how many more there were."""
    match = REPEATED.fullmatch(text) if "message repeated " in text else None
    if match is None:
        return text, 1
    return match["head"] + match["text"], min(int(match["times"]), MOST_REPEATED)


def dsn_of(reply: str) -> str:
    """The enhanced status code (RFC 3463) after the first SMTP code of a reply or a #, or ""."""
    match = DSN.search(reply)
    return match[1] if match else ""


def null_or(address: str) -> str:
    """The sender in the form of results: the null sender is "<>"."""
    return address or "<>"
