"""Listing, summary, content and single messages, on a host played by hand and from recorded log lines."""

import base64
import re

import pytest

from fleet import match
from fleet.mta.errors import (
    Conflict,
    InDelivery,
    MessageNotFound,
    OutcomeUnknown,
    PlanStale,
    UnparsedOutput,
    Unsupported,
)
from fleet.mta.operations import MessageDeliver, MessageShow, QueueList, QueueSummary
from fleet.mta.postfix import Postfix
from fleet.mta.postfix.attempt import attempts_of, requeued, returned
from fleet.mta.queue.content import parse_headers, parse_stored
from fleet.mta.records import Ended, Fingerprint
from fleet.mta.steps import Command, Completed
from tests.recorded import exchanges
from tests.unit.postfix_host import NOW, VERSIONS, FakeHost, Mail, context, instance

POSTFIX = Postfix()
HERE = instance()
SENT = "2026-11-20T11:00:25 mx1 postfix/relay/smtp[365]: {}: to=<{}>, relay=mx[10.0.0.1]:25, delay=6, delays=0/0/0/6, "


def sent(queue_id: str, status: str, reply: str, to: str = "r@defer.test") -> str:
    return SENT.format(queue_id, to) + f"dsn=2.0.0, status={status} ({reply})"


@pytest.fixture
def host() -> FakeHost:
    host = FakeHost()
    host.add(
        Mail("AAAAAA1", arrival_time=int(NOW) - 60, size=100),
        Mail("AAAAAA2", arrival_time=int(NOW) - 7200, size=300, recipients=("a@x.test", "b@y.test", "c@X.test")),
        Mail("AAAAAA3", arrival_time=int(NOW) - 600, size=200, sender="MAILER-DAEMON", state="hold"),
    )
    return host


def list_ids(host: FakeHost, text: str, **fields: object) -> list[str]:
    operation = QueueList(match.parse(text), **fields)  # type: ignore[arg-type]
    data = host.drive(POSTFIX.queue_list(HERE, operation, context())).data
    return [entry["queue_id"] for entry in data["entries"]]


def test_the_oldest_come_first_and_by_size_the_largest(host: FakeHost) -> None:
    assert list_ids(host, "ALL") == ["AAAAAA2", "AAAAAA3", "AAAAAA1"]
    assert list_ids(host, "ALL", order="size") == ["AAAAAA2", "AAAAAA3", "AAAAAA1"]
    assert list_ids(host, "age>5m") == ["AAAAAA2", "AAAAAA3"]
    assert list_ids(host, "from:<>") == ["AAAAAA3"]


def test_a_limited_list_says_how_many_there_are() -> None:
    host = FakeHost()
    host.add(*(Mail(f"AAAA{number:04d}", arrival_time=1000 + number * 7 % 501) for number in range(500)))
    operation = QueueList(match.parse("ALL"), limit=10)
    data = host.drive(POSTFIX.queue_list(HERE, operation, context())).data
    assert [entry["arrival_time"] for entry in data["entries"]] == list(range(1000, 1010))
    assert (data["total"], data["matched"], data["truncated"]) == (500, 500, True)


def test_a_message_that_moved_while_it_was_listed_is_one_message_as_seen_last(host: FakeHost) -> None:
    host.garbage = host.mail["AAAAAA1"].line().replace(b"deferred", b"active")
    operation = QueueList(match.parse("id:AAAAAA1"))
    data = host.drive(POSTFIX.queue_list(HERE, operation, context())).data
    assert [(entry["queue_id"], entry["state"]) for entry in data["entries"]] == [("AAAAAA1", "active")]
    assert data["matched"] == 1


def test_lines_that_cannot_be_read_are_counted_in_the_answer(host: FakeHost) -> None:
    host.garbage = b"garbage\n"
    data = host.drive(POSTFIX.queue_list(HERE, QueueList(match.parse("ALL")), context())).data
    assert (data["total"], data["refused"]) == (3, 1)
    assert "left out" in data["notes"][0]


def test_fields_narrow_the_entry_and_subjects_are_read_when_asked(host: FakeHost) -> None:
    operation = QueueList(match.parse("id:AAAAAA1"), fields=("sender", "subject"))
    data = host.drive(POSTFIX.queue_list(HERE, operation, context())).data
    assert data["entries"] == [{"queue_id": "AAAAAA1", "sender": "news@bulk.example", "subject": "Newsletter"}]


def test_attempts_are_not_counted_by_postfix_and_not_guessed(host: FakeHost) -> None:
    with pytest.raises(Unsupported, match="attempts"):
        list_ids(host, "attempts>5")
    assert host.commands == []


def test_a_summary_counts_a_message_once_in_each_of_its_domains(host: FakeHost) -> None:
    operation = QueueSummary(match.parse("ALL"), group_by=("to-domain", "state", "age"))
    data = host.drive(POSTFIX.queue_summary(HERE, operation, context())).data
    assert data["total"] == {"count": 3, "bytes": 600, "oldest_at": NOW - 7200}
    counts = {group["value"]: group["count"] for group in data["groups"]["to-domain"]}
    assert counts == {"defer.test": 2, "x.test": 1, "y.test": 1}
    assert {name: count for name, count in data["ages"].items() if count} == {"5": 1, "20": 1, "160": 1}
    assert {group["value"]: group["count"] for group in data["groups"]["state"]} == {"deferred": 2, "hold": 1}


def test_a_message_is_shown_with_decoded_and_raw_parts(host: FakeHost) -> None:
    host.mail["AAAAAA1"].headers = b"Subject: =?utf-8?Q?Gr=C3=BC=C3=9Fe?=\nX-Odd: a\n\tb \xff\n"
    host.mail["AAAAAA1"].body = b"\nbody \xff\n"
    operation = MessageShow("AAAAAA1", ("envelope", "headers", "body"))
    data = host.drive(POSTFIX.message_show(HERE, operation, context())).data
    assert data["envelope"]["sender"] == "news@bulk.example"
    assert data["headers"][0] == {"name": "Subject", "value": "Grüße", "raw": "=?utf-8?Q?Gr=C3=BC=C3=9Fe?="}
    assert data["headers"][1]["raw"] == "a\tb \\xFF"
    assert base64.b64decode(data["body"]["raw_base64"]) == b"body \xff\n"
    assert data["truncated"] is False


def test_a_long_body_is_cut_and_said_to_be(host: FakeHost) -> None:
    host.mail["AAAAAA1"].body = b"\n" + b"x" * 100
    for limit, is_cut in ((100, False), (99, True)):
        data = host.drive(POSTFIX.message_show(HERE, MessageShow("AAAAAA1", ("body",), limit), context())).data
        assert len(data["body"]["text"]) == limit
        assert data["truncated"] is is_cut


def test_a_message_that_is_not_there_is_not_found(host: FakeHost) -> None:
    for steps in (
        POSTFIX.message_show(HERE, MessageShow("FFFFFF9"), context()),
        POSTFIX.message_deliver(HERE, MessageDeliver("FFFFFF9"), context()),
    ):
        with pytest.raises(MessageNotFound):
            host.drive(steps)


def test_a_body_that_imitates_the_next_message_stays_a_body() -> None:
    body = b"\nAAAAAA2 0 9 0\nX: forged\nend\n"
    data = b"AAAAAA1 0 5 %d\nS: x\n%bAAAAAA2 absent\nend\n" % (len(body), body)
    found, answered = parse_stored(Completed(0, data), has_body=True)
    assert found["AAAAAA1"].body == body
    assert set(found) == {"AAAAAA1"}
    assert answered == {"AAAAAA1", "AAAAAA2"}


@pytest.mark.parametrize(
    "data", [b"", b"AAAAAA1 0 5 0\nS: x\n", b"AAAAAA1 0 50 0\nS: x\nend\n", b"end\nend\n", b"AAAAAA1 x\n"]
)
def test_content_that_is_cut_off_is_not_judged(data: bytes) -> None:
    with pytest.raises(UnparsedOutput):
        parse_stored(Completed(0, data), has_body=False)


def test_headers_are_unfolded_and_continuations_are_no_headers() -> None:
    raw = b"A: 1\n 2\nB:3\n\tSubject: fake\nno header\n"
    assert list(parse_headers(raw)) == [("A", "1 2"), ("B", "3\tSubject: fake")]


def recorded_lines(version: str, name: str) -> list[str]:
    printed = (each.completed.stdout.decode() for each in exchanges(f"postfix-{version}/{name}"))
    return [line for text in printed for line in text.splitlines()]


@pytest.mark.parametrize("version", VERSIONS)
def test_recorded_attempts_are_read_whatever_the_syslog_tag(version: str) -> None:
    lines = recorded_lines(version, "12-active")
    ended = {name for line in lines if (name := (re.findall(r": (\w+): to=", line) or [""])[0])}
    assert len(ended) == 2
    for name in ended:
        (attempt,) = attempts_of(lines, name)
        assert (attempt.outcome, attempt.reply) == ("sent", "250 2.0.0 sink: accepted")
        assert attempt.remote.startswith("mx.slow.test[")


@pytest.mark.parametrize("version", VERSIONS)
def test_recorded_returns_are_read(version: str) -> None:
    lines = recorded_lines(version, "10-bounce")
    assert len(returned(lines)) == 1


def test_a_line_that_can_be_read_in_two_ways_is_not_read() -> None:
    forged = '"x>, relay=a[1.2.3.4]:25, delay=1, delays=0/0/0/1, dsn=2.0.0, status=sent (ok)"@d.test'
    lines = [sent("AAAAAA1", "deferred", "later", to=forged)]
    assert [(each.address, each.outcome) for each in attempts_of(lines, "AAAAAA1")] == [("", "unclear")]
    boasting = "250 ok AAAAAA2: to=<x@y.test>"
    assert attempts_of([sent("AAAAAA1", "sent", boasting)], "AAAAAA2") == []
    assert requeued(["x postfix/smtp[1]: AAAAAA1: uid=0 from=<a> orig_id=AAAAAA2 trailing"]) == {}


@pytest.mark.parametrize(
    ("lines", "is_gone", "outcome"),
    [
        ([("sent", "250 ok")], True, "sent"),
        ([("bounced", "550 no")], True, "bounced"),
        ([("deferred", "451 later")], False, "deferred"),
        ([("deferred", "451 later"), ("sent", "250 ok")], False, "deferred"),
        ([], True, "left_queue"),
        ([("deferred", "451 later")], True, "left_queue"),
    ],
)
def test_what_came_of_an_attempt_is_told_by_log_and_queue(
    host: FakeHost, lines: list[tuple[str, str]], is_gone: bool, outcome: str
) -> None:
    def attempt(host: FakeHost, name: str) -> None:
        host.log += [sent(name, status, reply, f"r{at}@x.test") for at, (status, reply) in enumerate(lines)]
        if is_gone:
            del host.mail[name]

    host.on_attempt = attempt
    result = host.drive(POSTFIX.message_deliver(HERE, MessageDeliver("AAAAAA1"), context()))
    assert result.data["outcome"] == outcome
    assert result.ended is Ended.SUCCEEDED
    assert host.attempted == ["AAAAAA1"]


def test_an_attempt_that_nobody_saw_is_not_claimed(host: FakeHost) -> None:
    result = host.drive(POSTFIX.message_deliver(HERE, MessageDeliver("AAAAAA1"), context()))
    assert result.ended is Ended.FAILED
    assert result.error is not None


@pytest.mark.parametrize("is_readable", [True, False])
def test_an_attempt_after_which_the_queue_does_not_tell_is_an_unknown_outcome(
    host: FakeHost, is_readable: bool
) -> None:
    """A listing with what cannot be read, or none, proves not that the message left."""
    answer = host.answer

    def attempt(host: FakeHost, name: str) -> None:
        del host.mail[name]
        host.garbage = b"no line of postqueue's\n"
        if not is_readable:
            host.answer = unreadable  # type: ignore[method-assign]

    def unreadable(command: Command) -> Completed:
        is_listing = command.argv[0].endswith("postqueue")
        return Completed(1, stderr=b"postqueue: fatal: open /etc/postfix") if is_listing else answer(command)

    host.on_attempt = attempt
    with pytest.raises(OutcomeUnknown):
        host.drive(POSTFIX.message_deliver(HERE, MessageDeliver("AAAAAA1"), context()))


def test_a_held_message_is_delivered_only_when_release_is_said(host: FakeHost) -> None:
    with pytest.raises(Conflict, match="on hold"):
        host.drive(POSTFIX.message_deliver(HERE, MessageDeliver("AAAAAA3"), context()))
    assert host.mail["AAAAAA3"].state == "hold"
    host.on_attempt = lambda host, name: host.log.append(sent(name, "deferred", "451 later"))
    result = host.drive(POSTFIX.message_deliver(HERE, MessageDeliver("AAAAAA3", release=True), context()))
    assert result.data["outcome"] == "deferred"


def test_a_message_in_delivery_is_not_attempted_twice(host: FakeHost) -> None:
    host.mail["AAAAAA1"].state = "active"
    with pytest.raises(InDelivery):
        host.drive(POSTFIX.message_deliver(HERE, MessageDeliver("AAAAAA1"), context()))


def test_a_planned_delivery_does_not_send_another_message_of_that_id(host: FakeHost) -> None:
    planned = Fingerprint("AAAAAA1", 1.0, "other@x.test", 1)
    with pytest.raises(PlanStale):
        host.drive(POSTFIX.message_deliver(HERE, MessageDeliver("AAAAAA1"), context(frozen=(planned,))))
    assert host.attempted == []


def test_read_back_of_a_delivery_claims_only_what_the_log_proves(host: FakeHost) -> None:
    planned = Fingerprint("AAAAAA1", int(NOW) - 60, "news@bulk.example", 100)
    steps = POSTFIX.read_back(HERE, MessageDeliver("AAAAAA1"), context(frozen=(planned,)))
    assert host.drive(steps) is None
    del host.mail["AAAAAA1"]
    result = host.drive(POSTFIX.read_back(HERE, MessageDeliver("AAAAAA1"), context(frozen=(planned,))))
    assert result is not None
    assert result.data["outcome"] == "left_queue"


def test_sudoers_lines_are_literal_to_the_last_word_and_cover_every_command_run_as_root(host: FakeHost) -> None:
    here = instance(list_as_root=True, flush_as_root=True)
    lines = POSTFIX.sudoers(here, "fleetops")
    assert not [line for line in lines if re.search(r"(?<!\\)[*?\[]", line)]
    host.drive(POSTFIX.message_show(here, MessageShow("AAAAAA1"), context()))
    host.on_attempt = lambda host, name: host.log.append(sent(name, "deferred", "451 later"))
    host.drive(POSTFIX.message_deliver(here, MessageDeliver("AAAAAA3", release=True), context()))
    for command in (each for each in host.commands if each.become):
        program = (f"/usr/local/libexec/mxfleet/{command.script}",) if command.script else ()
        words = " ".join(("/usr/bin/timeout -k 5", str(command.timeout), *program, *command.argv))
        assert f"fleetops ALL=(root) NOPASSWD: {words}" in lines
