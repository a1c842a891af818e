"""Mail logs: the times of their lines, rotated and compressed files, log.search, and what could not be read."""

import bz2
import gzip
import lzma
import os
import random
import re
import subprocess
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from fleet.match import patterns
from fleet.mta.errors import RemoteError, UnparsedOutput, Unsupported
from fleet.mta.logs.search import LONGEST_SHOWN, fixed_part
from fleet.mta.logs.source import LONGEST_LINE, LogSink, Read
from fleet.mta.logs.times import LineClock
from fleet.mta.operations import LogSearch, MessageTrace
from fleet.mta.postfix import Postfix
from fleet.mta.qmail import Qmail
from fleet.mta.records import Context, InstanceFacts
from tests.unit.log_host import NOW, LogHost

DAY = 86_400


def utc(text: str) -> float:
    return datetime.fromisoformat(text).replace(tzinfo=UTC).timestamp()


BERLIN = ((utc("2026-10-01T00:00:00"), 7200), (utc("2026-10-25T01:00:00"), 3600))


@pytest.mark.parametrize(
    ("line", "moment", "rest"),
    [
        (b"2026-11-21T11:56:07.169910+00:00 pf1 x", utc("2026-11-21T11:56:07.169910"), b"pf1 x"),
        (b"2026-11-21T12:56:07+01:00 pf1 x", utc("2026-11-21T11:56:07"), b"pf1 x"),
        (b"2026-11-21T11:56:07Z pf1 x", utc("2026-11-21T11:56:07"), b"pf1 x"),
        (b"2026-11-21 12:56:07 1xUjpf-00006K-1Z <= a", utc("2026-11-21T11:56:07"), b"1xUjpf-00006K-1Z <= a"),
        (b"2026-11-21 12:56:07.250 1xUjpf", utc("2026-11-21T11:56:07.250"), b"1xUjpf"),
        (b"2026-11-21 06:56:07 -0500 1xUjpf", utc("2026-11-21T11:56:07"), b"1xUjpf"),
        (b"Nov 21 12:56:07 pf1 x", utc("2026-11-21T11:56:07"), b"pf1 x"),
        (b"Nov  1 12:56:07 pf1 x", utc("2026-11-01T11:56:07"), b"pf1 x"),
        (b"Dec 31 23:59:59 pf1 x", utc("2025-12-31T22:59:59"), b"pf1 x"),
        (b"Feb 29 12:00:00 pf1 x", utc("2024-02-29T11:00:00"), b"pf1 x"),
        (b"@400000006b018a7135d929f4 new msg 1", 1795263079 + 0x35D929F4 / 1e9, b"new msg 1"),
        (b"1795262167.178524 pf1 x", 1795262167.178524, b"pf1 x"),
        (b"2026-11-21_11:56:07.16991 mail.info: x", utc("2026-11-21T10:56:07.16991"), b"mail.info: x"),
        (b"Nov 21 12:56:07.250 pf1 x", utc("2026-11-21T11:56:07.250"), b"pf1 x"),
        (b"Nov 21 2026 12:56:07 pf1 x", utc("2026-11-21T11:56:07"), b"pf1 x"),
        (b"2026 Nov 21 12:56:07 pf1 x", utc("2026-11-21T11:56:07"), b"pf1 x"),
        (b"Nov 21 06:56:07-05:00 pf1 x", utc("2026-11-21T11:56:07"), b"pf1 x"),
        (b"<22>Nov 21 12:56:07 pf1 x[1]: y", utc("2026-11-21T11:56:07"), b"pf1 x[1]: y"),
        (b"<22>1 2026-11-21T11:56:07.25Z pf1 a/b 77 - - x: y", utc("2026-11-21T11:56:07.25"), b"pf1 a/b[77]: x: y"),
        (b'<22>1 2026-11-21T11:56:07Z pf1 a 7 - [m q="1"] \xef\xbb\xbfx', utc("2026-11-21T11:56:07"), b"pf1 a[7]: x"),
    ],
)
def test_the_time_of_a_line(line: bytes, moment: float, rest: bytes) -> None:
    """TAI64N: 10 s off, as multilog(8) writes it and tai64nlocal(8) reads it."""
    found, left = LineClock(BERLIN, NOW).split(line)
    assert found == pytest.approx(moment - (3600 if line.startswith((b"Dec", b"Feb")) else 0), abs=1e-4)
    assert left == rest


@pytest.mark.parametrize(
    "line",
    [b"", b" Suggested action", b"Envelope-from: <>", b"2026-13-41T99:99:99 x", b"Foo 99 99:99:99 x", b"\xff\x00"],
)
def test_a_line_without_a_time(line: bytes) -> None:
    assert LineClock(BERLIN, NOW).split(line) == (None, line)


def test_the_local_hour_that_comes_twice_is_the_first_and_the_missing_one_ends_at_once() -> None:
    clock = LineClock(BERLIN, NOW)
    assert clock.split(b"Oct 25 01:59:59 x y")[0] == utc("2026-10-24T23:59:59")
    assert clock.split(b"Oct 25 02:30:00 x y")[0] == utc("2026-10-25T00:30:00")
    assert clock.split(b"Oct 25 03:00:00 x y")[0] == utc("2026-10-25T02:00:00")
    spring = LineClock(((0.0, 3600), (utc("2026-03-29T01:00:00"), 7200)), NOW)
    assert spring.split(b"Mar 29 01:59:59 x y")[0] == utc("2026-03-29T00:59:59")
    assert spring.split(b"Mar 29 03:00:00 x y")[0] == utc("2026-03-29T01:00:00")


@pytest.mark.parametrize(
    ("first", "then", "moment", "rest"),
    [
        (b"2026-11-21 12:56:07 x", b"2026-11-21 12:56:07 y", utc("2026-11-21T11:56:07"), b"y"),
        (b"2026-11-21 12:56:07 x", b"2026-11-21 12:56:07 -0500 y", utc("2026-11-21T17:56:07"), b"y"),
        (b"2026 Nov 21 12:56:07 x", b"2026 Nov 21 12:56:07 Z y", utc("2026-11-21T12:56:07"), b"y"),
        (b"2026-11-21 12:56:07.5 x", b"2026-11-21 12:56:07.25 y", utc("2026-11-21T11:56:07.25"), b"y"),
        (b"2026-11-21 12:56:07.5 x", b"2026-11-21 12:56:07.25 -0500 y", utc("2026-11-21T17:56:07.25"), b"y"),
        (b"2026-11-21 12:56:07.5 x", b"2026-11-21 12:56:07,25Z y", utc("2026-11-21T12:56:07.25"), b"y"),
        (b"2026-11-21 12:56:07.5 x", b"2026-11-21 12:56:07 y", utc("2026-11-21T11:56:07"), b"y"),
        (b"Nov 21 12:56:07 x", b"Nov 21 12:56:08 y", utc("2026-11-21T11:56:08"), b"y"),
        (b"<22>1 2026-11-21T11:56:07Z x", b"<22>1 2026-11-21T11:56:07Z pf1 a 7 - - y", utc("2026-11-21T11:56:07"),
         b"pf1 a[7]: y"),
        (b"2026-13-41 12:56:07 x", b"2026-13-41 12:56:07 y", None, b"2026-13-41 12:56:07 y"),
    ],
)  # fmt: skip
def test_a_line_is_read_the_same_behind_one_that_begins_alike(
    first: bytes, then: bytes, moment: float | None, rest: bytes
) -> None:
    clock = LineClock(BERLIN, NOW)
    clock.split(first)
    assert clock.split(then) == LineClock(BERLIN, NOW).split(then) == (moment, rest)


def test_a_clock_that_is_ahead_writes_no_last_years_lines() -> None:
    now = utc("2026-12-31T23:59:30")
    assert LineClock((), now).split(b"Jan  1 00:00:10 x y")[0] == utc("2027-01-01T00:00:10")


def line(moment: float, text: str) -> bytes:
    return f"{datetime.fromtimestamp(moment, UTC).isoformat()} mx1 postfix/smtpd[1]: {text}\n".encode()


def search(host: LogHost, source: str = "mail.log", **params: Any) -> dict[str, Any]:
    return host.data(Postfix.log_search, LogSearch(**params), source)


def texts(data: dict[str, Any]) -> list[str]:
    return [each["line"].partition("]: ")[2] for each in data["lines"]]


def zstd(data: bytes) -> bytes:
    """By its program, which the host needs for such files: Python knows the format from 3.14 on."""
    return subprocess.run(["zstd", "-qc"], input=data, capture_output=True, check=True).stdout


ROTATED = [
    ("mail.log", bytes),
    ("mail.log.1", bytes),
    ("mail.log.2.gz", gzip.compress),
    ("mail.log-20261119.xz", lzma.compress),
    ("mail.log-20261118.bz2", bz2.compress),
    ("mail-20261117.log.gz", gzip.compress),
    ("mail-20261116.log", bytes),
    ("mail-20261115.log.zst", zstd),
]


def test_rotated_and_compressed_files_are_read_in_the_order_of_time(tmp_path: Path) -> None:
    host = LogHost("postfix", tmp_path)
    for age, (name, pack) in enumerate(ROTATED):
        host.put(name, pack(line(NOW - age * DAY - 60, f"needle {age}")), age=age * DAY)
    host.put("mail.log.offset", line(NOW - 60, "needle elsewhere"))
    host.put("other.log", line(NOW - 60, "needle elsewhere"))
    data = search(host, contains="needle", since=timedelta(days=30))
    assert texts(data) == [f"needle {age}" for age in reversed(range(len(ROTATED)))]
    assert data["files"] == [str(tmp_path / name) for name, _ in reversed(ROTATED)]
    [note] = data["notes"]
    assert "begins at" in note


def test_files_that_ended_before_the_window_are_not_opened(tmp_path: Path) -> None:
    host = LogHost("postfix", tmp_path)
    host.put("mail.log", line(NOW - 60, "needle"))
    host.put("mail.log.1", line(NOW - 3 * DAY, "needle"), age=3 * DAY)
    assert search(host, contains="needle")["files"] == [str(tmp_path / "mail.log")]


def test_only_lines_of_the_window_count(tmp_path: Path) -> None:
    host = LogHost("postfix", tmp_path)
    host.put("mail.log", b"".join(line(NOW - age, f"needle {age}") for age in (7200, 3000, 1000, 10)))
    since, until = (datetime.fromtimestamp(NOW - age, UTC) for age in (3000, 1000))
    data = search(host, contains="needle", since=since, until=until)
    assert texts(data) == ["needle 3000", "needle 1000"]
    assert data["matched"] == 2


def test_what_was_logged_just_now_is_found_though_the_hosts_clock_is_known_to_half_a_second(tmp_path: Path) -> None:
    host = LogHost("postfix", tmp_path)
    logged = line(NOW + 0.4, "4A5B6C7D8E: from=<needle@x.test>, size=1, nrcpt=1 (queue active)")
    host.put("mail.log", logged.replace(b"smtpd", b"qmgr"))
    assert search(host, contains="needle")["matched"] == 1
    assert host.data(Postfix.message_trace, MessageTrace(sender="needle@x.test"))["matched"] == 1


def test_the_newest_lines_are_kept_oldest_first(tmp_path: Path) -> None:
    host = LogHost("postfix", tmp_path)
    host.put("mail.log", b"".join(line(NOW - 100 + at, f"needle {at}") for at in range(50)))
    data = search(host, contains="needle", limit=3)
    assert texts(data) == ["needle 47", "needle 48", "needle 49"]
    assert (data["matched"], data["truncated"]) == (50, True)


def test_a_text_is_no_expression_and_keeps_its_case(tmp_path: Path) -> None:
    host = LogHost("postfix", tmp_path)
    odd = ["-e [a] .* $(id) 'x' \"", "Needle", "needle", "back\\slash", " two  blanks", "ü"]
    host.put("mail.log", b"".join(line(NOW - 60, text) for text in odd))
    for text in odd:
        assert texts(search(host, contains=text)) == [text]


def test_an_expression_is_judged_by_re2(tmp_path: Path) -> None:
    host = LogHost("postfix", tmp_path)
    host.put(
        "mail.log", b"".join(line(NOW - 60, text) for text in ("status=sent x", "status=bounced x", "status=sent"))
    )
    assert texts(search(host, regex="status=(sent|deferred) x$")) == ["status=sent x"]
    assert texts(search(host, regex="(?i)STATUS=B")) == ["status=bounced x"]


def test_bytes_that_are_no_utf_8_are_shown_escaped_and_a_long_line_is_cut(tmp_path: Path) -> None:
    host = LogHost("postfix", tmp_path)
    host.put("mail.log", line(NOW - 60, "needle ").rstrip() + b"\xff\x00\n" + line(NOW - 50, "needle " + "x" * 10_000))
    first, second = search(host, contains="needle")["lines"]
    assert first["line"].endswith("needle\\xFF\x00")
    assert len(second["line"]) == LONGEST_SHOWN


def test_a_last_line_without_its_end_is_a_line(tmp_path: Path) -> None:
    host = LogHost("postfix", tmp_path)
    host.put("mail.log.1", line(NOW - 60, "needle one").rstrip(b"\n"), age=50)
    host.put("mail.log", line(NOW - 30, "needle two").rstrip(b"\n"))
    assert texts(search(host, contains="needle")) == ["needle one", "needle two"]


@pytest.mark.parametrize(("rotations", "readings", "notes"), [(1, 2, 0), (2, 3, 0), (3, 3, 1)])
def test_a_log_that_was_rotated_meanwhile_is_read_again(
    rotations: int, readings: int, notes: int, tmp_path: Path
) -> None:
    host = LogHost("postfix", tmp_path, rotations=rotations)
    host.put("mail.log.1", b"", age=30 * DAY)
    host.put(
        "mail.log", line(NOW - 60, "NOQUEUE: reject: RCPT from a[1]: 550 no; from=<a@b> to=<c@d> proto=X helo=<e>")
    )
    data = search(host, contains="NOQUEUE")
    assert (data["matched"], len(data["lines"])) == (1, 1)
    assert (host.readings, len(data["notes"])) == (readings, notes)
    host.readings = 0
    data = host.data(Postfix.message_trace, MessageTrace(sender="a@b"))
    assert (data["matched"], data["totals"]["rejected"], len(data["rows"])) == (1, 1, 1)
    assert (host.readings, len(data["notes"])) == (readings, notes)


def test_a_file_that_cannot_be_unpacked_is_told(tmp_path: Path) -> None:
    host = LogHost("postfix", tmp_path)
    host.put("mail.log", line(NOW - 30, "needle two"))
    host.put("mail.log.1.gz", b"this is no gzip", age=10)
    data = search(host, contains="needle")
    assert texts(data) == ["needle two"]
    assert data["notes"] == [f"{tmp_path}/mail.log.1.gz could not be read"]


@pytest.mark.parametrize("sender", ["a@b", "*"])
def test_a_packed_line_without_end_takes_no_memory_of_the_host_and_is_told(sender: str, tmp_path: Path) -> None:
    bomb = gzip.compress(bytes(1 << 20), 1) * 600
    host = LogHost("postfix", tmp_path)
    reject = "NOQUEUE: reject: RCPT from a[1]: 550 no; from=<a@b> to=<c@d> proto=X helo=<e>"
    host.put("mail.log", line(NOW - 30, reject))
    host.put("mail.log.1.gz", bomb, age=10)
    told = [f"{tmp_path}/mail.log.1.gz could not be read"]
    data = host.data(Postfix.message_trace, MessageTrace(sender=sender))
    assert (len(data["rows"]), data["notes"]) == (1, told)


def test_a_log_that_is_not_there_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(RemoteError, match="there is no log"):
        search(LogHost("postfix", tmp_path), contains="needle")


def test_a_link_that_is_not_roots_is_not_followed(tmp_path: Path) -> None:
    host = LogHost("postfix", tmp_path)
    host.put("secret", line(NOW - 60, "needle"))
    (tmp_path / "logs").mkdir()
    link = tmp_path / "logs" / "mail.log"
    link.symlink_to(tmp_path / "secret")
    if os.geteuid() == 0:
        os.lchown(link, 65534, -1)
    with pytest.raises(RemoteError, match="there is no log"):
        search(host, "logs/mail.log", contains="needle")
    host.put("logs/mail.log.1", line(NOW - 60, "needle of a rotated file"))
    (tmp_path / "logs" / "mail.log.2").symlink_to(tmp_path / "secret")
    link.unlink()
    assert texts(search(host, "logs/mail.log", contains="needle")) == ["needle of a rotated file"]


def test_a_host_without_a_log_is_unsupported() -> None:
    facts = InstanceFacts("mx1", "postfix", "postfix", "3", "/etc", (), options={"log_source": "none"})
    with pytest.raises(Unsupported, match="no mail log"):
        next(Postfix.log_search(facts, LogSearch(contains="x"), Context(now=NOW)))
    with pytest.raises(Unsupported, match="no mail log"):
        next(Postfix.message_trace(facts, MessageTrace(sender="x"), Context(now=NOW)))


def test_a_directory_of_multilog_is_read_with_its_old_files(tmp_path: Path) -> None:
    host = LogHost("qmail", tmp_path)
    tai = [f"@4000000{int(NOW - age) + 10:09x}00000000 status: local 0/10 {age}\n".encode() for age in (300, 200, 100)]
    host.put("log/@400000006b018a6c33ffb2ec.s", tai[0], age=250)
    host.put("log/@400000006b018a7135d929f4.u", tai[1], age=150)
    host.put("log/current", tai[2])
    host.put("log/state", b"status: no log\n")
    data = host.data(Qmail.log_search, LogSearch(contains="status:"), "log")
    assert [each["time"] for each in data["lines"]] == [NOW - 300, NOW - 200, NOW - 100]


def test_the_hosts_own_zone_is_used_across_the_end_of_summer_time(tmp_path: Path) -> None:
    host = LogHost("postfix", tmp_path, {"TZ": "Europe/Berlin"})
    stamps = ["Oct 24 12:00:00", "Oct 26 12:00:00", "Nov 21 12:00:00"]
    host.put("mail.log", "".join(f"{stamp} mx1 postfix/smtpd[1]: needle\n" for stamp in stamps).encode())
    times = [each["time"] for each in search(host, contains="needle", since=timedelta(days=60))["lines"]]
    assert times == [utc(f"2026-{text}:00") for text in ("10-24T10:00", "10-26T11:00", "11-21T11:00")]


@pytest.mark.parametrize(
    "said",
    [
        b"",
        b"=now 1\n=zone 0 +0000\n=source /x\n=file /x\n a line\n",
        b"=now 1\n=zone 0 +0000\n=source /x\n=file /x\n a line\n=end",
        b" a line\n=end\n",
        b"sh: 1: not found\n=end\n",
    ],
)
def test_output_that_is_cut_off_or_not_ours_is_an_error(said: bytes) -> None:
    sink = LogSink(lambda moment, rest, line, file: None)
    with pytest.raises(UnparsedOutput):
        take(sink, said)


def take(sink: LogSink, said: bytes) -> Read:
    sink.feed(said)
    return sink.close()


def test_a_log_line_cannot_pose_as_a_word_of_ours() -> None:
    seen: list[bytes] = []
    sink = LogSink(lambda moment, rest, line, file: seen.append(line))
    for byte in b"=now 1\n=zone 0 +0000\n=source /x\n=file /x\n =end\n =file /y\n=end\n":
        sink.feed(bytes([byte]))
    assert seen == [b"=end", b"=file /y"]
    assert [each.path for each in sink.close().read] == ["/x"]


def test_a_line_of_any_length_keeps_memory_small() -> None:
    seen: list[bytes] = []
    sink = LogSink(lambda moment, rest, line, file: seen.append(line))
    sink.feed(b"=now 1\n=zone 0 +0000\n=source /x\n=file /x\n ")
    for _ in range(100):
        sink.feed(b"x" * 65_536)
    sink.feed(b"\n=end\n")
    sink.close()
    assert [len(each) for each in seen] == [LONGEST_LINE - 1]


@pytest.mark.parametrize(
    ("regex", "part"),
    [
        ("NOQUEUE: reject", "NOQUEUE: reject"),
        ("status=(sent|bounced)", ""),
        ("to=<[^>]*>, relay=none", ">, relay=none"),
        ("(?i)abc", ""),
        ("ab?cd", "cd"),
        ("abc+d", "abc"),
        (r"a\.b\x41c", ""),
        (r"dsn=5\.1\.1\b", "dsn=5.1.1"),
        ("a{3}bcd", "bcd"),
        ("^postfix/smtp.*sent$", "postfix/smtp"),
        (".*", ""),
    ],
)
def test_the_fixed_part_of_an_expression(regex: str, part: str) -> None:
    assert fixed_part(regex) == part


def test_whatever_matches_an_expression_has_its_fixed_part() -> None:
    pick = random.Random(7)
    pieces = [
        "a",
        "b",
        "ab",
        "a?",
        "b*",
        "(ab)",
        "[ab]",
        "[^a]b",
        ".",
        "a+",
        "(a|b)",
        r"\.",
        "a{2}",
        "^",
        "$",
        "]",
        "}",
    ]
    texts = ["".join(pick.choice("ab.]}") for _ in range(pick.randrange(8))) for _ in range(300)]
    for _ in range(500):
        regex = "".join(pick.choice(pieces) for _ in range(pick.randrange(1, 5)))
        fits = patterns.search_bytes(regex, ignore_case=False)
        assert all(fixed_part(regex) in text for text in texts if fits(text.encode())), regex
        assert re.compile(regex)


def test_every_file_is_told_with_its_first_and_last_time_and_what_was_not_understood(tmp_path: Path) -> None:
    host = LogHost("postfix", tmp_path)
    host.put("mail.log.2.gz", gzip.compress(line(NOW - 3 * DAY, "old")), age=3 * DAY)
    first = b"-- a line without a time, needle\n" + line(NOW - DAY, "needle 1") + line(NOW - 7200, "other")
    host.put("mail.log.1.gz", gzip.compress(first), age=7200)
    host.put("mail.log", line(NOW - 3600, "needle 2") + b"needle, cut off\n" + line(NOW - 60, "other"), age=60)
    data = search(host, contains="needle", since=timedelta(days=2))
    assert data["read"] == [
        {"path": f"{tmp_path}/mail.log.1.gz", "first_time": NOW - DAY, "last_time": None, "lines": 2, "untimed": 1},
        {"path": f"{tmp_path}/mail.log", "first_time": NOW - 3600, "last_time": NOW - 60, "lines": 2, "untimed": 1},
    ]
    assert [note.rpartition(" ")[2] for note in data["notes"]] == ["1", "1"]


def test_a_log_that_begins_within_the_window_says_so(tmp_path: Path) -> None:
    host = LogHost("postfix", tmp_path)
    host.put("mail.log", line(NOW - 3600, "needle"))
    [note] = search(host, contains="needle")["notes"]
    assert note == f"{tmp_path}/mail.log begins at 2026-11-21T18:40:00Z: of what was before that nothing can be found"
    assert search(host, contains="needle", since=timedelta(minutes=30))["notes"] == []
    host.put("mail.log.1", line(NOW - 9 * DAY, "old"), age=8 * DAY)
    assert search(host, contains="needle")["notes"] == []


@pytest.mark.parametrize("since", [timedelta(days=2), timedelta(hours=1)])
def test_a_log_that_nobody_writes_to_any_more_is_not_a_log_in_which_nothing_was_found(
    since: timedelta, tmp_path: Path
) -> None:
    host = LogHost("postfix", tmp_path)
    host.put("mail.log", line(NOW - 20 * DAY, "needle"), age=20 * DAY)
    data = host.data(Postfix.message_trace, MessageTrace(sender="a@b", since=since))
    assert (data["rows"], data["files"]) == ([], [])
    [note] = data["notes"]
    assert note.startswith(f"{tmp_path}/mail.log was last written to at 2026-11-01T19:40:00Z; ")


def test_an_empty_log_is_not_a_log_in_which_nothing_was_found(tmp_path: Path) -> None:
    host = LogHost("postfix", tmp_path)
    host.put("mail.log", b"")
    [note] = search(host, contains="needle")["notes"]
    assert note.startswith(f"{tmp_path}/mail.log has no lines; if ")
    host.put("mail.log.1", line(NOW - 9 * DAY, "old"), age=8 * DAY)
    [note] = search(host, contains="needle")["notes"]
    assert f"; {tmp_path}/mail.log.1 was last written to at 2026-11-13T19:40:00Z; if " in note
    host.put("mail.log", line(NOW - 60, "other"))
    assert search(host, contains="needle")["notes"] == []


def test_a_log_that_is_ahead_of_the_hosts_clock_says_so(tmp_path: Path) -> None:
    host = LogHost("postfix", tmp_path)
    clock = datetime.now(UTC).timestamp()  # read_log.sh tells the machine's own
    host.put("mail.log", line(NOW - DAY, "old") + line(clock + 9 * 3600, "needle"))
    [note] = search(host, contains="needle", since=timedelta(hours=1))["notes"]
    ahead = f"{datetime.fromtimestamp(clock + 9 * 3600, UTC):%Y-%m-%dT%H:%M}"
    assert note.startswith(f"{tmp_path}/mail.log ends at {ahead}")
    assert note.endswith("; if the MTA has a time zone of its own, discover the host again")
    host.put("mail.log", line(NOW - DAY, "old") + line(clock + 60, "needle"))
    assert search(host, contains="needle", since=timedelta(hours=1))["notes"] == []


def test_a_source_that_is_none_is_not_read(tmp_path: Path) -> None:
    with pytest.raises(RemoteError):
        search(LogHost("postfix", tmp_path), "../x", contains="needle")


@pytest.mark.parametrize(
    "head", ["Nov 21 19:39:00 mx1 postfix/{}[7]: ", "<22>1 2026-11-21T19:39:00Z mx1 postfix/{} 7 - - "]
)
def test_lines_of_a_message_are_found_in_every_form_of_syslog(head: str, tmp_path: Path) -> None:
    host = LogHost("postfix", tmp_path)
    told = [
        ("qmgr", "4A1B2C3D4E: from=<s@c.test>, size=500, nrcpt=1 (queue active)"),
        ("smtp", "4A1B2C3D4E: to=<r@d.test>, relay=d.test[192.0.2.9]:25, delay=1, delays=1/0/0/0, dsn=2.0.0, "
         "status=sent (250 ok)"),
    ]  # fmt: skip
    host.put("mail.log", "".join(f"{head.format(name)}{text}\n" for name, text in told).encode())
    [row] = host.data(Postfix.message_trace, MessageTrace(sender="s@c.test"))["rows"]
    assert (row["recipient"], row["status"]) == ("r@d.test", "sent")


@pytest.mark.parametrize(
    "name", ["mail.log.0", "mail.log.old", "mail-20261120.log.gz", "mail.log.1.Z", "mail.log.2.lzma"]
)
def test_a_rotated_file_is_read_by_whichever_name_and_program(name: str, tmp_path: Path) -> None:
    host = LogHost("postfix", tmp_path)
    text = line(NOW - 60, "needle")
    packed = {"gz": gzip.compress, "Z": gzip.compress, "lzma": lambda data: lzma.compress(data, lzma.FORMAT_ALONE)}
    host.put(name, packed.get(name.rpartition(".")[2], bytes)(text), age=30)
    assert texts(search(host, contains="needle")) == ["needle"]
