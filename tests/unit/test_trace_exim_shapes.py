"""message.trace and message.deliver of Exim: lines of all documented shapes, with all of log_selector's fields."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fleet.match import parse
from fleet.mta.errors import Unsupported
from fleet.mta.exim import Exim
from fleet.mta.exim.attempt import attempt_result, attempts_of
from fleet.mta.exim.discovery import log_zone
from fleet.mta.exim.logs import Lines
from fleet.mta.exim.parse import StreamedEntry
from fleet.mta.exim.queue import QUEUE
from fleet.mta.logs.rows import Trace
from fleet.mta.logs.source import Window
from fleet.mta.logs.wanted import Wanted
from fleet.mta.operations import LogSearch, MessageTrace
from fleet.mta.records import QueueEntry, Recipient
from tests.unit.exim_host import INSTANCE
from tests.unit.log_host import LogHost

ID = "1abcDE-0004Fg-2H"
CAME = f"{ID} <= s@x.example H=mx.x.example [192.0.2.5] P=esmtp S=2100 id=m1@x.example"
DONE = f"{ID} Completed"

Told = list[tuple[str, str, str]]


def rows_of(*lines: str, **criteria: Any) -> list[dict[str, Any]]:
    trace = Trace(Wanted.of(MessageTrace(**criteria or {"sender": "*"}), str), Window(0, 1000))
    parser = Lines(trace)
    for time, line in enumerate(lines):
        parser.take(time, line)
    return trace.rows()


def told(*lines: str, **criteria: Any) -> Told:
    """(recipient, orig_to, status) of the rows."""
    rows = rows_of(*(line if line.startswith((ID, "H=", "[")) else f"{ID} {line}" for line in lines), **criteria)
    return sorted((row["recipient"], row["orig_to"], row["status"]) for row in rows)


def test_a_sender_and_a_return_path_are_no_part_of_the_recipient() -> None:
    lines = [
        "[90495] 1ZWnkk-000NXb-1K <= app@a.example U=web P=local S=1727 id=ogm-39@a.example "
        'T="hello" from <app@a.example> for team@b.example',
        "[90497] 1ZWnkk-000NXb-1K => team@b.example F=<app@a.example> P=<app@a.example> R=dnslookup T=remote_smtp S=1 "
        'H=mx0.b.example [192.0.2.78]:25 X=TLS1.2:x:128 CV=no C="250 OK id=1" QT=2s DT=1s',
        "[90497] 1ZWnkk-000NXb-1K => joe <joe@a.example> F=<app@a.example> R=localuser T=maildir",
        "[90497] 1ZWnkk-000NXb-1K Completed QT=2s",
    ]
    rows = {row["recipient"]: row for row in rows_of(*lines)}
    assert {name: row["status"] for name, row in rows.items()} == {"team@b.example": "sent", "joe@a.example": "sent"}
    assert rows["team@b.example"]["relay"] == "mx0.b.example [192.0.2.78]:25"
    assert rows["team@b.example"]["reply"] == "250 OK id=1"
    assert len(rows_of(*lines, recipient="team@b.example")) == 1


def test_all_parents_are_read_and_the_first_is_the_original_recipient() -> None:
    line = (
        "-> ann@b.example (team@a.example, all@a.example) <sales@a.example> R=dnslookup T=remote_smtp "
        'H=mx.b.example [192.0.2.9] C="250 ok"'
    )
    assert told(CAME, line, recipient="ann@b.example") == [("ann@b.example", "sales@a.example", "sent")]


@pytest.mark.parametrize("colon", [":", " :"])
def test_a_blank_before_the_colon_is_no_part_of_the_recipient(colon: str) -> None:
    line = f"** nobody@d.example{colon} Unrouteable address"
    assert told(CAME, line, recipient="nobody@d.example") == [("nobody@d.example", "", "bounced")]


def test_a_message_id_of_exims_own_is_found() -> None:
    name = "E1tixMn-00000000C5j-1wRa@mail.a.example"
    line = f"1tixMn-00000000C5j-1wRa <= root@a.example U=root P=local S=362 id*={name}"
    [row] = rows_of(line, message_id=name)
    assert (row["message_id"], row["status"]) == (name, "queued")


def test_what_was_thrown_away_is_discarded() -> None:
    lines = [CAME, "=> :blackhole: <spam@d.example> R=system_aliases", DONE]
    assert told(*lines) == told(*lines, recipient="spam@d.example") == [("spam@d.example", "", "discarded")]


SHAPES: list[tuple[list[str], Told]] = [
    # what ends or parks a mail
    (["=> /dev/null <u@d.example> R=userforward T=**bypassed**"], [("u@d.example", "", "discarded")]),
    (["=> discarded <u@d.example> R=userforward", "Completed"], [("u@d.example", "", "discarded")]),
    (["=> blackhole (DATA ACL discarded recipients): spam", "Completed"], [("", "", "discarded")]),
    (["=> blackhole *as local_scan() says*", "Completed"], [("", "", "discarded")]),
    (["=> blackhole <blackhole@d.example> R=local T=mail"], [("blackhole@d.example", "", "sent")]),
    (["=> discarded (system filter)", "Completed"], [("", "", "discarded")]),
    (["*> r@d.example R=r T=t H=mx.d.example:mx2.d.example"], [("r@d.example", "", "discarded")]),
    (["** r@d.example: retry timeout exceeded"], [("r@d.example", "", "expired")]),
    (["== r@d.example R=r defer (-1): x", "cancelled by timeout_frozen_after"], [("r@d.example", "", "expired")]),
    (["cancelled by root", "Completed"], [("", "", "expired")]),
    (["Frozen (delivery error message)"], [("", "", "held")]),
    (["frozen by ACL", "Unfrozen by forced delivery"], [("", "", "queued")]),
    (["moved from input, msglog to mxfleet-1 input, mxfleet-1 msglog"], [("", "", "held")]),
    (["moved from input, msglog to (q) input, msglog", "moved from (q) input, msglog to input, msglog"],
     [("", "", "queued")]),
    (["rescind the above message-accept"], [("", "", "rejected")]),
    (["removed by root", "Completed"], [("", "", "removed")]),
    (["== r@d.example R=r T=t defer (-44): x", "address <r@d.example> marked delivered by root", "Completed"],
     [("r@d.example", "", "removed")]),
    (["** r@d.example mua_wrapper forced failure for deferred delivery"], [("r@d.example", "", "bounced")]),
    (["** mua_wrapper is set but recipients cannot all be delivered in one transaction"], [("", "", "bounced")]),
    # what tells no fate
    (["no immediate delivery: queued by ACL", "Message is frozen", "Spool file is locked (x)"], [("", "", "queued")]),
    (["H=mx.d.example [192.0.2.9]: SMTP error from remote mail server after end of data: 450 rejected RCPT x"],
     [("", "", "queued")]),
    (["** u@d.example: Unrouteable address", "u@d.example: error ignored"], [("u@d.example", "", "bounced")]),
    # forms of addresses and fields
    (['>> r@d.example F=<s@x.example> R=all T=smtp H=[192.0.2.9] PRX=[192.0.2.1] I=[192.0.2.1]:4 TFO L* K C="250 x"'],
     [("r@d.example", "", "sent")]),
    (['-> r@d.example Q=later R=all T=smtp H=mx.d.example DS [192.0.2.9]:25* PS=x A=p:joe blow L- DN="a \\" R=b"'],
     [("r@d.example", "", "sent")]),
    (["=> joe <joe@d.example> R=local T=maildir ST=copy (error opening it)"], [("joe@d.example", "", "sent")]),
    (["=> |/bin/x -a \"b c\" (vac@d.example) <joe@d.example> R=forward T=pipe"], [("joe@d.example", "", "sent")]),
    (["=> >s@x.example <joe@d.example> R=vacation T=reply", "=> joe <joe@d.example> R=local T=maildir"],
     [(">s@x.example", "joe@d.example", "sent"), ("joe@d.example", "", "sent")]),
    (["** |/bin/a <list@d.example> R=f T=pipe: no", "=> |/bin/b <list@d.example> R=f T=pipe"],
     [("|/bin/a", "list@d.example", "bounced"), ("|/bin/b", "list@d.example", "sent")]),
    (["=> joe <team@d.example> R=local T=m", "=> ann <team@d.example> R=local T=m"],
     [("ann", "team@d.example", "sent"), ("joe", "team@d.example", "sent")]),
    (["== team@d.example R=aliases defer (-1): lookup", "=> joe@b.example <team@d.example> R=r T=t", "Completed"],
     [("joe@b.example", "team@d.example", "sent")]),
    (["=> joe <joe@d.example> R=a T=b", "== mid@d.example <all@d.example> R=aliases defer (-1): lookup",
      "=> ann@b.example <all@d.example> R=r T=t", "Completed"],
     [("ann@b.example", "all@d.example", "sent"), ("joe@d.example", "", "sent")]),
    (["=> a b@d.example <\"a b\"@d.example> R=r T=t"], [('"a b"@d.example', "", "sent")]),
    (['** a b@d.example <"a b"@d.example> R=r H=h.x [192.0.2.9]: RCPT TO:<"a b"@d.example>: 550 <"a b"@d.example>: no'],
     [('"a b"@d.example', "", "bounced")]),
    (["=> joe@[IPv6:2001:db8::1] R=r T=t"], [("joe@[IPv6:2001:db8::1]", "", "sent")]),
    (["== r@d.example R=r T=t defer (111): Connection refused H=mx.d.example [192.0.2.9] DT=1s: text"],
     [("r@d.example", "", "deferred")]),
    (["== r@d.example routing defer (-51): retry time not reached"], [("r@d.example", "", "deferred")]),
]  # fmt: skip


@pytest.mark.parametrize(("lines", "expected"), SHAPES, ids=range(len(SHAPES)))
def test_shapes_of_exims_lines(lines: list[str], expected: Told) -> None:
    assert told(CAME, *lines) == expected


def test_a_client_that_was_told_otherwise_has_a_message_all_the_same() -> None:
    [row] = rows_of(CAME.replace("<=", "(="), f"{ID} => r@d.example R=r T=t")
    assert (row["sender"], row["status"], row["client"]) == ("s@x.example", "sent", "mx.x.example [192.0.2.5]")


def test_a_delivery_that_is_logged_before_its_arrival_is_the_same_message() -> None:
    [row] = rows_of(f'{ID} >> r@d.example R=r T=t H=h.x [192.0.2.9] C="250 ok"', CAME, DONE)
    assert (row["sender"], row["recipient"], row["status"]) == ("s@x.example", "r@d.example", "sent")


def test_recipients_that_are_logged_at_arrival_are_queued_until_an_attempt() -> None:
    came = f'{CAME} T="to be for x@y.example" from <s@x.example> for a@d.example b@d.example'
    assert told(came) == [("a@d.example", "", "queued"), ("b@d.example", "", "queued")]
    assert told(came, "Frozen", "removed by root") == [("a@d.example", "", "removed"), ("b@d.example", "", "removed")]
    assert told(came, "=> a@d.example R=r T=t") == [("a@d.example", "", "sent")]


PEER = "H=c.example (helo) [192.0.2.4]"
H = f"{PEER}:5 I=[192.0.2.1]:25 Ci=p12 X=TLS1.3:x:256 CV=no"
S, R = "s@c.example", "r@d.example"
BIG = "message too big: size=9 max=8"
REFUSALS: list[tuple[str, tuple[str | None, str, str]]] = [
    (f"{H} F=<{S}> A=login:joe rejected RCPT <{R}>: 550 5.7.1 no", (S, R, "550 5.7.1 no")),
    (f"{H} F=<{S}> temporarily rejected RCPT {R}: greylisted", (S, R, "greylisted")),
    (f"{H} rejected MAIL <{S}>: no", (S, "", "no")),
    (f"{H} rejected EHLO or HELO c.example: no", (None, "", "no")),
    (f'{H} rejected connection in "connect" ACL: no', (None, "", "no")),
    (f"{H} F=<{S}> rejected DATA: no", (S, "", "no")),
    (f"{ID} {H} F=<{S}> rejected after DATA: spam", (S, "", "spam")),
    (f"{ID} {H} F=<{S}> rejected during MIME ACL checks: exe", (S, "", "exe")),
    (f"{ID} F={S} {H} P=esmtp rejected by local_scan(): no", (S, "", "no")),
    (f"{ID} rejected from <{S}> {PEER}: {BIG}", (S, "", BIG)),
    (f"rejected MAIL FROM:<{S}> {PEER}: {BIG}", (S, "", BIG)),
    (f"too many recipients: message rejected: sender=<{S}> {PEER}", (S, "", "message rejected")),
    ("refused connection from c.example (helo) [192.0.2.4] (by host)", (None, "", "(by host)")),
    (f"{H} dropped by 'connect' ACL: no", (None, "", "'connect' ACL: no")),
    (f'{ID} {PEER} {R} F=<{S}> P=<{S}> rejected after DATA: R=a T=t H=h.x [192.0.2.9] C="550 no"', (S, R, "550 no")),
]


@pytest.mark.parametrize(("line", "expected"), REFUSALS)
def test_everything_that_refuses_mail_is_a_row(line: str, expected: tuple[str | None, str, str]) -> None:
    [row] = rows_of(line, recipient="*")
    assert (row["sender"], row["recipient"], row["reply"]) == expected
    assert (row["status"], row["client"]) == ("rejected", "c.example (helo) [192.0.2.4]")


def test_a_recipient_that_an_acl_discards_is_discarded() -> None:
    line = "H=(h) [192.0.2.4] F=<s@c.example> RCPT <r@d.example>: discarded by RCPT ACL: spam"
    assert told(line, recipient="r@d.example") == [("r@d.example", "", "discarded")]


@pytest.mark.parametrize(
    "line",
    [
        "H=(h) [192.0.2.4] rejected VRFY a@b.example",
        "H=(h) [192.0.2.4] rejected AUTH plain: STARTTLS required",
        "H=(h) [192.0.2.4] sender verify fail for <s@x.example>: response to RCPT was: 550 rejected RCPT",
        f"{ID} H=mx.d.example [192.0.2.9]: SMTP error from remote mail server after end of data: 550 message rejected",
    ],
)
def test_what_is_no_mail_gives_no_row(line: str) -> None:
    assert rows_of(line, recipient="*") == []


@pytest.mark.parametrize(
    "line",
    [
        '=> v@d.example R=r T=t @e.example <"v@d.example R=r T=t "@e.example> R=dns T=smtp H=h.x [192.0.2.9]',
        '** v@d.example : no@e.example <"v@d.example : no"@e.example> : Unrouteable address',
        '=> a b@d.x <"a b"@d.x> R=r T=t C=x@d.x <"a b@d.x <\\"a b\\"@d.x> R=r T=t C=x"@d.x> R=r T=t',
        '=> r@d.example R=r T=t H=h.x [192.0.2.9] H=evil.x [192.0.2.66] C="250 ok"',
        "=> r@d.example, relay=x R=r T=t",
        "=> /m/x <a@d.example> R=r T=t/y <b@d.example> R=r T=t",
        "== r@d.example R=r T=t something else",
        '=> r@d.example R=r T=t (x) C="250',
    ],
)
def test_a_line_that_could_be_read_in_two_ways_is_unclear_with_the_line(line: str) -> None:
    [row] = rows_of(CAME, f"{ID} {line}", DONE)
    assert (row["status"], row["recipient"], row["reply"]) == ("unclear", "", line)


def test_a_line_that_syslog_cut_is_read_as_far_as_it_goes() -> None:
    head = "mx1 exim[12]: [1/2] 2026-11-21 12:00:00 "
    lines = [f'{CAME} T="long', f'{ID} => r@d.example R=r T=t H=h.x [192.0.2.9] C="250 lo', "mx1 exim[12]: [2/2] ng"]
    rows = rows_of(*(head + line for line in lines[:2]), lines[2])
    assert [(row["sender"], row["recipient"], row["status"]) for row in rows] == [
        ("s@x.example", "r@d.example", "sent")
    ]


@pytest.mark.timeout(10)
@pytest.mark.parametrize(
    "line",
    [
        "=> " + ' <"a"@b R=' * 6000, "=> |" + " (x <y> R=z" * 5000, "** a" + '"b' * 30_000, "<= a" + " U=x y" * 9000,
        "=> a@b" + " H=(x) [1] P=y" * 4000, "== a@b R=c defer (1): " + "x: " * 20_000,
        "H=(a) " + "[1] rejected RCPT <" * 3000,
    ],
)  # fmt: skip
def test_long_hostile_lines_are_given_up_at_once(line: str) -> None:
    assert {row["status"] for row in rows_of(f"{ID} {line}")} <= {"unclear", "bounced", "deferred", "queued"}


ALIAS = (
    "** ann@reject.example <team@d.example> R=dns T=smtp H=h.x [192.0.2.3]: SMTP error from remote mail server after "
    "RCPT TO:<ann@reject.example>: 550 5.1.1 no such user"
)
JOE = '=> joe@ok.example <team@d.example> R=dns T=smtp H=h.x [192.0.2.2] C="250 2.0.0 accepted"'
SENT = '=> joe@ok.example R=dns T=smtp H=h.x [192.0.2.2] C="250 2.0.0 accepted"'
UNROUTED = "** u1@nope.invalid: Unrouteable address"
ENTRY = QueueEntry(ID, "deferred", "queued", 1.0, "s@x.example", (Recipient("r@d.example", "", "undelivered"),), 1)


@pytest.mark.parametrize(
    ("lines", "outcome", "recipients"),
    [
        ([ALIAS, JOE], "bounced", {("ann@reject.example", "team@d.example"), ("joe@ok.example", "team@d.example")}),
        ([JOE, ALIAS], "bounced", {("ann@reject.example", "team@d.example"), ("joe@ok.example", "team@d.example")}),
        ([UNROUTED, SENT], "bounced", {("u1@nope.invalid", ""), ("joe@ok.example", "")}),
        ([UNROUTED], "bounced", {("u1@nope.invalid", "")}),
        (["=> :blackhole: <trash@d.example> R=aliases"], "discarded", {("trash@d.example", "")}),
        (["=> discarded (system filter)"], "discarded", {("", "")}),
        (["** u@d.example : retry timeout exceeded"], "bounced", {("u@d.example", "")}),
        ([SENT, "** some form that nobody knows"], "left_queue", {("joe@ok.example", ""), ("", "")}),
    ],
)
def test_an_attempt_is_told_by_the_same_reader_and_its_worst_counts(
    lines: list[str], outcome: str, recipients: set[tuple[str, str]]
) -> None:
    said = [f"delivering {ID}", *(part for line in lines for part in ("LOG: MAIN", f"  {line}")), "ended"]
    result = attempt_result(ENTRY, None, said)
    assert result.data["outcome"] == outcome
    assert {(each["address"], each["orig_to"]) for each in result.data["recipients"]} == recipients
    assert {each["remote"] for each in result.data["recipients"]} <= {"", "h.x [192.0.2.3]", "h.x [192.0.2.2]"}


def test_the_reply_of_an_attempt_is_the_remote_hosts() -> None:
    assert {each.reply for each in attempts_of([ALIAS, JOE])} == {"550 5.1.1 no such user", "250 2.0.0 accepted"}


@pytest.mark.parametrize(
    ("zone", "stamp"),
    [("Asia/Tokyo", "2026-11-22 04:39:36"), ("UTC", "2026-11-21 19:39:36"), ("", "2026-11-21 20:39:36")],
)
def test_stamps_of_exims_own_time_zone_are_the_moments_they_mean(zone: str, stamp: str, tmp_path: Path) -> None:
    host = LogHost("exim", tmp_path, {"log_zone": zone, "TZ": "Europe/Berlin"})
    host.put("mainlog", f"{stamp} {CAME}\n".encode())
    [row] = host.data(Exim.message_trace, MessageTrace(sender="s@x.example"), "mainlog")["rows"]
    [line] = host.data(Exim.log_search, LogSearch(contains="s@x.example"), "mainlog")["lines"]
    assert row["arrival_time"] == line["time"] == 1_795_289_976


@pytest.mark.parametrize(
    ("logs", "zone", "expected"),
    [
        ("/var/log/exim4/%slog", "Asia/Tokyo", "Asia/Tokyo"), ("syslog : /var/log/%slog", "UTC", "UTC"),
        ("syslog", "UTC", ""), ("/var/log/%slog", "", ""), ("/var/log/%slog", "$(id)", ""),
    ],
)  # fmt: skip
def test_a_zone_is_known_where_exim_writes_the_stamps_itself(logs: str, zone: str, expected: str) -> None:
    assert log_zone({"log_file_path": logs, "timezone": zone}) == expected


def test_the_reason_of_a_recipient_in_capitals_is_found() -> None:
    log = (
        "r@defer.test R=dnslookup T=remote_smtp defer (-44) H=mx.defer.test [192.0.2.2]: SMTP error from remote mail "
        "server after RCPT TO:<r@DEFER.TEST>: 451 4.7.1 try later"
    )
    for address in ("r@DEFER.TEST", "r@defer.test"):
        record = f"1xUMSQ-00005F-0r 1795172826 0 0 782 queued\nF <s@c.example>\nR {address}\nL {log}"
        assert StreamedEntry(record.encode()).recipients[0].reason.endswith("451 4.7.1 try later")
    other = "1xUMSQ-00005F-0r 1795172826 0 0 782 queued\nF <s@c.example>\nR R@defer.test\nL " + log
    assert StreamedEntry(other.encode()).recipients[0].reason == ""


@pytest.mark.parametrize("match", ["reason~later", "from:a@b.example OR NOT reason:x"])
def test_reasons_are_refused_where_the_instance_keeps_no_message_logs(match: str) -> None:
    without = replace(INSTANCE, options={**INSTANCE.options, "message_logs": False})
    QUEUE.check_fields(INSTANCE, parse(match))
    QUEUE.check_fields(without, parse("from:a@b.example size>1"))
    with pytest.raises(Unsupported, match=r"message_logs is off.*params\.match") as refused:
        QUEUE.check_fields(without, parse(match))
    assert refused.value.data == {"fields": ["reason"]}


OPTIONAL = ["F=<s@x.example>", "P=<s@x.example>", "S=99", "X=TLS1.3:x:256", "CV=yes", 'DN="/CN=a b"', "A=p:me", "L",
            "K", "QT=2s", "DT=1s", "I=[192.0.2.1]:4", "PRX=[192.0.2.2]", "DKIM=d.example", "NEW=1", "TFO*"]  # fmt: skip


@settings(max_examples=60, deadline=None)
@given(st.data())
def test_optional_fields_in_any_order_change_no_row(data: st.DataObject) -> None:
    def line(head: str, *needed: str, tail: str = "") -> str:
        some = data.draw(st.lists(st.sampled_from(OPTIONAL), unique=True, max_size=8))
        return " ".join([f"{ID} {head}", *data.draw(st.permutations([*needed, *some]))]) + tail

    colon = data.draw(st.sampled_from([":", " :"]))
    parents = data.draw(st.sampled_from(["", " (mid@d.example)", " (mid@d.example, low@d.example)"]))
    came = ["H=mx.x.example (h) [192.0.2.5]:9", "id=m1@x.example", "CIPHER=x"]
    ends = [
        line("=> r1@a.example", "R=r", "T=t", "H=a.x [192.0.2.9]", 'C="250 R=x \\"T=y\\""'),
        line(f"=> r2@a.example{parents} <team@d.example>", "R=r", "T=t", "H=a.x [192.0.2.9]:25*"),
        line(f"** r3@a.example{parents} <team@d.example>", "R=r", "T=t", tail=f"{colon} 550 5.1.1 H=x F=<y> no"),
        line("=> joe <joe@d.example>", "R=r", "T=t"),
        line("=> :blackhole: <bin@d.example>", "R=r"),
    ]
    deferred = [f"{ID} == r1@a.example R=r T=t defer (-44) H=a.x [192.0.2.9]{colon} 451 later"] * 2
    head = f"{ID} <= s@x.example " + " ".join(data.draw(st.permutations(came)))
    rows = rows_of(
        head, *deferred, *data.draw(st.permutations(ends)), data.draw(st.sampled_from([DONE, f"{DONE} QT=9s"]))
    )
    assert sorted((row["recipient"], row["orig_to"], row["status"], row["client"]) for row in rows) == [
        (address, orig_to, status, "mx.x.example (h) [192.0.2.5]")
        for address, orig_to, status in (
            ("bin@d.example", "", "discarded"),
            ("joe@d.example", "", "sent"),
            ("r1@a.example", "", "sent"),
            ("r2@a.example", "team@d.example", "sent"),
            ("r3@a.example", "team@d.example", "bounced"),
        )
    ]  # fmt: skip
