"""What Postfix's tools print, from recorded sessions of 3.5, 3.7 and 3.10 and from hostile inventions."""

import re

import pytest

from fleet.mta.errors import MtaNotFound, MtaNotRunning, RemoteError, SudoDenied, UnparsedOutput
from fleet.mta.postfix.parse import QueueSink, StreamedEntry, error_of, ids_input, parse_verdicts, queue_id_error
from fleet.mta.steps import Completed
from tests.recorded import exchange, exchanges
from tests.unit.postfix_host import VERSIONS, Mail

LONG = "4jWC7h4LdTzS4l3"


def listed(data: bytes, cut: int = 0) -> tuple[list[StreamedEntry], int]:
    """The messages and the number of refused lines; `cut` feeds it in pieces of so many bytes."""
    found: list[StreamedEntry] = []
    sink = QueueSink(found.append)
    for start in range(0, len(data), cut or len(data) or 1):
        sink.feed(data[start : start + (cut or len(data))])
    ended = sink.close()
    assert ended.total == len(found)
    return found, ended.refused


def recorded_listing(version: str) -> bytes:
    listings = [each.completed for each in exchanges(f"postfix-{version}/03-list") if "-j" in each.line]
    lines = listings[-1].stdout.splitlines(keepends=True)
    return b"".join(line for line in lines if line.startswith(b"{"))


@pytest.mark.parametrize("version", VERSIONS)
def test_a_recorded_listing_is_read_whole_whatever_the_cuts(version: str) -> None:
    data = recorded_listing(version)
    whole, refused = listed(data)
    assert refused == 0
    assert len(whole) == data.count(b"\n") == 10
    for cut in (1, 7, 64):
        pieces, _ = listed(data, cut)
        assert [message.entry() for message in pieces] == [message.entry() for message in whole]


@pytest.mark.parametrize("version", VERSIONS)
def test_odd_senders_arrive_exactly_and_the_null_sender_is_shown_as_such(version: str) -> None:
    senders = {message.sender for message in listed(recorded_listing(version))[0]}
    odd = {
        '"a b"@x.test',
        "\"'; rm -rf /;'\"@x.test",
        "a%b!c=d+e@x.test",
        "üser@bücher.test",
        "CaSe@Bulk.Example",
        "<>",
    }
    assert odd <= senders
    assert "MAILER-DAEMON" not in senders


def test_a_listing_cut_in_a_line_is_an_error_and_not_a_shorter_queue() -> None:
    data = recorded_listing("3.7")
    with pytest.raises(UnparsedOutput, match="cut off"):
        listed(data[:-20])


@pytest.mark.parametrize(
    "line",
    [
        b"garbage\n",
        b"{}\n",
        b"\x1b[31m{\n",
        Mail("AAAAAA1").line().replace(b'"sender"', b'"sender": "x@y.test", "sender"'),
        Mail("AAAAAA1").line().replace(b'"queue_id"', b'"queue_id": "BBBBBB2", "queue_id"'),
        Mail("AAAAAA1").line().replace(b'"message_size": 722', b'"message_size": "722"'),
    ],
)
def test_a_line_that_postqueue_does_not_print_is_refused_counted_and_harms_no_other(line: bytes) -> None:
    good = Mail("CCCCCC3").line()
    found, refused = listed(good + line + good)
    assert refused == 1
    assert [message.queue_id for message in found] == ["CCCCCC3", "CCCCCC3"]


def test_recipients_that_postqueue_does_not_print_are_an_error_when_they_are_looked_at() -> None:
    (message,), _ = listed(Mail("AAAAAA1").line().replace(b'[{"address": "r@defer.test"', b'[{"address": 5'))
    with pytest.raises(UnparsedOutput, match="AAAAAA1"):
        _ = message.recipients


def test_a_sender_that_imitates_an_entry_is_one_sender() -> None:
    imitation = '"}\n{"queue_name": "deferred", "queue_id": "EEEEEE1"@x.test'
    found, refused = listed(Mail("DDDDDD1", sender=imitation).line())
    assert [(message.queue_id, message.sender) for message in found] == [("DDDDDD1", imitation)]
    assert refused == 0


def test_bytes_that_are_no_utf8_are_shown_escaped_with_the_raw_ones_beside() -> None:
    line = Mail("DDDDDD1", sender="XX@x.test").line().replace(b"XX", b"m\xfcller\\\\")
    (message,), _ = listed(line)
    assert message.sender == "m\\xFCller\\@x.test"
    assert message.entry().sender_raw == b"m\xfcller\\@x.test"


@pytest.mark.parametrize("place", [b"r@defer.test", b"later", b'"DDDDDD1"', b'"deferred"'])
def test_a_byte_that_is_no_utf8_stands_anywhere_and_harms_no_other(place: bytes) -> None:
    odd = Mail("DDDDDD1").line()
    assert place in odd
    odd = odd.replace(place, place[:2] + b"\xee" + place[2:], 1)
    found, refused = listed(Mail("CCCCCC3").line() + odd + Mail("EEEEEE5").line())
    assert {"CCCCCC3", "EEEEEE5"} <= {message.queue_id for message in found}
    told = [(each.address, each.reason) for message in found for each in message.recipients]
    assert len(told) == 3 - refused
    assert any("\\xEE" in text for pair in told for text in pair) == (place in (b"r@defer.test", b"later"))


@pytest.mark.parametrize("version", VERSIONS)
def test_postsuper_is_believed_by_what_it_says_about_each_message(version: str) -> None:
    deleted = exchange(f"postfix-{version}/05-delete", "-d -")
    said = parse_verdicts(deleted)
    assert len(said) == 3
    assert said == frozenset(re.findall(r"postsuper: (\w+): removed", deleted.stderr.decode()))


@pytest.mark.parametrize("version", VERSIONS)
def test_an_absent_id_is_nothing_done_although_the_exit_status_is_0(version: str) -> None:
    ended = [each.completed for each in exchanges(f"postfix-{version}/05-delete")]
    absent = [each for each in ended if b"Deleted: 0" in each.stderr]
    assert absent
    for each in absent:
        assert parse_verdicts(Completed(0, stderr=each.stderr)) == frozenset()


def test_postsuper_that_did_not_come_to_its_end_proves_nothing() -> None:
    with pytest.raises(UnparsedOutput):
        parse_verdicts(Completed(0, stderr=b"postsuper: AAAAAA1: removed\n"))


def test_a_message_id_in_other_words_is_no_verdict() -> None:
    stderr = b"postsuper: warning: AAAAAA1: removed\npostsuper: Deleted: 0 messages\n"
    assert parse_verdicts(Completed(0, stderr=stderr)) == frozenset()


@pytest.mark.parametrize("version", VERSIONS)
def test_a_stopped_mail_system_is_told_from_an_empty_queue(version: str) -> None:
    down = exchange(f"postfix-{version}/15-down", "/usr/sbin/postqueue", "-j")
    assert isinstance(error_of(Completed(69, stderr=down.stderr), "postqueue"), MtaNotRunning)


def test_each_error_has_its_type() -> None:
    assert isinstance(error_of(Completed(1, stderr=b"sudo: a password is required\n"), "postsuper"), SudoDenied)
    assert isinstance(error_of(Completed(127, stderr=b"timeout: failed to run command"), "postqueue"), MtaNotFound)
    assert isinstance(error_of(Completed(1, stderr=b"postcat: fatal: whatever"), "postcat"), RemoteError)
    refused = exchange("postfix-3.7/21-multi-instance", "/tmp/evil -p")
    assert isinstance(error_of(Completed(69, stderr=refused.stderr), "postqueue"), MtaNotFound)


@pytest.mark.parametrize("queue_id", ["3F5DD30C44F", "AAAAAA", "4jWC7h4LdTzS4l3", "4jWG251jGsz2FfHK"])
def test_short_and_long_ids_are_accepted_as_they_are(queue_id: str) -> None:
    assert queue_id_error(queue_id) is None
    assert ids_input([queue_id]) == f"{queue_id}\n".encode()


@pytest.mark.parametrize(
    ("queue_id", "hint"),
    [
        ("ALL", "match: ALL"),
        ("all", "match: ALL"),
        ("3F5DD30C44F*", "write '3F5DD30C44F'"),
        ("3F5DD30C44F!", "write '3F5DD30C44F'"),
        ("3f5dd30c44f", "perhaps '3F5DD30C44F'"),
        ("-", "no Postfix queue ID"),
        ("-d", "no Postfix queue ID"),
        ("--help", "no Postfix queue ID"),
        ("", "no Postfix queue ID"),
        ("../../etc/passwd", "no Postfix queue ID"),
        ("1rAbCd-000123-Xy", "no Postfix queue ID"),
        ("AAAAAA\nBBBBBB", "no Postfix queue ID"),
        ("AAAAAA٣", "no Postfix queue ID"),
    ],
)
def test_anything_else_is_refused_with_what_would_be_right(queue_id: str, hint: str) -> None:
    assert hint in str(queue_id_error(queue_id))
    with pytest.raises(ValueError, match=r"queue ID|mark"):
        ids_input(["AAAAAA1", queue_id])


@pytest.mark.parametrize("version", VERSIONS)
def test_every_recorded_queue_id_has_the_grammar(version: str) -> None:
    names = (f"postfix-{version}/{name}" for name in ("03-list", "16-long-ids"))
    text = b"".join(each.completed.stdout for name in names for each in exchanges(name))
    ids = set(re.findall(r'"queue_id": "(\w+)"', text.decode()))
    assert len(ids) > 10
    assert [name for name in ids if queue_id_error(name)] == []
