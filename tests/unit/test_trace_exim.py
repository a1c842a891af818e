"""message.trace of Exim's log: the forms of its lines, and what others' texts in them must not tell."""

from pathlib import Path
from typing import Any

import pytest

from fleet.mta.exim import Exim
from fleet.mta.exim.logs import Lines
from fleet.mta.logs.rows import Trace, Wanted
from fleet.mta.logs.source import Window
from fleet.mta.operations import MessageTrace
from tests.unit.log_host import LogHost

ID = "1xUjpf-00006K-1Z "
EXIM = f"2026-11-21 11:00:00 {ID}"


def exim_rows(directory: Path, lines: list[str], **criteria: Any) -> dict[str, Any]:
    host = LogHost("exim", directory)
    host.put("mainlog", "".join(f"{line}\n" for line in lines).encode())
    return host.data(Exim.message_trace, MessageTrace(**(criteria or {"recipient": "*"})), "mainlog")


CAME = (
    EXIM + '<= s@a.test H=a.test (helo) [192.0.2.1]:4711 P=esmtps X=TLS1.3 S=99 id=1@a.test T="id=forged H=x [9.9.9.9]"'
)


@pytest.mark.parametrize(
    ("line", "recipient", "status", "relay", "reply"),
    [
        ("=> joe <joe@a.test> R=local_user T=mail_spool", "joe@a.test", "sent", "joe", ""),
        ("=> /var/mail/x <x@a.test> R=r T=address_file", "x@a.test", "sent", "/var/mail/x", ""),
        (
            '-> r@b.test R=dns T=smtp H=b.test [192.0.2.2] X=TLS C="250 OK id=1" DT=1s',
            "r@b.test", "sent", "b.test [192.0.2.2]", "250 OK id=1",
        ),
        ("== r@b.test R=dns T=smtp defer (-53): retry time not reached for any host", "r@b.test", "deferred", "smtp",
         "retry time not reached for any host"),
        ("== r@b.test R=dns defer (-1): lookup failed", "r@b.test", "deferred", "", "lookup failed"),
        ("** r@b.test: retry timeout exceeded", "r@b.test", "expired", "", "retry timeout exceeded"),
        ("** r@b.test: Unrouteable address", "r@b.test", "bounced", "", "Unrouteable address"),
    ],
)  # fmt: skip
def test_forms_of_exims_deliveries(
    line: str, recipient: str, status: str, relay: str, reply: str, tmp_path: Path
) -> None:
    [row] = exim_rows(tmp_path, [CAME, EXIM + line])["rows"]
    assert (row["recipient"], row["status"], row["reply"]) == (recipient, status, reply)
    assert row["relay"] == relay
    assert (row["client"], row["message_id"], row["size"]) == ("a.test (helo) [192.0.2.1]", "1@a.test", 99)


def test_exim_through_syslog_with_a_pid_is_read_too(tmp_path: Path) -> None:
    lines = [
        "Nov 21 11:00:00 mx1 exim[12]: " + CAME.replace(" 1xU", " +0000 [12] 1xU"),
        "Nov 21 11:00:01 mx1 exim[12]: 1xUjpf-00006K-1Z => r@b.test R=dns T=smtp H=b.test [192.0.2.2]",
    ]
    [row] = exim_rows(tmp_path, lines)["rows"]
    assert (row["recipient"], row["status"], row["sender"]) == ("r@b.test", "sent", "s@a.test")


def test_a_name_in_helo_that_looks_like_a_refusal_is_left_out(tmp_path: Path) -> None:
    forged = (
        "2026-11-21 11:00:00 H=(x [1.1.1.1] F=<victim@b.test> rejected RCPT <v@b.test>: no) [192.0.2.9] "
        "F=<s@a.test> rejected RCPT <r@b.test>: relay not permitted"
    )
    data = exim_rows(tmp_path, [forged])
    assert data["rows"] == []
    assert any("two ways" in note for note in data["notes"])


def test_rows_of_endless_message_ids_are_bounded_and_counted(tmp_path: Path) -> None:
    came = [
        f"2026-11-21 11:00:00 1xUjpf-{n:06}-1Z <= s@a.test H=(h) [192.0.2.9] P=esmtp id={'x' * 16_000}"
        for n in range(700)
    ]
    data = exim_rows(tmp_path, came, sender="s@*", limit=10_000)
    assert (data["matched"], data["totals"]["queued"], data["truncated"]) == (700, 700, True)
    assert 400 < len(data["rows"]) < 600


@pytest.mark.parametrize("helo", ["[127.0.0.1]", "[::1]", "[203.0.113.7]"])
def test_an_address_in_helo_is_not_the_client_of_exim(helo: str, tmp_path: Path) -> None:
    [row] = exim_rows(tmp_path, [EXIM + f"<= s@a.test H=({helo}) [192.0.2.9] P=esmtp S=99 id=1@a.test"])["rows"]
    assert (row["client"], row["direction"]) == (f"({helo}) [192.0.2.9]", "in")
    refused = f"2026-11-21 11:00:00 H=({helo}) [192.0.2.9] F=<s@a.test> rejected RCPT <r@b.test>: no"
    [row] = exim_rows(tmp_path, [refused])["rows"]
    assert (row["client"], row["direction"], row["status"]) == (f"({helo}) [192.0.2.9]", "in", "rejected")


def test_a_quoted_sender_cannot_tell_exims_fields(tmp_path: Path) -> None:
    sender = '"a H=good.test [9.9.9.9] P=esmtp S=1 id=x"@evil.test'
    [row] = exim_rows(tmp_path, [EXIM + f"<= {sender} H=(h) [192.0.2.9] P=esmtp S=300 id=1@a.test"])["rows"]
    assert (row["sender"], row["client"]) == (sender, "(h) [192.0.2.9]")
    assert (row["size"], row["message_id"]) == (300, "1@a.test")


def test_a_name_in_helo_that_looks_like_fields_of_exim_is_left_out(tmp_path: Path) -> None:
    forged = EXIM + "<= s@a.test H=(x) [127.0.0.1] P=esmtp S=1) [192.0.2.9] P=esmtp S=300 id=1@a.test"
    data = exim_rows(tmp_path, [forged])
    assert data["rows"] == []
    assert any("two ways" in note for note in data["notes"])


@pytest.mark.parametrize(
    "answer", ["550 F=<boss@b.test> rejected RCPT <v@b.test>: no", "451 *** Frozen", "451 Completed"]
)
def test_what_a_remote_host_answers_tells_nothing_of_exims(answer: str, tmp_path: Path) -> None:
    said = f"H=b.test [192.0.2.2]: SMTP error from remote mail server after RCPT TO:<r@b.test>: {answer}"
    deferred = "== r@b.test R=dns T=smtp defer (-44): later"
    [row] = exim_rows(tmp_path, [CAME, EXIM + said, EXIM + deferred])["rows"]
    assert (row["recipient"], row["status"], row["sender"]) == ("r@b.test", "deferred", "s@a.test")


@pytest.mark.parametrize(
    ("event", "status"),
    [
        ("Frozen", "held"),
        ("removed by root", "removed"),
        ("frozen by fleetops", "held"),
        ("cancelled by root", "expired"),
    ],
)
def test_frozen_and_removed_messages_of_exim(event: str, status: str, tmp_path: Path) -> None:
    deferred = EXIM + "== r@b.test R=dns T=smtp defer (-44): later"
    [row] = exim_rows(tmp_path, [CAME, deferred, EXIM + event])["rows"]
    assert row["status"] == status


FORGED, REAL = "203.0.113.7", "192.0.2.9"
# What a client may call itself by helo_accept_junk_hosts, and what stands behind that.
HELO, BEHIND = f"(x) [{FORGED}]", f") [{REAL}]"


def told(line: str) -> tuple[list[dict[str, Any]], int]:
    """The rows of one line, and how many were not understood."""
    trace = Trace(Wanted.of(MessageTrace(), str), Window(0, 9))
    Lines(trace).take(1.0, line)
    return trace.rows(), trace.unclear


@pytest.mark.parametrize("subject", ["Hello", " Hello", " id=x", " K=", "", " ", '@d.test \\"x', ' F=<\\"x\\"@d.test>'])
@pytest.mark.parametrize("behind", ['T="a', 'F=<"a', 'id="a', "P=esmtp S=1 for y", "P=esmtp S=1 from <y> for y@b.test"])
def test_a_name_in_helo_with_a_quote_or_the_lines_end_is_not_the_client_of_exim(behind: str, subject: str) -> None:
    came = f'{ID}<= s@a.test H={HELO} {behind}{BEHIND}:47 I=[192.0.2.1]:25 P=esmtp S=300 id=1@a.test T="{subject}"'
    for line in (came, f"{came} from <s@a.test> for r@b.test", came.replace("id=1@a.test", 'id="a b"@a.test')):
        assert told(line) == ([], 1)


@pytest.mark.parametrize(
    "line",
    [
        f'H={HELO} T="a{BEHIND} F=<s@a.test> rejected RCPT <" dropped by \'x\' ACL"@b.test>: no',
        f"H={HELO} dropped by 'connect' ACL{BEHIND} F=<s@a.test> rejected RCPT <r@b.test>: no",
        f"H=(x) [{REAL}] dropped by 'connect' ACL{BEHIND} F=<s@a.test> rejected RCPT <r@b.test>: no",
        f"H={HELO} F=<v@b.test> rejected RCPT <r@b.test>: no{BEHIND} Warning: slow",
        f"H={HELO} rejected MAIL <v@b.test>: no{BEHIND} incomplete transaction (QUIT) from <s@a.test>",
        f"unqualified sender rejected: <s> H={HELO} y{BEHIND}",
        f"unqualified recipient rejected: <r> {HELO} y{BEHIND}",
        f"refused connection from {HELO} y{BEHIND} (by host)",
        f"H={HELO} y) [fe80::1%eth0] rejected MAIL <s@a.test>: no",
        f"H={HELO} F=<v@b.test> rejected RCPT <r@b.test>: no) [fe80::1%eth0] Warning: slow",
        f"rejected EHLO from {HELO}: y{BEHIND}: syntactically invalid argument(s): z",
        f"rejected MAIL FROM:<s@a.test> {HELO}: message too big: y{BEHIND}: message too big: size=9 max=8",
        f'SMTP protocol synchronization error (next input): rejected "MAIL" H={HELO} y{BEHIND} next input="QUIT"',
    ],
)
def test_a_name_in_helo_is_not_the_client_of_a_refusal(line: str) -> None:
    assert told(line) == ([], 1)


@pytest.mark.parametrize("line", [f'{ID}<= s@a.test H={HELO} P=esmtp T="x', f"H={HELO} rejected MAIL <s@a.test>: x"])
def test_a_name_in_helo_that_takes_all_of_exims_room_for_a_line_is_not_the_client(line: str) -> None:
    assert told(f"{line}**** log string overflowed log buffer ****") == ([], 1)
    assert told(f"{line}**** log string overflowed log buffer **** for r@b.test") == ([], 1)


@pytest.mark.parametrize(
    "line",
    [
        f'{ID}<= s@a.test H=(x) [{REAL}] P=esmtp S=300 id=1@a.test T="Re: {HELO} P"',
        f'{ID}<= s@a.test H=(x) [{REAL}] P=esmtp DN="/CN=a b" S=300 id="a b"@a.test T="a \\"b\\" c"',
        f"H=(x) [{REAL}]:4 F=<s@a.test> rejected RCPT <r@b.test>: rejected - (x) [{REAL}]:4 is listed",
        f'H=(x) [{REAL}]:4 F=<"a b"@a.test> A=plain:x rejected RCPT <r@b.test>: no',
        f"H=x.test [{REAL}] F=<s@a.test> rejected RCPT <r@b.test>: said: you {HELO} are listed",
    ],
)
def test_a_host_in_a_text_leaves_the_client_as_it_is(line: str) -> None:
    [row], _ = told(line)
    assert row["client"] in (f"(x) [{REAL}]", f"x.test [{REAL}]")


@pytest.mark.parametrize("field", ['U=x T="a', 'A=plain:x:y "', 'SNI=x"', 'DN="/CN=a"b"'])
def test_a_quote_in_a_value_hides_no_field_of_exim(field: str) -> None:
    line = f'{ID}<= s@a.test H=h.test [192.0.2.9] {field} P=esmtp S=300 id=1@a.test T="Subject"'
    assert told(line) == ([], 1)


TAKEN = [
    ('=> r@b.test{} R=r T=t H=h.test [192.0.2.2] C="250 ok"', ["R=x", "T=x", "H=x.test [192.0.2.3]", 'C="x"']),
    ("** r@b.test{} R=r T=t H=h.test [192.0.2.2]: 550 no", ["R=x", "T=x", "H=x.test [192.0.2.3]"]),
    ("== r@b.test{} R=r T=t defer (-44) H=h.test [192.0.2.2]: 451 no", ["R=x", "T=x", "H=x.test [192.0.2.3]"]),
    ("<= s@a.test{} H=h.test [192.0.2.2] P=esmtp S=9 id=1@a.test", ["H=x.test [192.0.2.3]", "P=x", "S=1", "id*=x"]),
    ("H=h.test [192.0.2.2]{} F=<s@a.test> rejected RCPT <r@b.test>: no", ["H=x.test [192.0.2.3]", "F=<x@a.test>"]),
]
PASSED = ["X=TLS1.3:x:256 X=y", "Q=a Q=b", 'DN="a b" DN="c"', "Ci=1 Ci=2", "I=[192.0.2.1]:4 I=[192.0.2.1]"]


@pytest.mark.parametrize(("line", "taken"), TAKEN)
def test_a_field_that_is_taken_and_comes_twice_makes_exims_line_unclear(line: str, taken: list[str]) -> None:
    for twice in (again for name in taken for again in (f" {name}", f" L {name} K")):
        rows, unclear = told(ID + line.format(twice))
        assert ({row["status"] for row in rows} <= {"unclear"}, unclear) == (True, 1)


@pytest.mark.parametrize("line", [line for line, _ in TAKEN])
def test_a_field_that_is_not_taken_may_come_twice(line: str) -> None:
    for twice in PASSED:
        [row], unclear = told(ID + line.format(f" {twice}"))
        assert (row["status"] == "unclear", unclear) == (False, 0)
