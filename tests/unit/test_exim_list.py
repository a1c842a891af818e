"""The script that lists Exim's queue, on real spool files: each message with what its own log says of it."""

from pathlib import Path

import pytest

from fleet.mta.exim.commands import listing
from fleet.mta.exim.parse import QueueSink, StreamedEntry
from fleet.mta.records import InstanceFacts
from tests.unit.exim_spool import add
from tests.unit.real_scripts import AWKS, run_script, tools_with

IDS = ("1xY2Ca-020001-2d", "1xY2Ca-020002-2d", "1xY2Cb-020003-2d", "1xY2Cb-020004-2d")
LATER = "r@x.test R=dnslookup T=remote_smtp defer (-44): 451 {}"


@pytest.fixture
def spool(tmp_path: Path) -> Path:
    for queue_id in IDS:
        add(tmp_path, queue_id)
    return tmp_path


def listed(spool: Path, tools: Path | None = None) -> dict[str, StreamedEntry]:
    found: dict[str, StreamedEntry] = {}
    sink = QueueSink(lambda message: found.update({message.queue_id: message}))
    instance = InstanceFacts("ex1", "exim", "exim", "", "", (str(spool),))
    done = run_script(listing(instance, "", sink), tools)
    assert (done.exit_status, done.stderr) == (0, b"")
    sink.feed(done.stdout)
    assert sink.close().total == len(found)
    return found


def reasons(spool: Path) -> list[str]:
    found = listed(spool)
    return [found[queue_id].recipients[0].reason for queue_id in IDS]


def test_each_message_has_the_last_deferral_of_its_own_log(spool: Path) -> None:
    first, empty, cut, missing = (spool / "msglog" / queue_id for queue_id in IDS)
    lines = [f"2026-11-20 10:27:{at:02} {LATER.format(at)}\n" for at in range(60)]
    first.write_text("".join(lines * 5))
    empty.write_text("")
    cut.write_text(lines[7].rstrip("\n"))
    missing.unlink()
    assert reasons(spool) == ["451 59", "", "451 7", ""]


def test_a_log_of_another_directory_tells_nothing_of_a_message(spool: Path) -> None:
    (spool / "msglog/x").mkdir()
    (spool / "msglog/x" / IDS[0]).write_text(f"2026-11-20 10:27:00 {LATER.format(0)}\n")
    (spool / "msglog" / IDS[0]).unlink()
    assert reasons(spool) == ["", "", "", ""]


@pytest.mark.parametrize("name", ["a-b-c\n\n-H", "\n\n==> a <==\n-D", "d\n\n/a-b-c-H"], ids=["H", "D", "directory"])
def test_a_name_with_newlines_ends_no_listing(spool: Path, name: str) -> None:
    path = spool / "input" / name
    path.parent.mkdir(exist_ok=True)
    path.write_text("")
    assert set(listed(spool)) == set(IDS)


def test_an_address_that_was_delivered_to_by_the_log_is_done(spool: Path) -> None:
    (spool / "msglog" / IDS[1]).write_text("2026-11-20 10:27:00.123 +0100 r@x.test: remote_smtp transport succeeded\n")
    assert {name: each.recipients[0].state for name, each in listed(spool).items()} == {
        name: "delivered" if name == IDS[1] else "undelivered" for name in IDS
    }


@pytest.mark.parametrize("awk", AWKS)
def test_any_awk_counts_headers_with_leading_zeros_as_decimal(spool: Path, awk: str) -> None:
    """busybox takes 022 for an octal number. Deleted headers do not count, and a byte 1 ends no file."""
    head = spool / f"input/{IDS[0]}-H"
    old = "008  Subj: x\n"
    text = head.read_text()
    assert text.endswith(old)
    head.write_text(f"{text}022  Subject: letter\x0112345\n010* X: \n gone\n")
    before, after = listed(spool)[IDS[1]].size, listed(spool, tools_with(spool, awk))
    assert set(after) == set(IDS)
    assert after[IDS[0]].size == before + 22


def test_a_message_that_is_still_being_received_or_was_torn_is_told_from_a_whole_one(spool: Path) -> None:
    """Without -H it is none yet; a -H file of another form is refused and counted."""
    (spool / f"input/{IDS[0]}-H").unlink()
    head = spool / f"input/{IDS[1]}-H"
    head.write_text(head.read_text().replace("008  Subj", "007  Subj"))
    found: list[StreamedEntry] = []
    sink = QueueSink(found.append)
    instance = InstanceFacts("ex1", "exim", "exim", "", "", (str(spool),))
    sink.feed(run_script(listing(instance, "", sink)).stdout)
    end = sink.close()
    assert (sorted(each.queue_id for each in found), end.refused) == ([*IDS[2:]], 1)


def test_a_message_whose_last_header_was_cut_off_is_as_large_as_exim_takes_it_for(spool: Path) -> None:
    """Exim lists it too, and one that was refused would leave every change of the queue unproven."""
    head = spool / f"input/{IDS[0]}-H"
    before = listed(spool)[IDS[0]].size
    head.write_text(head.read_text().removesuffix("bj: x\n"))
    assert listed(spool)[IDS[0]].size == before
