"""message.trace: rows joined from the logs that real hosts wrote about the same mail (made by tests/lab)."""

from pathlib import Path
from typing import Any

import pytest

from fleet.mta.errors import Unsupported
from fleet.mta.exim import Exim
from fleet.mta.opensmtpd import OpenSmtpd
from fleet.mta.operations import MessageTrace
from fleet.mta.postfix import Postfix
from fleet.mta.qmail import Qmail
from fleet.mta.sendmail import Sendmail
from tests.unit.log_host import LogHost

ADAPTERS = {"postfix": Postfix, "sendmail": Sendmail, "exim": Exim, "opensmtpd": OpenSmtpd, "qmail": Qmail}
RECORDED = (
    "postfix-3.5", "postfix-3.7", "postfix-3.10", "sendmail-8.17", "sendmail-8.18", "exim-4.96", "exim-4.98",
    "opensmtpd-6.8", "opensmtpd-7.6", "qmail-lab",
)  # fmt: skip
NEWS = {"ok1@ok.test": "sent", "ok2@ok2.test": "sent", "d@defer.test": "deferred", "x@reject.test": "bounced"}


def host_of(recorded: str, directory: Path) -> LogHost:
    """A host with that log. Postfix 3.7 has two instances; the outer one is asked."""
    mta = recorded.partition("-")[0]
    host = LogHost(mta, directory)
    if recorded == "postfix-3.7":
        host.options |= {"multi_instance_name": "postfix-EXT", "other_syslog_names": ["postfix"]}
    host.record("mail.log", f"{recorded}/trace.log")
    if mta == "qmail":
        host.record("front.log", "qmail-lab/trace-front.log")
        host.options["front_end_logs"] = [str(directory / "front.log")]
    return host


def traced(recorded: str, directory: Path, **criteria: Any) -> dict[str, Any]:
    host = host_of(recorded, directory)
    return host.data(ADAPTERS[host.mta].message_trace, MessageTrace(**criteria))


def outcomes(data: dict[str, Any]) -> dict[str, str]:
    return {row["recipient"]: row["status"] for row in data["rows"]}


@pytest.mark.parametrize("recorded", RECORDED)
def test_what_became_of_a_message_to_four_recipients(recorded: str, tmp_path: Path) -> None:
    data = traced(recorded, tmp_path, sender="NEWS@bulk.example")
    assert outcomes(data) == NEWS
    assert {name: count for name, count in data["totals"].items() if count} == {"sent": 2, "deferred": 1, "bounced": 1}
    assert (data["matched"], data["truncated"]) == (4, False)
    rows = {row["recipient"]: row for row in data["rows"]}
    assert {row["queue_id"] for row in data["rows"]} == {rows["ok1@ok.test"]["queue_id"]}
    assert {row["direction"] for row in data["rows"]} == {"out"}
    assert all(row["arrival_time"] <= row["time"] for row in data["rows"])
    assert all("10.87.0.1" in row["client"] for row in data["rows"])
    assert all(row["size"] > 150 for row in data["rows"])
    assert "10.87.0.202" in rows["d@defer.test"]["relay"]
    assert (rows["d@defer.test"]["dsn"], rows["x@reject.test"]["dsn"]) == ("4.7.1", "5.1.1")
    assert "sink: try later, defer.test" in rows["d@defer.test"]["reply"]
    assert "sink: no such user, reject.test" in rows["x@reject.test"]["reply"]
    assert "accepted" in rows["ok1@ok.test"]["reply"]


@pytest.mark.parametrize("recorded", RECORDED)
def test_a_recipient_is_found_by_a_pattern(recorded: str, tmp_path: Path) -> None:
    data = traced(recorded, tmp_path, sender="news@*", recipient="*@OK?.test")
    assert outcomes(data) == {"ok2@ok2.test": "sent"}


@pytest.mark.parametrize("recorded", RECORDED)
def test_a_queue_id_gives_the_rows_of_its_message(recorded: str, tmp_path: Path) -> None:
    queue_id = traced(recorded, tmp_path, recipient="ok1@ok.test")["rows"][0]["queue_id"]
    assert outcomes(traced(recorded, tmp_path, queue_id=queue_id)) == NEWS


@pytest.mark.parametrize("recorded", RECORDED)
def test_a_message_id_is_found_with_and_without_brackets(recorded: str, tmp_path: Path) -> None:
    if recorded.startswith(("opensmtpd", "qmail")):
        with pytest.raises(Unsupported, match="Message-ID"):
            traced(recorded, tmp_path, message_id="<1@x.test>")
        return
    named = traced(recorded, tmp_path, sender="news@bulk.example")["rows"][0]["message_id"].strip("<>")
    assert outcomes(traced(recorded, tmp_path, message_id=named)) == NEWS
    assert outcomes(traced(recorded, tmp_path, message_id=f"<{named}>")) == NEWS
    assert outcomes(traced(recorded, tmp_path, message_id=named.upper())) == NEWS


@pytest.mark.parametrize("recorded", RECORDED)
def test_mail_that_was_refused_is_a_row(recorded: str, tmp_path: Path) -> None:
    [row] = traced(recorded, tmp_path, recipient="b@nowhere.test")["rows"]
    assert (row["status"], row["direction"]) == ("rejected", "in")
    assert "10.87.0.2" in row["client"]
    assert row["reply"]
    if recorded.startswith("opensmtpd"):  # its log does not tell
        assert row["sender"] is None
    else:
        assert row["sender"].startswith("evil@")


@pytest.mark.parametrize("recorded", RECORDED)
def test_the_null_sender_is_found(recorded: str, tmp_path: Path) -> None:
    rows = traced(recorded, tmp_path, sender="<>")["rows"]
    assert {row["sender"] for row in rows} == {"<>"}
    assert "news@bulk.example" in {row["recipient"] for row in rows} or recorded == "qmail-lab"


@pytest.mark.parametrize("recorded", RECORDED)
def test_looking_for_a_text_on_the_host_loses_no_row(recorded: str, tmp_path: Path) -> None:
    whole = traced(recorded, tmp_path, recipient="*")["rows"]
    some = traced(recorded, tmp_path, recipient="*.test")["rows"]
    wanted = [(row["queue_id"], row["recipient"], row["sender"]) for row in whole if row["recipient"].endswith(".test")]
    assert [(row["queue_id"], row["recipient"], row["sender"]) for row in some] == wanted
    assert len(wanted) > 5


@pytest.mark.parametrize("recorded", ["postfix-3.7", "sendmail-8.17", "exim-4.96", "qmail-lab"])
def test_an_address_that_looks_like_a_field_forges_none(recorded: str, tmp_path: Path) -> None:
    """Mail to `"x y>, relay=foo"@ok.test`."""
    host = host_of(recorded, tmp_path)
    if recorded == "postfix-3.7":
        host.options = {}
    data = host.data(ADAPTERS[host.mta].message_trace, MessageTrace(sender='"q b"@bulk.example'))
    [row] = data["rows"]
    assert row["status"] == "sent"
    assert "10.87.0.201" in row["relay"]
    assert "relay=foo" in row["recipient"]


def test_instances_of_one_log_are_told_apart(tmp_path: Path) -> None:
    host = host_of("postfix-3.7", tmp_path)
    outer = host.data(Postfix.message_trace, MessageTrace(recipient="*"))
    host.options = {"other_syslog_names": ["postfix-EXT"]}
    inner = host.data(Postfix.message_trace, MessageTrace(recipient="*"))
    assert {row["instance"] for row in outer["rows"]} == {"postfix-EXT"}
    assert [row["sender"] for row in inner["rows"]] == ['"q b"@bulk.example']
    assert {row["relay"] for row in inner["rows"]} == {"mx.ok.test[10.87.0.201]:25"}


LINES = """\
Nov 21 11:00:00 mx1 postfix/smtpd[1]: 1A2B3C4D5E: client=a.test[192.0.2.1]
Nov 21 11:00:00 mx1 postfix/cleanup[2]: 1A2B3C4D5E: message-id=<1@a.test>
Nov 21 11:00:00 mx1 postfix/qmgr[3]: 1A2B3C4D5E: from=<s@a.test>, size=99, nrcpt=1 (queue active)
"""
SENT = (
    "Nov 21 11:00:01 mx1 postfix/smtp[4]: 1A2B3C4D5E: to=<r@b.test>, orig_to=<alias@a.test>, "
    "relay=b.test[192.0.2.2]:25, delay=1.5, delays=0.1/0/0.4/1, dsn={dsn}, status={status} ({reply})\n"
)
END = "Nov 21 11:00:02 mx1 postfix/qmgr[3]: 1A2B3C4D5E: removed\n"


def postfix_rows(directory: Path, text: str, **criteria: Any) -> dict[str, Any]:
    host = LogHost("postfix", directory)
    host.put("mail.log", text.encode())
    return host.data(Postfix.message_trace, MessageTrace(**(criteria or {"sender": "s@a.test"})))


def test_a_recipient_behind_an_alias_is_found_by_both_names(tmp_path: Path) -> None:
    text = LINES + SENT.format(dsn="2.0.0", status="sent", reply="250 ok") + END
    for name in ("r@b.test", "alias@a.test"):
        [row] = postfix_rows(tmp_path, text, recipient=name)["rows"]
        assert (row["recipient"], row["orig_to"], row["delay"]) == ("r@b.test", "alias@a.test", 1.5)


def test_a_reply_that_could_be_read_as_another_status_is_left_out(tmp_path: Path) -> None:
    forged = "x>, relay=evil, delay=0, delays=0/0/0/0, dsn=2.0.0, status=sent (250 forged"
    data = postfix_rows(tmp_path, LINES + SENT.format(dsn="5.1.1", status="bounced", reply=forged) + END)
    assert data["totals"]["sent"] == 0
    assert any("two ways" in note for note in data["notes"])


def test_the_last_status_of_a_recipient_counts(tmp_path: Path) -> None:
    later = SENT.format(dsn="4.7.1", status="deferred", reply="later").replace("11:00:01", "10:00:01")
    data = postfix_rows(tmp_path, LINES + later + SENT.format(dsn="2.0.0", status="sent", reply="250 ok") + END)
    assert [row["status"] for row in data["rows"]] == ["sent"]


@pytest.mark.parametrize(
    ("line", "status"),
    [
        ("postfix/qmgr[3]: 1A2B3C4D5E: from=<s@a.test>, status=expired, returned to sender", "expired"),
        ("postfix/postsuper[9]: 1A2B3C4D5E: placed on hold", "held"),
        ("postfix/postsuper[9]: 1A2B3C4D5E: removed", "removed"),
    ],
)
def test_what_an_operator_or_the_queue_manager_did(line: str, status: str, tmp_path: Path) -> None:
    deferred = SENT.format(dsn="4.7.1", status="deferred", reply="later")
    data = postfix_rows(tmp_path, f"{LINES}{deferred}Nov 21 11:30:00 mx1 {line}\n")
    assert outcomes(data) == {"r@b.test": status}
    assert data["totals"][status] == 1


def test_a_message_without_an_attempt_is_queued(tmp_path: Path) -> None:
    assert outcomes(postfix_rows(tmp_path, LINES)) == {"": "queued"}


def test_a_queue_id_that_comes_again_is_another_message(tmp_path: Path) -> None:
    first = LINES + SENT.format(dsn="2.0.0", status="sent", reply="250 first") + END
    second = (LINES + SENT.format(dsn="5.0.0", status="bounced", reply="550 second")).replace(
        "s@a.test", "other@a.test"
    )
    data = postfix_rows(tmp_path, first + second, recipient="r@b.test")
    assert [(row["sender"], row["status"]) for row in data["rows"]] == [
        ("s@a.test", "sent"),
        ("other@a.test", "bounced"),
    ]


def test_a_milter_refuses_a_message_that_has_an_id_already(tmp_path: Path) -> None:
    said = (
        "Nov 21 11:00:01 mx1 postfix/cleanup[2]: 1A2B3C4D5E: milter-reject: END-OF-MESSAGE from a.test[192.0.2.1]: "
        "5.7.1 spam; from=<s@a.test> to=<r@b.test> proto=ESMTP helo=<a.test>\n"
    )
    [row] = postfix_rows(tmp_path, "".join(LINES.splitlines(keepends=True)[:2]) + said)["rows"]
    assert (row["status"], row["recipient"], row["reply"]) == ("rejected", "r@b.test", "5.7.1 spam")


def test_more_rows_than_the_limit_are_counted_and_the_newest_are_kept(tmp_path: Path) -> None:
    lines = [
        f"Nov 21 11:{minute:02}:00 mx1 postfix/smtpd[1]: NOQUEUE: reject: RCPT from a.test[192.0.2.1]: 550 5.7.1 no; "
        f"from=<s@a.test> to=<r{minute}@b.test> proto=ESMTP helo=<a.test>\n"
        for minute in range(10)
    ]
    data = postfix_rows(tmp_path, "".join(lines), sender="s@a.test", limit=3)
    assert [row["recipient"] for row in data["rows"]] == ["r7@b.test", "r8@b.test", "r9@b.test"]
    assert (data["matched"], data["truncated"], data["totals"]["rejected"]) == (10, True, 10)


def test_a_dialogue_without_a_message_is_no_queued_message_of_sendmail(tmp_path: Path) -> None:
    """Recorded: RCPT and then QUIT; an empty message."""
    host = LogHost("sendmail", tmp_path)
    head = "Nov 21 11:00:00 mx1 sm-mta[150]: "
    host.put(
        "mail.log",
        (
            f"{head}6ALDOVZF000150: from=<friend@ok.test>, size=0, class=0, nrcpts=1, proto=ESMTP, daemon=MTA-v4, "
            f"relay=[10.81.0.2]\n{head}6ALDPQPo000159: from=<e@ok.test>, size=0, class=0, nrcpts=1, "
            "msgid=<202611211325.6ALDPQPo000159@mx1.test>, proto=SMTP, daemon=MTA-v4, relay=[10.81.0.2]\n"
        ).encode(),
    )
    rows = host.data(Sendmail.message_trace, MessageTrace(sender="*"))["rows"]
    assert [(row["queue_id"], row["status"]) for row in rows] == [("6ALDPQPo000159", "queued")]


def test_a_message_id_cannot_tell_sendmails_client(tmp_path: Path) -> None:
    forged = "<1, relay=x@localhost>"
    come = f"from=<s@a.test>, size=99, class=0, nrcpts=1, msgid={forged}, proto=ESMTP, daemon=MTA, relay=b [192.0.2.9]"
    host = LogHost("sendmail", tmp_path)
    host.put("mail.log", f"Nov 21 11:00:00 mx1 sendmail[12]: 6ALB00Dx000012: {come}\n".encode())
    [row] = host.data(Sendmail.message_trace, MessageTrace(sender="*"))["rows"]
    assert (row["client"], row["message_id"], row["direction"]) == ("b [192.0.2.9]", forged, "in")


def test_a_parameter_of_mail_from_is_not_part_of_the_sender(tmp_path: Path) -> None:
    said = ('MAIL FROM:<"a>b"@a.test> X=<s@b.test>', "RCPT TO:<r@b.test> ORCPT=<v@b.test>", "550 5.1.1 no")
    host = LogHost("qmail", tmp_path)
    stamp = "@400000006b018a7134f52"
    lines = [f"{stamp}6dc tcpserver: pid 9 from 192.0.2.9", *(f"{stamp}6dd mailfront[9]: {each}" for each in said)]
    host.put("mail.log", "".join(f"{line}\n" for line in lines).encode())
    [row] = host.data(Qmail.message_trace, MessageTrace(recipient="*"))["rows"]
    assert (row["sender"], row["recipient"], row["client"]) == ('"a>b"@a.test', "r@b.test", "192.0.2.9")


REPEATED = {
    "sendmail": "Nov 21 11:00:00 mx1 sendmail[1]: 6ALB00Dx000012: to="
    + ", delay=00:00:01, mailer=x, relay=, dsn=1, reply=, quarantine=" * 1000,
    "postfix": "Nov 21 11:00:00 mx1 postfix/smtpd[1]: NOQUEUE: reject: R from a[1]: "
    + "; from=<> to=<>, proto=A" * 2500,
    "opensmtpd": "Nov 21 11:00:00 mx1 smtpd[1]: 0123456789abcdef mta delivery evpid=1111111122222222 from=<"
    + "> to=<> rcpt=<> user=a" * 2500,
    "exim": "2026-11-21 11:00:00 1xUjpf-00006K-1Z H=(a) [1]" + " H=(b) [1] F=<a> rejected RCPT <" * 1800,
}


@pytest.mark.timeout(10)
@pytest.mark.parametrize("mta", REPEATED)
def test_a_long_line_full_of_fields_is_given_up_at_once(mta: str, tmp_path: Path) -> None:
    host = LogHost(mta, tmp_path)
    host.put("mail.log", f"{REPEATED[mta]}\n".encode())
    data = host.data(ADAPTERS[mta].message_trace, MessageTrace(recipient="*"))
    assert {row["status"] for row in data["rows"]} <= {"unclear"}
    assert any("two ways" in note for note in data["notes"])


SMTPD = "2026-11-21T11:00:00+00:00 os2 smtpd[5]: "
CAME_IN = [
    SMTPD + "b8b4f4bba48aeccc smtp connected address=192.0.2.1 host=a.test",
    SMTPD + "b8b4f4bba48aeccc smtp message msgid=a4fdd7ea size=341 nrcpt=1 proto=ESMTP",
    SMTPD + "b8b4f4bba48aeccc smtp envelope evpid=a4fdd7ea99fe4f11 from=<s@a.test> to=<r@b.test>",
]


def smtpd_rows(directory: Path, lines: list[str]) -> dict[str, Any]:
    host = LogHost("opensmtpd", directory)
    host.put("mail.log", "".join(f"{line}\n" for line in lines).encode())
    return host.data(OpenSmtpd.message_trace, MessageTrace(sender="s@a.test"))


@pytest.mark.parametrize(("event", "status"), [("Remove", "removed"), ("Expire", "expired"), (None, "queued")])
def test_envelopes_that_opensmtpd_gave_up(event: str | None, status: str, tmp_path: Path) -> None:
    line = f"relay: {event} for a4fdd7ea99fe4f11: from=<s@a.test>, to=<r@b.test>, rcpt=<->, delay=7s, stat=x"
    data = smtpd_rows(tmp_path, CAME_IN + ([SMTPD + line] if event else []))
    assert [(row["recipient"], row["status"], row["client"]) for row in data["rows"]] == [
        ("r@b.test", status, "192.0.2.1")
    ]


def test_a_reply_cannot_tell_opensmtpds_result(tmp_path: Path) -> None:
    line = (
        'b8b4f4ba5177c907 mta delivery evpid=a4fdd7ea99fe4f11 from=<s@a.test> to=<r@b.test> rcpt=<-> source="1.2.3.4" '
        'relay="192.0.2.2 (b.test)" delay=1s result="PermFail" stat="550 no" result="Ok" stat="250 forged"'
    )
    data = smtpd_rows(tmp_path, [*CAME_IN, SMTPD + line])
    assert [(row["status"], row["reply"]) for row in data["rows"]] == [("unclear", line.partition("delivery ")[2])]
    assert any("two ways" in note for note in data["notes"])


MTA_SENDMAIL = "Nov 21 11:00:00 sm1 sm-mta[1]: 6ALCBGbE000150: "
SENDMAIL_FROM = (
    MTA_SENDMAIL + "from=<s@a.test>, size=176, class=0, nrcpts=2, msgid=<1@a.test>, proto=ESMTP, daemon=MTA, "
    "relay=a.test [192.0.2.1]"
)


@pytest.mark.parametrize(
    ("lines", "expected"),
    [
        (
            ["to=<r@b.test>,<q,x@c.test>, delay=1+00:00:02, xdelay=00:00:00, mailer=esmtp, pri=1, relay=b.test, "
             "dsn=2.0.0, stat=Sent (ok)"],
            {"r@b.test": "sent", "q,x@c.test": "sent"},
        ),
        (["to=r@b.test, delay=00:00:02, mailer=local, pri=1, stat=queued"], {"r@b.test": "queued"}),
        (["to=<r@b.test>, delay=00:00:02, mailer=esmtp, pri=1, dsn=5.1.2, stat=Host unknown"], {"r@b.test": "bounced"}),
        (["to=<r@b.test>, delay=00:00:02, mailer=discard, pri=1, stat=discarded"], {"r@b.test": "discarded"}),
        (
            ["to=<r@b.test>, delay=00:00:02, mailer=esmtp, pri=1, dsn=4.0.0, stat=Deferred: x",
             "6ALCbcks000735: DSN: Cannot send message for too long"],
            {"r@b.test": "expired"},
        ),
        (
            ["to=<r@b.test>, delay=00:00:02, mailer=esmtp, pri=1, dsn=4.0.0, stat=Deferred: x", "quarantine=test"],
            {"r@b.test": "held"},
        ),
        (
            ["to=<r@b.test>, delay=00:00:02, mailer=esmtp, pri=1, dsn=5.0.0, reply=550, stat=Sent (x), stat=no"],
            {"": "unclear"},
        ),
    ],
)  # fmt: skip
def test_forms_of_sendmails_deliveries(lines: list[str], expected: dict[str, str], tmp_path: Path) -> None:
    host = LogHost("sendmail", tmp_path)
    host.put(
        "mail.log", "".join(f"{line}\n" for line in [SENDMAIL_FROM, *(MTA_SENDMAIL + each for each in lines)]).encode()
    )
    data = host.data(Sendmail.message_trace, MessageTrace(sender="s@a.test"))
    assert outcomes(data) == expected
    assert {row["client"] for row in data["rows"]} == {"a.test [192.0.2.1]"}


def test_a_message_number_of_qmail_that_comes_again_is_another_message(tmp_path: Path) -> None:
    def told(sender: str, delivery: int, result: str) -> list[str]:
        return [
            "new msg 93",
            f"info msg 93: bytes 5 from <{sender}> qp 7 uid 1",
            f"starting delivery {delivery}: msg 93 to remote r@b.test",
            f"delivery {delivery}: {result}",
            "end msg 93",
        ]

    lines = told("s@a.test", 1, "success: 192.0.2.2_accepted_message./") + told(
        "t@a.test", 2, "failure: 192.0.2.2_no./"
    )
    host = LogHost("qmail", tmp_path)
    host.put("mail.log", "".join(f"@400000006b018a7135d929f4 {each}\n" for each in lines).encode())
    for sender, status in (("s@a.test", "sent"), ("t@a.test", "bounced")):
        data = host.data(Qmail.message_trace, MessageTrace(sender=sender))
        assert [(row["sender"], row["status"]) for row in data["rows"]] == [(sender, status)]
