"""message.trace and message.deliver: every shape of OpenSMTPD's log, whatever the order of its fields."""

from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fleet.mta.logs.rows import Trace
from fleet.mta.logs.source import Window
from fleet.mta.logs.wanted import Wanted
from fleet.mta.opensmtpd import OpenSmtpd
from fleet.mta.opensmtpd.attempt import attempt_result, attempts_of
from fleet.mta.opensmtpd.lines import fields_of, seconds_of
from fleet.mta.opensmtpd.logs import Lines
from fleet.mta.operations import MessageTrace
from fleet.mta.records import QueueEntry
from tests.unit.log_host import LogHost

SESSION, ID, OTHER = "b8b4f4bba48aeccc", "a4fdd7ea", "5cb29cd5"
SMTPD = "Nov 21 12:00:01 mx1 smtpd[5]: "
CAME = (
    f"{SESSION} smtp connected address=192.0.2.4 host=c.example",
    f"{SESSION} smtp message msgid={ID} size=341 nrcpt=1 proto=ESMTP",
    f"{SESSION} smtp envelope evpid={ID}99fe4f11 from=<s@c.example> to=<r@d.example>",
)
MTA = f'{SESSION} mta delivery evpid={ID}99fe4f11 from=<s@c.example> to=<r@d.example> rcpt=<-> source="192.0.2.1" '
RELAY = 'relay="192.0.2.9 (mx.d.example)" delay=1m2s '
MDA = f"{SESSION} mda delivery evpid={ID}99fe4f11 from=<s@c.example> to=<joe@d.example> rcpt=<r@d.example> user=joe "


def traced(directory: Path, *lines: str, **criteria: Any) -> dict[str, Any]:
    host = LogHost("opensmtpd", directory)
    host.put("mail.log", "".join(f"{SMTPD}{line}\n" for line in lines).encode())
    return host.data(OpenSmtpd.message_trace, MessageTrace(**criteria or {"recipient": "*"}))


def told(data: dict[str, Any], *names: str) -> list[tuple[str, ...]]:
    return [tuple(row[name] for name in names or ("recipient", "status")) for row in data["rows"]]


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        (MTA + RELAY + 'result="Ok" stat="250 2.0.0 ok"', ("r@d.example", "", "sent", "2.0.0")),
        (MTA + RELAY + "result=Ok stat=250 2.0.0 ok", ("r@d.example", "", "sent", "2.0.0")),
        (MTA + RELAY + 'tls=TLSv1.3 result="TempFail" stat="451 4.7.1 later"',
         ("r@d.example", "", "deferred", "4.7.1")),
        (MTA + RELAY + 'result="PermFail" stat="Loop detected"', ("r@d.example", "", "bounced", "")),
        (MTA + RELAY + 'result="Expired" stat="x"', ("r@d.example", "", "expired", "")),
        (MTA + RELAY + 'result="PermFail" stat="550 5.1.1 a text that syslog cut',
         ("r@d.example", "", "bounced", "5.1.1")),
        (MTA.replace(" mta ", " mta event=") + RELAY + 'result="Ok" stat="250 ok"', ("r@d.example", "", "sent", "")),
        (MDA + "delay=0s result=Ok stat=Delivered", ("joe@d.example", "r@d.example", "sent", "")),
        (MDA + 'delay=-2s result=TempFail stat=Error ("mail.local: no space")',
         ("joe@d.example", "r@d.example", "deferred", "")),
        (MDA + 'delay=0s method=maildir result="PermFail" stat="no such mailbox"',
         ("joe@d.example", "r@d.example", "bounced", "")),
        (f"delivery: Expire for {ID}99fe4f11: from=<s@c.example>, to=<joe@d.example>, rcpt=<r@d.example>, delay=4d, "
         "stat=x",
         ("joe@d.example", "r@d.example", "expired", "")),
        (f"relay: Remove for {ID}99fe4f11: from=<s@c.example>, to=<r@d.example>, rcpt=<->, delay=4d, stat=x",
         ("r@d.example", "", "removed", "")),
    ],
)  # fmt: skip
def test_everything_that_ends_or_delays_an_envelope(line: str, expected: tuple[str, ...], tmp_path: Path) -> None:
    data = traced(tmp_path, *CAME, line)
    assert told(data, "recipient", "orig_to", "status", "dsn") == [expected]
    assert told(data, "client", "sender") == [("192.0.2.4", "s@c.example")]


def test_an_alias_of_two_is_two_recipients_and_no_queued_one(tmp_path: Path) -> None:
    ann = MTA.replace("<r@d.example> rcpt=<->", "<ann@e.example> rcpt=<r@d.example>").replace("99fe4f11", "00000002")
    lines = (*CAME, MDA + "delay=0s result=Ok stat=Delivered", ann + RELAY + 'result="PermFail" stat="550 5.1.1 no"')
    data = traced(tmp_path, *lines, recipient="r@d.example")
    assert told(data) == [("joe@d.example", "sent"), ("ann@e.example", "bounced")]


@pytest.mark.parametrize(
    ("said", "row"),
    [
        ('command="" result="421 4.7.0 listed"', (None, "", "4.7.0")),
        ('command="EHLO c.example" result="550 5.7.1 no rdns"', (None, "", "5.7.1")),
        ('command="MAIL FROM:<s@c.example> SIZE=9" result="550 5.7.1 no"', ("s@c.example", "", "5.7.1")),
        ('command="RCPT TO:<q@d.example>" result="451 4.7.1 greylisted"', (None, "q@d.example", "4.7.1")),
        ('command="DATA" result="550 5.7.1 spam"', (None, "", "5.7.1")),
        ('command="." result="554 5.7.1 spam', (None, "", "5.7.1")),
    ],
)
def test_what_smtpd_or_a_filter_refuses_at_each_stage(
    said: str, row: tuple[str | None, str, str], tmp_path: Path
) -> None:
    data = traced(tmp_path, CAME[0], f"{SESSION} smtp failed-command {said}", recipient="*")
    assert told(data, "sender", "recipient", "dsn", "status", "client") == [(*row, "rejected", "192.0.2.4")]


@pytest.mark.parametrize(
    "said",
    [
        'command="DATA" result="503 5.5.1 Invalid command: Command not allowed at this point."',
        'command="AUTH PLAIN (...)" result="535 5.7.8 no"',
        'command="GET / HTTP/1.1" result="500 5.5.1 Invalid command: Command unrecognized"',
    ],
)
def test_misuse_and_logins_are_no_refused_mail(said: str, tmp_path: Path) -> None:
    assert traced(tmp_path, CAME[0], f"{SESSION} smtp failed-command {said}")["rows"] == []


def test_the_client_of_a_proxy_is_the_one_that_it_names(tmp_path: Path) -> None:
    lines = (CAME[0].replace("192.0.2.4", "192.0.2.250"), f"{SESSION} smtp event=proxy address=192.0.2.77", *CAME[1:])
    assert told(traced(tmp_path, *lines), "client", "status") == [("192.0.2.77", "queued")]


def test_a_signing_filter_of_this_host_makes_no_second_mail(tmp_path: Path) -> None:
    over = (
        MTA
        + f'relay="127.0.0.1 (localhost)" delay=0s result="Ok" stat="250 2.0.0 {OTHER} Message accepted for delivery"'
    )
    back = [line.replace(ID, OTHER).replace("192.0.2.4", "127.0.0.1").replace(SESSION, SESSION[::-1]) for line in CAME]
    sent = (MTA + RELAY).replace(ID, OTHER) + 'result="Ok" stat="250 ok"'
    data = traced(tmp_path, *CAME, *back, over, sent)
    assert told(data, "queue_id", "status", "client") == [(OTHER, "sent", "192.0.2.4")]
    assert told(traced(tmp_path, *CAME, over)) == [("r@d.example", "handed_over")]


def test_a_bounce_is_a_message_of_the_null_sender(tmp_path: Path) -> None:
    lines = (
        f"{SESSION} smtp connected address=local host=mx1",
        f"{SESSION} smtp message msgid={OTHER} size=1573 nrcpt=1 proto=ESMTP",
        f"{SESSION} smtp envelope evpid={OTHER}33bb09a2 from=<> to=<s@c.example>",
        f"relay: Expire for {OTHER}33bb09a2: from=<@>, to=<s@c.example>, rcpt=<->, delay=4d, stat=Envelope expired",
    )
    assert told(traced(tmp_path, *lines), "sender", "recipient", "status") == [("<>", "s@c.example", "expired")]
    assert told(traced(tmp_path, lines[3]), "sender", "status") == [("<>", "expired")]


@pytest.mark.parametrize(
    "line",
    [
        MTA + RELAY + 'result="Ok"',
        MTA + RELAY + 'stat="250 ok"',
        MTA + RELAY + 'result="Whatever" stat="250 ok"',
        MTA + RELAY + 'result="PermFail" result="Ok" stat="250 ok"',
        MTA + RELAY + 'result="PermFail" stat="550 no" result="Ok" stat="250 forged"',
        MTA.replace("<r@d.example>", '<r@d.example> result="Ok" stat="250>') + RELAY + 'result="PermFail" stat="no"',
        MTA + RELAY.replace("1m2s", "99999999999d") + 'result="Ok" stat="250 ok"',
    ],
)  # fmt: skip
def test_a_fate_that_was_not_understood_is_unclear_and_never_queued(line: str, tmp_path: Path) -> None:
    data = traced(tmp_path, *CAME, line)
    assert told(data, "status", "reply") == [("unclear", line.partition("delivery ")[2])]
    assert any("two ways" in note for note in data["notes"])


def test_an_envelope_that_was_put_aside_as_corrupt_is_unclear(tmp_path: Path) -> None:
    data = traced(tmp_path, *CAME, f"warn: invalid envelope {ID}99fe4f11: bad version")
    assert told(data) == [("r@d.example", "unclear")]


@pytest.mark.parametrize(
    ("text", "fields"), [("a=<x y> b=", {"a": "x y", "b": ""}), ("a=1 a=2", None), ("a=<x>y", None)]
)
def test_the_fields_of_a_line(text: str, fields: dict[str, str] | None) -> None:
    assert fields_of(text) == fields


@pytest.mark.parametrize(("text", "seconds"), [("1d2h3m4s", 93_784.0), ("-5s", 0.0), ("soon", None), ("", None)])
def test_a_delay(text: str, seconds: float | None) -> None:
    assert seconds_of(text) == seconds


BEFORE = QueueEntry(ID, "deferred", "pending", 1.0, "s@c.example", (), 341)
OK = SMTPD + MDA + "delay=0s result=Ok stat=Delivered"
BAD = SMTPD + MTA.replace("rcpt=<->", "rcpt=<team@d.example>") + RELAY + 'result="PermFail" stat="550 5.1.1 no"'


@pytest.mark.parametrize("lines", [[OK, BAD], [BAD, OK]])
def test_of_an_alias_of_two_the_worst_counts(lines: list[str]) -> None:
    data = attempt_result(BEFORE, None, lines).data
    assert data["outcome"] == "bounced"
    assert {(each["address"], each["orig_to"], each["outcome"]) for each in data["recipients"]} == {
        ("joe@d.example", "r@d.example", "sent"),
        ("r@d.example", "team@d.example", "bounced"),
    }


def test_a_command_of_a_client_tells_of_no_attempt() -> None:
    """Whoever sent the message was told its ID."""
    forged = f'{SMTPD}{SESSION} smtp failed-command command="x {OK.partition("]: ")[2]}" result="500 what"'
    assert attempts_of([forged], ID) == ()
    assert attempts_of([forged, OK.replace("result=Ok", "result=Odd")], ID)[0].outcome == "unclear"
    assert attempts_of([OK.replace("result=Ok", "result=Expired")], ID)[0].outcome == "bounced"


EVENTS = {"sent": "Ok", "deferred": "TempFail", "bounced": "PermFail", "expired": "Expired"}
OPTIONAL = ('source="192.0.2.1"', "tls=TLSv1.3", 'helo="mx 1"', "delay=1h2m", "rcpt=<->")
HISTORIES = st.lists(st.tuples(st.sampled_from("abc"), st.sampled_from(sorted(EVENTS))), min_size=1, max_size=6)


@settings(max_examples=60, deadline=None)
@given(HISTORIES, st.data())
def test_a_history_gives_the_same_rows_whatever_fields_its_lines_have(
    history: list[tuple[str, str]], data: st.DataObject
) -> None:
    trace = Trace(Wanted.of(MessageTrace(sender="*"), str), Window(0, 1000))
    lines = Lines(trace)
    for line in CAME[:2]:
        lines.take(1.0, f"mx1 smtpd[5]: {line}")
    for at, (user, event) in enumerate(history):
        optional = data.draw(st.lists(st.sampled_from(OPTIONAL[: 4 if user == "c" else 5]), unique=True))
        alias = ["rcpt=<team@d.example>"] if user == "c" else []
        needed = [f"evpid={ID}0000000{user}", "from=<s@c.example>", f"to=<{user}@d.example>", 'relay="192.0.2.9"']
        quote = data.draw(st.sampled_from(["", '"']))
        fields = data.draw(st.permutations([*needed, *alias, *optional, f"result={quote}{EVENTS[event]}{quote}"]))
        text = f"{SESSION} mta delivery {' '.join(fields)} stat={quote}250 a=b{quote}"
        lines.take(2.0 + at, f"mx1 smtpd[5]: {text}")
    expected = {
        (f"{user}@d.example", "team@d.example" if user == "c" else "", event) for user, event in dict(history).items()
    }
    assert {(row["recipient"], row["orig_to"], row["status"]) for row in trace.rows()} == expected
    assert trace.unclear == 0
