"""message.trace and message.deliver: every shape of qmail-send's and mailfront's logs; addresses of virtual domains."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fleet import match
from fleet.mta.logs.rows import Trace
from fleet.mta.logs.source import Window
from fleet.mta.logs.wanted import Wanted
from fleet.mta.operations import MessageTrace, QueueList, QueuePurge, Selection
from fleet.mta.qmail import Qmail
from fleet.mta.qmail.address import recipient_of
from fleet.mta.qmail.attempt import attempt_result, attempts_of, returned
from fleet.mta.qmail.discovery import local_domains, virtual_domains
from fleet.mta.qmail.logs import Lines
from fleet.mta.qmail.virtual import Virtual
from fleet.mta.records import QueueEntry
from tests.unit.log_host import LogHost
from tests.unit.qmail_host import QmailHost, context

STAMP = "@400000006b018a7135d929f4 "
NEW = ("new msg 3245", "info msg 3245: bytes 371 from <s@c.example> qp 180 uid 7791")
RAW = "d.example-r@d.example"
DOMAINS = [["d.example", "d.example"], ["e.example", "alias-e"], ["joe@f.example", "joe"], [".g.example", "g"],
           ["not.g.example", ""]]  # fmt: skip
VIRTUAL = Virtual(frozenset({"mx1.example"}), dict(map(tuple, DOMAINS)), {"f.example": {"joe"}})


def traced(directory: Path, *lines: str, front: tuple[str, ...] = (), **criteria: Any) -> dict[str, Any]:
    host = LogHost("qmail", directory)
    host.options = {"virtual_domains": DOMAINS, "local_domains": ["mx1.example"]}
    host.put("mail.log", "".join(f"{STAMP}{line}\n" for line in lines).encode())
    if front:
        host.put("front.log", "".join(f"{STAMP}{line}\n" for line in front).encode())
        host.options["front_end_logs"] = [str(directory / "front.log")]
    return host.data(Qmail.message_trace, MessageTrace(**criteria or {"recipient": "*"}))


def told(data: dict[str, Any], *names: str) -> list[tuple[str, ...]]:
    return [tuple(row[name] for name in names or ("recipient", "status")) for row in data["rows"]]


@pytest.mark.parametrize("searched", ["r@d.example", RAW, "*@d.example"])
def test_mail_to_a_virtual_domain_is_traced_by_the_address_that_people_know(searched: str, tmp_path: Path) -> None:
    lines = (*NEW, f"starting delivery 1: msg 3245 to local {RAW}", "delivery 1: success: did_1+0+0/", "end msg 3245")
    data = traced(tmp_path, *lines, recipient=searched)
    assert told(data, "recipient", "orig_to", "status") == [("r@d.example", RAW, "sent")]


@pytest.mark.parametrize(
    ("stored", "known"),
    [
        (RAW, "r@d.example"),
        ("D.example-r@D.example", "D.example-r@D.example"),
        ("d.example-R-x@D.Example", "R-x@D.Example"),
        ("alias-e-r@e.example", "r@e.example"),
        ("joe-joe@f.example", "joe@f.example"),
        ("joe-ann@f.example", "joe-ann@f.example"),
        ("g-r@sub.g.example", "r@sub.g.example"),
        ("g-r@g.example", "g-r@g.example"),
        ("g-r@not.g.example", "g-r@not.g.example"),
        ("d.example-r@mx1.example", "d.example-r@mx1.example"),
        ("r@d.example", "r@d.example"),
        ("root", "root"),
    ],
)
def test_an_address_of_a_virtual_domain_is_known_by(stored: str, known: str) -> None:
    assert VIRTUAL.known(stored) == known


def test_an_address_that_two_others_may_have_become_stays_as_it_is() -> None:
    twice = Virtual(prepends={"d.example": "a", "x@d.example": "a-b"}, of_users={"d.example": {"a-b"}})
    assert twice.known("a-b-x@d.example") == "a-b-x@d.example"
    assert twice.known("a-b-y@d.example") == "b-y@d.example"


def test_discovery_tells_what_qmail_send_rewrites_by() -> None:
    control = {"me": ["mx1.example", "x"], "virtualdomains": ["d.example:d.example", "not.g.example:", "no line"]}
    assert virtual_domains(control) == [["d.example", "d.example"], ["not.g.example", ""]]
    assert local_domains(control) == ["mx1.example"]
    assert local_domains({**control, "locals": ["A.example"]}) == ["a.example"]


@pytest.mark.parametrize(
    ("report", "expected"),
    [
        ("success: 192.0.2.9_accepted_message./Remote_host_said:_250_2.0.0_ok/", ("sent", "192.0.2.9", "2.0.0")),
        ("success: ", ("sent", "", "")),
        ("deferral: 2001:db8::9_does_not_like_recipient./Remote_host_said:_451_4.7.1_later/",
         ("deferred", "2001:db8::9", "4.7.1")),
        ("deferral: CNAME_lookup_failed_temporarily._(#4.4.3)/", ("deferred", "", "4.4.3")),
        ("report mangled, will defer", ("deferred", "", "")),
        ("failure: 192.0.2.9_does_not_like_recipient./Remote_host_said:_550-5.1.1_no/550_5.1.1_such/Giving_up./",
         ("bounced", "192.0.2.9", "5.1.1")),
        ("failure: Connected_to_192.0.2.9_but_greeting_failed./I'm_not_going_to_try_again;_too_long._(#4.4.2)/",
         ("expired", "", "4.4.2")),
        ("what is this", ("unclear", "", "")),
    ],
)  # fmt: skip
def test_how_a_delivery_ends(report: str, expected: tuple[str, str, str], tmp_path: Path) -> None:
    data = traced(tmp_path, *NEW, "starting delivery 7: msg 3245 to remote r@b.example", f"delivery 7: {report}")
    assert told(data, "status", "relay", "dsn") == [expected]


def test_a_double_bounce_that_fails_is_thrown_away(tmp_path: Path) -> None:
    lines = (
        "new msg 9", "info msg 9: bytes 1 from <#@[]> qp 3 uid 1",
        "starting delivery 1: msg 9 to local root@mx1.example",
        "delivery 1: failure: Sorry,_no_mailbox_here_by_that_name._(#5.1.1)/",
        "triple bounce: discarding bounce/9", "end msg 9",
    )  # fmt: skip
    for criteria in ({"recipient": "*"}, {"recipient": "root@mx1.example"}):
        assert told(traced(tmp_path, *lines, **criteria), "sender", "status") == [("#@[]", "discarded")]


def test_a_bounce_is_a_message_of_the_null_sender(tmp_path: Path) -> None:
    lines = ("bounce msg 3245 qp 181", "new msg 9", "info msg 9: bytes 1 from <> qp 181 uid 1",
             "starting delivery 2: msg 9 to remote s@c.example", "delivery 2: success: ok/", "end msg 9")  # fmt: skip
    assert told(traced(tmp_path, *lines, sender="<>"), "recipient", "status") == [("s@c.example", "sent")]


def test_a_delivery_goes_on_after_qmail_send_was_started_again(tmp_path: Path) -> None:
    lines = (
        *NEW, "starting delivery 1: msg 3245 to remote r@b.example", "delivery 1: deferral: later/",
        "status: exiting", "status: local 0/10 remote 0/40",
        "starting delivery 1: msg 3245 to remote r@b.example", "delivery 1: success: ok/", "end msg 3245",
    )  # fmt: skip
    assert told(traced(tmp_path, *lines)) == [("r@b.example", "sent")]


CONNECTED = ("tcpserver: pid 9 from 192.0.2.4", "mailfront[9]: MAIL FROM:<s@c.example>")


@pytest.mark.parametrize(
    ("said", "rows"),
    [
        (["tcpserver: pid 9 from 192.0.2.4", "mailfront[9]: 553 5.7.1 listed"], [("", "553 5.7.1 listed")]),
        (["rblsmtpd: 192.0.2.4 pid 9: 451 listed"], [("", "451 listed")]),
        ([CONNECTED[0], "tcpserver: deny 9 mx1:192.0.2.1:25 :192.0.2.4::4711"],
         [("", "tcpserver: deny 9 mx1:192.0.2.1:25 :192.0.2.4::4711")]),
        ([*CONNECTED, "mailfront[9]: 553 5.1.0 not you"], [("", "553 5.1.0 not you")]),
        ([*CONNECTED, "mailfront[9]: RCPT TO:<r@d.example>", "mailfront[9]: 550 5.1.1 first",
          "mailfront[9]: 550 second"],
         [("r@d.example", "550 5.1.1 first")]),
        ([*CONNECTED, "mailfront[9]: RCPT TO:<r@d.example>", "mailfront[9]: 550 5.1.1 no",
          "mailfront[9]: RCPT TO:<q@d.example>", "mailfront[9]: 550 5.1.1 no"],
         [("r@d.example", "550 5.1.1 no"), ("q@d.example", "550 5.1.1 no")]),
        ([*CONNECTED, "mailfront[9]: RCPT TO:<r@d.example>", "mailfront[9]: 554 5.7.1 virus"],
         [("r@d.example", "554 5.7.1 virus")]),
        ([*CONNECTED, "mailfront[9]: 503 5.5.1 You must send RCPT TO: first"], []),
        (["tcpserver: pid 9 from 192.0.2.4", "mailfront[9]: 535 5.7.0 Authentication failed"], []),
    ],
)  # fmt: skip
def test_what_the_front_end_refuses(said: list[str], rows: list[tuple[str, str]], tmp_path: Path) -> None:
    data = traced(tmp_path, *NEW[:0], "status: local 0/10", front=tuple(said), recipient="*")
    found = told(data, "recipient", "reply")
    assert sorted(found) == sorted(rows)
    assert {row["client"] for row in data["rows"]} <= {"192.0.2.4"}


@pytest.mark.parametrize("is_new", [True, False])
def test_a_recipient_of_a_virtual_domain_is_listed_and_purged_before_and_after_it_is_rewritten(
    is_new: bool, tmp_path: Path
) -> None:
    host = QmailHost(tmp_path)
    record = b"Tr@d.example" if is_new else b"T" + RAW.encode()
    name = host.put(is_new=is_new, remote=(), local=[record])
    other = host.put(remote=[b"Tq@d.example"])
    instance = replace(host.instance, options={**host.instance.options, "virtual_domains": DOMAINS})
    chosen = match.parse("to:r@d.example")
    try:
        [entry] = host.carry(Qmail().queue_list(instance, QueueList(chosen), context())).data["entries"]
        shown = {"address": "r@d.example", "reason": "", "state": "undelivered"}
        assert entry["recipients"] == [shown if is_new else {**shown, "raw": RAW}]
        host.carry(Qmail().queue_purge(instance, QueuePurge(Selection(match=chosen)), context()))
        assert (name in host.entries(), other in host.entries()) == (False, True)
    finally:
        host.remove_state()


def test_what_is_no_utf8_has_no_other_form() -> None:
    assert recipient_of(b"d.example-\xff@d.example", "undelivered", VIRTUAL).raw == ""


BEFORE = QueueEntry("3245", "deferred", "queued", 1.0, "s@c.example", (), 371)
STARTED = (f"starting delivery 4: msg 3245 to local {RAW}", "starting delivery 5: msg 3245 to remote x@b.example")
SENT, FAILED = "delivery 4: success: did_1/", "delivery 5: failure: 192.0.2.9_no./Remote_host_said:_550_5.1.1_no/"


@pytest.mark.parametrize("before", [STAMP, "Nov 21 12:00:01 mx1 qmail: 1795262400.123456 ", ""])
@pytest.mark.parametrize("ends", [(SENT, FAILED), (FAILED, SENT)])
def test_of_two_recipients_the_worst_counts(before: str, ends: tuple[str, ...]) -> None:
    lines = [before + line for line in (*STARTED, *ends, "bounce msg 3245 qp 418", "end msg 3245")]
    data = attempt_result(BEFORE, None, lines, VIRTUAL).data
    assert data["outcome"] == "bounced"
    assert {(each["address"], each["orig_to"], each["outcome"], each["remote"]) for each in data["recipients"]} == {
        ("r@d.example", RAW, "sent", ""),
        ("x@b.example", "", "bounced", "192.0.2.9"),
    }
    assert returned(lines) == {"3245"}


def test_a_number_that_comes_again_takes_no_other_deliverys_end() -> None:
    lines = [*STARTED, "starting delivery 5: msg 99 to remote y@b.example", FAILED]
    assert [each.outcome for each in attempts_of(lines, "3245")] == ["", ""]


EVENTS = {
    "sent": "success: 192.0.2.9_accepted_message./",
    "deferred": "deferral: later/",
    "bounced": "failure: no/",
    "expired": "failure: no/I'm_not_going_to_try_again/",
}
NOISE = (
    "status: local 0/10 remote 0/40",
    "warning: unable to stat mess/1",
    "bounce msg 3245 qp 9",
)
HISTORIES = st.lists(st.tuples(st.sampled_from("abc"), st.sampled_from(sorted(EVENTS))), min_size=1, max_size=6)


@settings(max_examples=60, deadline=None)
@given(HISTORIES, st.data())
def test_a_history_gives_the_same_rows_whatever_stands_between_its_lines(
    history: list[tuple[str, str]], data: st.DataObject
) -> None:
    trace = Trace(Wanted.of(MessageTrace(sender="*"), str), Window(0, 1000))
    lines = Lines(trace, VIRTUAL)
    number = data.draw(st.integers(1, 3))
    told_lines = list(NEW)
    for user, event in history:
        channel = "local d.example-" if user == "c" else "remote "
        told_lines.append(f"starting delivery {number}: msg 3245 to {channel}{user}@d.example")
        told_lines += data.draw(st.lists(st.sampled_from(NOISE), max_size=2))
        told_lines.append(f"delivery {number}: {EVENTS[event]}")
        number = data.draw(st.sampled_from([1, number + 1]))  # 1: qmail-send was started again
    head = data.draw(st.sampled_from(["", "mx1 qmail: 1795262400.123456 "]))
    for at, line in enumerate(told_lines):
        lines.take(1.0 + at, head + line)
    expected = {
        (f"{user}@d.example", "d.example-c@d.example" if user == "c" else "", event)
        for user, event in dict(history).items()
    }
    assert {(row["recipient"], row["orig_to"], row["status"]) for row in trace.rows()} == expected
    assert trace.unclear == 0
