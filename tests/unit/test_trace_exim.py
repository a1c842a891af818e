"""message.trace of Exim's log: the forms of its lines, and what others' texts in them must not tell."""

from pathlib import Path
from typing import Any

import pytest

from fleet.mta.exim import Exim
from fleet.mta.operations import MessageTrace
from tests.unit.log_host import LogHost

EXIM = "2026-11-21 11:00:00 1xUjpf-00006K-1Z "


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
