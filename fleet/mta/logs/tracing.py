"""message.trace: what the log says became of messages, the same for every MTA but for the parser of its lines."""

import re
from collections.abc import Sequence

from fleet.mta.bounds import OutOfBounds
from fleet.mta.logs.heads import Repeats
from fleet.mta.logs.mail_log import MailLog
from fleet.mta.logs.rows import Trace
from fleet.mta.logs.source import Read, Take, Window, read_log, window_of
from fleet.mta.logs.wanted import Wanted
from fleet.mta.operations import MessageTrace
from fleet.mta.records import Context, Ended, InstanceFacts, Result
from fleet.mta.results.reading import MessageTraceResult
from fleet.mta.steps import Steps
from fleet.mta.text import text_of

# What stands before it is looked at last, so that a search goes from one such digit to the next.
DSN = re.compile(r"([245]\.(?:(?<=\b\d{3}[ -][245]\.)|(?<=#[245]\.))\d{1,3}\.\d{1,3})\b")

UNCLEAR = "lines that could be read in two ways or not at all and were left out (log.search shows them): {}"
UNNAMED = (
    "mails that were held, thrown away or refused as a whole, of which the log may name not every recipient: {}; the "
    "one looked for may be among theirs (a trace by sender shows such mails)"
)


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
        read_line, repeats = log.parser(trace, instance), Repeats()

        def take(moment: float | None, rest: bytes, line: bytes, file: str) -> None:
            text, times = repeats.of(text_of(rest), file)
            if moment is None or window.is_past(moment):
                return
            if not times:
                trace.not_understood("", moment, text)
            try:
                for _ in range(times):
                    read_line(moment, text)
            except OutOfBounds:
                trace.not_understood("", moment, text)

        return take

    texts = wanted.texts(log.unnamed)
    read = yield from read_log(log.kind, sources, window.since, texts, fresh, log.zone(instance))
    return Result(Ended.SUCCEEDED, _data(trace, window, read, log.notes))


def _data(trace: Trace, window: Window, read: Read, notes: Sequence[str]) -> MessageTraceResult:
    rows = trace.rows()
    counted = ((UNCLEAR, trace.unclear), (UNNAMED, trace.unnamed))
    return {
        "rows": rows,
        "totals": trace.totals,
        "matched": trace.matched,
        "truncated": trace.matched > len(rows) or bool(read.cut),
        "since": window.since,
        "until": window.until,
        **read.as_json(),
        "notes": [*read.notes, *(text.format(count) for text, count in counted if count), *notes],
    }


def dsn_of(reply: str) -> str:
    """The enhanced status code (RFC 3463) after the first SMTP code of a reply or a #, or ""."""
    match = DSN.search(reply)
    return match[1] if match else ""


def null_or(address: str) -> str:
    """The sender in the form of results: the null sender is "<>"."""
    return address or "<>"
