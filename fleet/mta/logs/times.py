"""The time at the start of a log line, in each of the forms that MTAs and syslog write."""

import re
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from functools import lru_cache

from fleet.mta.bounds import EPOCH_MOST

ISO = re.compile(rb"(\d{4}-\d\d-\d\d[T _]\d\d:\d\d:\d\d)([.,]\d{1,9})?(Z| ?[+-]\d\d:?\d\d)? ")
"""RFC 3339 with its looser kin: Exim's, svlogd's (`_`), a comma for the fraction."""
FRACTION = re.compile(rb"[.,](\d{1,9}) (?![+-])")
"""Behind ISO's seconds, where no offset follows."""
TRADITIONAL = re.compile(rb"([A-Z][a-z]{2} [ \d]\d \d\d:\d\d:\d\d) ")
LOOSE = re.compile(
    rb"(?:(\d{4}) )?([A-Z][a-z]{2} [ \d]\d)(?: (\d{4}))? (\d\d:\d\d:\d\d)([.,]\d{1,9})?(?: ?(Z|[+-]\d\d:?\d\d))? "
)
"""RFC 3164's with a year (syslog-ng), a fraction (rsyslog, OpenWrt) or an offset."""
PRIORITY = re.compile(rb"<\d{1,3}>(1 )?")
"""RFC 3164 and, with its version, 5424: what a daemon writes that keeps the lines as they came."""
HEADER = re.compile(rb"(\S+) (\S+) (?:-|(\S+)) \S+ (?:-|(?:\[(?:[^\]\\]|\\.)*\])+) ?(?:\xef\xbb\xbf)? ?")
"""RFC 5424: host, program, process, message's kind and structured data, behind the time. rsyslog writes two blanks."""
UNIX = re.compile(rb"(\d{9,11}\.\d{1,9}) ")
TAI64N = re.compile(rb"@([0-9a-f]{16})([0-9a-f]{8}) ")
OFFSETS = (b"+", b"-", b"Z")
"""How an offset begins, which may stand behind a stamp."""
ZONE = re.compile(r"Z|[+-]\d{4}", re.ASCII)
TAI_OF_EPOCH = (1 << 62) + 10  # what multilog(8) adds to the system's seconds, whatever the leap seconds since
MONTHS = ("Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec")
DAY = 86_400
YEARS = 9  # from one 29 February to the next at most 8, as from 1896 to 1904

Zone = tuple[float, int]
"""From this moment on (epoch seconds), so many seconds ahead of UTC."""


class LineClock:
    """Reads lines of one host. `zones`: its offsets, oldest first; `now`: epoch seconds, tells the year that syslog's
    traditional form leaves out. A local time that came twice, when summer time ended, is taken for the first."""

    def __init__(self, zones: Sequence[Zone], now: float) -> None:
        self._zones = tuple(zones) or ((0.0, 0),)
        self._now = now
        self._local = lru_cache(4096)(self._epoch_of)
        self._stamp, self._moment = b"\n", 0.0  # of the last line; none begins so
        self._second, self._begun = b"\n", 0.0  # of the last stamp with a fraction and no offset

    def split(self, line: bytes) -> tuple[float | None, bytes]:
        """Epoch seconds and the rest of the line; None and the whole line where it begins with no time."""
        stamp = self._stamp
        if line.startswith(stamp) and line[len(stamp) : len(stamp) + 1] not in OFFSETS:
            return self._moment, line[len(stamp) :]
        try:
            moment, rest = self._split(line)
        except ValueError:
            return None, line
        if moment is None or not 0 <= moment <= EPOCH_MOST:
            return None, line
        if moment.is_integer() and line[:1] != b"<":
            self._stamp, self._moment = line[: len(line) - len(rest)], moment
        return moment, rest

    def _split(self, line: bytes) -> tuple[float | None, bytes]:
        if line.startswith(self._second) and (behind := FRACTION.match(line, len(self._second))):
            return self._begun + float(b"." + behind[1]), line[behind.end() :]
        if line[:1] == b"<" and (head := PRIORITY.match(line)):
            moment, rest = self._split(line[head.end() :])
            return moment, HEADER.sub(_as_traditional, rest, count=1) if head[1] else rest
        if match := ISO.match(line):
            stamp, fraction, zone = match.groups()
            seconds = self._local(stamp, "ISO", zone.strip().replace(b":", b"") if zone else b"")
            if fraction and not zone:
                self._second, self._begun = stamp, seconds
            return seconds + float(b"." + fraction[1:]) if fraction else seconds, line[match.end() :]
        if match := TRADITIONAL.match(line):
            return self._local(match[1], "", b""), line[match.end() :]
        if match := TAI64N.match(line):
            return int(match[1], 16) - TAI_OF_EPOCH + int(match[2], 16) / 1e9, line[match.end() :]
        if match := UNIX.match(line):
            return float(match[1]), line[match.end() :]
        if match := LOOSE.match(line):
            return self._loose(match), line[match.end() :]
        return None, line

    def _loose(self, match: re.Match[bytes]) -> float:
        text, form = match[2] + b" " + match[4], ""
        if year := match[1] or match[3]:
            text, form = year + b" " + text, "%Y %b %d %H:%M:%S"
        fraction = float(b"." + match[5][1:]) if match[5] else 0.0
        return self._local(text, form, (match[6] or b"").replace(b":", b"")) + fraction

    def _epoch_of(self, text: bytes, form: str, zone: bytes) -> float:
        if not form:
            return self._with_year(text.decode(), zone.decode())
        stamp = text.decode()
        local = datetime.fromisoformat(stamp) if form == "ISO" else datetime.strptime(stamp, form)
        moment = local.replace(tzinfo=UTC).timestamp()
        if zone:
            return moment - offset_of(zone.decode())
        return self._to_utc(moment)

    def _with_year(self, text: str, zone: str) -> float:
        """The last such moment that is not in the future; a day is allowed for clocks and zones."""
        month, time = MONTHS.index(text[:3]) + 1, text[7:]
        newest = datetime.fromtimestamp(self._now, UTC).year + 1
        for year in range(newest, newest - YEARS, -1):
            try:
                stamp = f"{year}-{month:02}-{int(text[4:6]):02} {time}+00:00"
                moment = datetime.fromisoformat(stamp).timestamp()
            except ValueError:  # 29 February of another year
                continue
            if moment <= self._now + DAY:
                return moment - offset_of(zone) if zone else self._to_utc(moment)
        raise ValueError(text)

    def _to_utc(self, local: float) -> float:
        for (begin, offset), after in zip(self._zones, (*self._zones[1:], (float("inf"), 0)), strict=True):
            if local - offset < after[0]:
                return local - offset if local - offset >= begin or begin == self._zones[0][0] else begin
        raise AssertionError("the last zone has no end")


def _as_traditional(header: re.Match[bytes]) -> bytes:
    host, program, process = header.groups()
    return b"%b %b[%b]: " % (host, program, process) if process else b"%b %b: " % (host, program)


def offset_of(zone: str) -> int:
    """Seconds of `+0130` or `Z`."""
    if zone == "Z":
        return 0
    ahead = timedelta(hours=int(zone[1:3]), minutes=int(zone[3:5])).total_seconds()
    return int(-ahead if zone[0] == "-" else ahead)
