"""What stands before the words of a log line, the same for message.trace and message.deliver: time, host, program.

Equal lines that syslog wrote once are told as often as they came.
"""

import re
from collections.abc import Iterable, Iterator

from fleet.mta.logs.times import LineClock
from fleet.mta.text import text_of

HOST = r"(?:(?P<host>\S*[^\s:]) )?"
SYSLOG = re.compile(HOST + r"(?P<tag>[^\s\[\]:]+)(?:\[\d+\])?: (?P<text>.*)", re.DOTALL)
REPEATED = re.compile(
    r"(?P<head>(?:\S+ )?[^\s\[\]:]+(?:\[\d+\])?: )message repeated (?P<times>\d{1,9}) times: \[ (?P<text>.*)\]",
    re.DOTALL,
)
"""rsyslog, $RepeatedMsgReduction."""
LAST = re.compile(
    HOST + r"(?:[^\s\[\]:]+(?:\[\d+\])?: )?[Ll]ast message (?:'.*' )?repeated (?P<times>\d{1,9}) times?"
    r"(?:, suppressed by syslog-ng on \S+)?",
    re.DOTALL,
)
"""Of the line before it in that file: syslogd of the BSDs, sysklogd, syslog-ng."""
MOST_REPEATED = 10_000
ANY_TIME = LineClock((), float(1 << 31))
"""For who asks for no times: they only have to be possible ones."""


class Repeats:
    """Lines of one reading, and how often each came: syslog writes equal lines once, and then how many more came."""

    def __init__(self) -> None:
        self._file = self._before = ""

    def of(self, text: str, file: str) -> tuple[str, int]:
        """The line that came, and how often; 0 where it stands for one that is not known."""
        times = 1
        if " repeated " in text:
            if last := LAST.fullmatch(text):
                # On a loghost a line of another host may have come between them.
                is_known = file == self._file and self._before.startswith(f"{last['host']} " if last["host"] else "")
                return (self._before, min(int(last["times"]), MOST_REPEATED)) if is_known else (text, 0)
            text, times = once(text)
        self._file, self._before = file, text
        return text, times


def once(text: str) -> tuple[str, int]:
    """A line that rsyslog wrote, and how often it came."""
    match = REPEATED.fullmatch(text) if "message repeated " in text else None
    if match is None:
        return text, 1
    return match["head"] + match["text"], min(int(match["times"]), MOST_REPEATED)


def without_times(lines: Iterable[str]) -> Iterator[str]:
    """Lines as parsers take them: what stands behind the time, in each form that syslog writes; equal ones once."""
    for line in lines:
        yield once(text_of(ANY_TIME.split(line.encode())[1]))[0]
