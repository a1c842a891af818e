"""Numbers and names beyond all reason are refused where they are parsed, message by message, on every MTA."""

import json
import re
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from fleet.models import Instance
from fleet.mta import bounds
from fleet.mta.adapter import adapter_for
from fleet.mta.errors import UnparsedOutput
from fleet.mta.exim import parse as exim
from fleet.mta.host import discovery
from fleet.mta.logs.times import LineClock
from fleet.mta.opensmtpd import parse as opensmtpd
from fleet.mta.operations import MessageTrace
from fleet.mta.postfix import parse as postfix
from fleet.mta.qmail import parse as qmail
from fleet.mta.queue.content import parse_stored
from fleet.mta.queue.listing import Listing
from fleet.mta.records import HostFacts, InstanceFacts
from fleet.mta.sendmail import parse as sendmail
from fleet.mta.steps import Completed
from jobs.jsonvalues import rfc3339
from jobs.models import Message, QuarantineItem
from tests.unit.test_trace_rows import ADAPTERS, host_of

NOW = 1_795_172_380
ODD_NUMBERS = [str(10**18), str(2**70), "9" * 5000, "-1", "1e400", "nan", "1_0", "٣", "²", ""]
ODD_TIMES = [*ODD_NUMBERS, "253402300800"]
FIELDS = ("arrival_time", "size")


def postfix_line(queue_id: str, arrival_time: str, size: str) -> bytes:
    message = {"queue_name": "deferred", "queue_id": queue_id, "sender": "a@b.test", "recipients": []}
    numbers = f'"arrival_time": {arrival_time or "null"}, "message_size": {size or "null"}'
    return f"{json.dumps(message)[:-1]}, {numbers}}}\n".encode()


def exim_record(queue_id: str, arrival_time: str, size: str) -> bytes:
    return f"M {queue_id} {arrival_time} 5 0 {size} queued\nF <a@b.test>\nR r@x.test\n".encode()


def sendmail_record(queue_id: str, arrival_time: str, size: str) -> bytes:
    return f">{queue_id} q 0 0 {arrival_time} 1 0 {size} 5\nS<a@b.test>\n".encode()


def opensmtpd_lines(queue_id: str, arrival_time: str, size: str) -> bytes:
    envelope = f"{queue_id}00000001|inet4|mta||a@b.test|r@x.test|r@x.test|{arrival_time}|0|0|1|pending|60|later"
    return f"{queue_id} {size}\n{envelope}\n".encode()


def qmail_pairs(queue_id: str, arrival_time: str, size: str) -> bytes:
    words = [
        *(f"info/1/{queue_id}", "Fa@b.test", f"remote/1/{queue_id}", "Tr@x.test"),
        *(f"=info/1/{queue_id}", "10", f"=remote/1/{queue_id}", "10"),
        *(f"@mess/1/{queue_id}", f"{size} {arrival_time}.123456789"),
    ]
    return "".join(f"{word}\0" for word in words).encode()


Record = Callable[[str, str, str], bytes]
MTAS: dict[str, tuple[Any, Record, tuple[str, str], Callable[[bytes], bytes]]] = {
    "postfix": (postfix.QueueSink, postfix_line, ("3F5DD30C44F", "3F5DD30C450"), lambda data: data),
    "exim": (
        exim.QueueSink,
        exim_record,
        ("1xUMSQ-00005F-0r", "1xUMSQ-00005F-0s"),
        lambda data: data + b"end 2\n",
    ),
    "sendmail": (
        sendmail.ListSink,
        sendmail_record,
        ("6AKAxcId000281", "6AKAxcId000282"),
        lambda data: data + b"end 2 0\n",
    ),
    "opensmtpd": (
        opensmtpd.QueueSink,
        opensmtpd_lines,
        ("3f5dd30c", "3f5dd30d"),
        lambda data: f"!{NOW}\n".encode() + data + b"~listed\nend\n",
    ),
    "qmail": (
        qmail.QueueSink,
        qmail_pairs,
        ("15265", "15266"),
        lambda data: b":group\0%d\0" % (NOW + 60) + data + b":done\0\0:end\0002\0",
    ),
}


def listed(mta: str, *records: tuple[str, str, str]) -> tuple[list[Any], Listing]:
    make_sink, record, _, whole = MTAS[mta]
    taken: list[Any] = []
    sink = make_sink(lambda message, *content: taken.append(message.entry()))
    sink.feed(whole(b"".join(record(*each) for each in records)))
    return taken, sink.close()


@pytest.mark.parametrize("mta", MTAS)
def test_reasonable_messages_are_listed(mta: str) -> None:
    first, second = MTAS[mta][2]
    taken, listing = listed(mta, (first, str(NOW), "722"), (second, str(NOW), "0"))
    assert [int(message.arrival_time) for message in taken] == [NOW, NOW]
    assert (listing.total, listing.refused) == (2, 0)


@pytest.mark.parametrize("mta", MTAS)
@pytest.mark.parametrize(
    ("arrival_time", "size"),
    [
        *((odd, "722") for odd in ODD_TIMES if odd.lstrip("-").isdecimal()),
        *((str(NOW), odd) for odd in ODD_NUMBERS[:4]),
    ],
)
def test_an_odd_number_costs_its_own_message_and_no_other(mta: str, arrival_time: str, size: str) -> None:
    """What is no number at all may end the whole listing, as other garbage does."""
    first, second = MTAS[mta][2]
    try:
        taken, listing = listed(mta, (first, arrival_time, size), (second, str(NOW), "722"))
    except UnparsedOutput:
        assert "-" in arrival_time + size or not (arrival_time + size).isascii()
        return
    assert [message.queue_id for message in taken] == [second]
    assert (listing.total, listing.refused >= 1) == (1, True)


@pytest.mark.parametrize("mta", ["postfix", "sendmail"])
def test_a_queue_id_that_no_column_holds_is_refused(mta: str) -> None:
    first = MTAS[mta][2][0]
    taken, listing = listed(mta, (first * 10, str(NOW), "1"), (first, str(NOW), "1"))
    assert [message.queue_id for message in taken] == [first]
    assert (listing.total, listing.refused) == (1, 1)


@pytest.mark.parametrize("mta", ["exim", "opensmtpd", "qmail"])
def test_a_queue_id_that_no_column_holds_has_no_grammar(mta: str) -> None:
    assert adapter_for(mta).queue_id_error(MTAS[mta][2][0] * 10)


@pytest.mark.parametrize("odd", ODD_TIMES)
@pytest.mark.parametrize(
    "parse", [bounds.count_of, bounds.size_of, bounds.port_of, bounds.second_of, bounds.moment_of, bounds.delay_of]
)
def test_each_kind_of_number_is_bounded_and_strict(parse: Callable[[str], float], odd: str) -> None:
    if parse is not bounds.size_of or odd != "253402300800":
        with pytest.raises(UnparsedOutput):
            parse(odd)
    assert parse("0") == 0


@pytest.mark.parametrize("odd", ["1.", "1.-5", "1.5.5", "1.e5", ".5", "1.٣"])
def test_a_fraction_is_digits(odd: str) -> None:
    with pytest.raises(UnparsedOutput):
        bounds.moment_of(odd)
    assert bounds.moment_of("1.250000") == 1.25


def test_the_bounds_fit_the_tables() -> None:
    assert Message._meta.get_field("queue_id").max_length == bounds.ID_MOST
    assert Message._meta.get_field("new_id").max_length == bounds.ID_MOST
    assert QuarantineItem._meta.get_field("queue_id").max_length == bounds.ID_MOST
    assert Message._meta.get_field("state").max_length == bounds.STATE_MOST
    assert QuarantineItem._meta.get_field("native_state").max_length == bounds.STATE_MOST
    assert Instance._meta.get_field("name").max_length == bounds.NAME_MOST
    assert Instance._meta.get_field("version").max_length == bounds.VERSION_MOST
    assert Instance._meta.get_field("config_dir").max_length == bounds.PATH_MOST
    assert 1_000_000 * bounds.SIZE_MOST < 1 << 63
    assert rfc3339(bounds.EPOCH_MOST + bounds.COUNT_MOST) < "9999"


FOUND = InstanceFacts("mx1", "postfix", "postfix", "3.7.11", "/etc/postfix", ("/var/spool/postfix",))


def test_a_long_version_is_cut_with_a_mark_and_a_long_name_or_place_is_refused() -> None:
    cut = bounds.instance_of(replace(FOUND, version="3" * 70))
    assert cut.version == "3" * 63 + "…"
    assert bounds.instance_of(FOUND) == FOUND
    for change in ({"name": "p" * 64}, {"config_dir": "/" + "p" * 255}):
        with pytest.raises(UnparsedOutput):
            bounds.instance_of(replace(FOUND, **change))


def test_discovery_bounds_what_every_adapter_finds(monkeypatch: pytest.MonkeyPatch) -> None:
    class Odd:
        def discover(self, facts: HostFacts, name: str) -> Any:
            return (replace(FOUND, version="v" * 70),)
            yield

    monkeypatch.setattr(discovery, "REGISTRY", ("odd",))
    monkeypatch.setattr(discovery, "adapter_for", lambda mta: Odd())
    steps = discovery.discover_host("mx1")
    next(steps)
    steps.send(Completed(0, b"ops:x:1000:1000::/home/ops:/bin/sh\n"))
    with pytest.raises(StopIteration) as end:
        steps.send(Completed(0, f"time {NOW}\nuid 0\nend\n".encode()))
    assert len(end.value.value[1][0].version) == 64


@pytest.mark.parametrize("time", [str(10**15), "²"])
def test_a_clock_out_of_bounds_is_no_skew(time: str) -> None:
    with pytest.raises(UnparsedOutput):
        discovery.parse_facts(Completed(0, f"time {time}\nuid 0\nend\n".encode()), "/bin/sh", NOW)


@pytest.mark.parametrize(
    "line",
    [
        b"@ffffffffffffffff00000000 x",
        b"@000000000000000000000000 x",
        b"99999999999.5 x",
        b"9999-12-31T23:59:59Z x",
        b"0001-01-01T00:00:00Z x",
    ],
)
def test_a_log_line_with_an_impossible_time_has_none(line: bytes) -> None:
    assert LineClock((), NOW).split(line) == (None, line)


@pytest.mark.parametrize("recorded", ["postfix-3.10", "sendmail-8.18", "exim-4.98", "opensmtpd-7.6", "qmail-lab"])
def test_a_size_in_a_log_that_cannot_be_is_told_and_not_taken(recorded: str, tmp_path: Path) -> None:
    host = host_of(recorded, tmp_path)
    log = tmp_path / "mail.log"
    log.write_bytes(re.sub(rb"( S=|size=|: bytes )\d+", rb"\g<1>%d" % 2**70, log.read_bytes()))
    data = host.data(ADAPTERS[host.mta].message_trace, MessageTrace(recipient="ok1@ok.test"))
    assert {row["size"] for row in data["rows"]} == {None}
    assert any("not at all" in note for note in data["notes"])


@pytest.mark.parametrize("head", [b"1 2 %s" % (b"9" * 5000), b"\xff 0 1 -1", b"1 1 1"])
def test_lengths_of_stored_messages_that_cannot_be_are_refused(head: bytes) -> None:
    with pytest.raises(UnparsedOutput):
        parse_stored(Completed(0, head + b"\nend\n"), has_body=True)
