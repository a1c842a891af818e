"""What stands before the words of a log line, the same for message.trace and message.deliver: time, host, program.

Equal lines that syslog wrote once are told as often as they came.
"""

import re
from collections.abc import Iterable, Iterator

from fleet.mta.logs.times import LineClock
from fleet.mta.text import text_of

SYSLOG = re.compile(r"(?:\S*[^\s:] )?(?P<tag>[^\s\[\]:]+)(?:\[\d+\])?: (?P<text>.*)", re.DOTALL)
REPEATED = re.compile(
    r"(?P<head>(?:\S+ )?[^\s\[\]:]+(?:\[\d+\])?: )message repeated (?P<times>\d{1,9}) times: \[ (?P<text>.*)\]",
    re.DOTALL,
)
"""rsyslog, $RepeatedMsgReduction."""
MOST_REPEATED = 10_000
ANY_TIME = LineClock((), float(1 << 31))
"""For who asks for no times: they only have to be possible ones."""


def once(text: str) -> tuple[str, int]:
    """A line, and how often it came: syslog writes equal lines once, and then how many more there were."""
    match = REPEATED.fullmatch(text) if "message repeated " in text else None
    if match is None:
        return text, 1
    return match["head"] + match["text"], min(int(match["times"]), MOST_REPEATED)


def without_times(lines: Iterable[str]) -> Iterator[str]:
    """Lines as parsers take them: what stands behind the time, in each form that syslog writes; equal ones once."""
    for line in lines:
        yield once(text_of(ANY_TIME.split(line.encode())[1]))[0]
