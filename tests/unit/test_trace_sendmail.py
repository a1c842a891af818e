"""message.trace and message.deliver: every shape of Sendmail's log, whatever the order of its fields."""

from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fleet.mta.logs.rows import Trace
from fleet.mta.logs.source import Window
from fleet.mta.logs.wanted import Wanted
from fleet.mta.operations import MessageTrace
from fleet.mta.records import QueueEntry, Recipient
from fleet.mta.sendmail import Sendmail
from fleet.mta.sendmail.attempt import attempt_result, attempts_of
from fleet.mta.sendmail.lines import fields_of, seconds_of, status_of
from fleet.mta.sendmail.logs import Lines
from tests.unit.log_host import LogHost

ID, OTHER = "6ALC00aB008740", "6ALC00aC008741"
CAME = (
    "from=<s@c.example>, size=36124, class=0, nrcpts=1, msgid=<m1@c.example>, proto=ESMTP, daemon=MTA, "
    "relay=c.example [192.0.2.4]"
)
NEVER = "from=<s@c.example>, size=0, class=0, nrcpts=0, proto=ESMTP, daemon=MTA, relay=c.example [192.0.2.4]"
TO = "to=<r@d.example>, delay=00:00:02, xdelay=00:00:01, mailer=esmtp, pri=66124, relay=mx.d.example. [192.0.2.9], "


def traced(directory: Path, *lines: str, **criteria: Any) -> dict[str, Any]:
    """Lines without a tag are the daemon's, of the message ID."""
    host = LogHost("sendmail", directory)
    whole = [line if "]: " in line else f"sm-mta[8740]: {ID}: {line}" for line in lines]
    host.put("mail.log", "".join(f"Nov 21 12:00:01 mx1 {line}\n" for line in whole).encode())
    return host.data(Sendmail.message_trace, MessageTrace(**criteria or {"queue_id": ID}))


def told(data: dict[str, Any], *names: str) -> list[tuple[str, ...]]:
    return [tuple(row[name] for name in names or ("recipient", "status")) for row in data["rows"]]


def test_a_milter_refuses_a_message_after_data(tmp_path: Path) -> None:
    lines = (
        CAME, "Milter: data, reject=554 5.7.1 Spam message rejected",
        "to=<r@d.example>, delay=00:00:02, pri=66124, stat=Spam message rejected",
        "to=<q@d.example>, delay=00:00:02, pri=66124, stat=Spam message rejected",
    )  # fmt: skip
    for criteria in ({"recipient": "r@d.example"}, {"sender": "s@c.example", "recipient": "r@*"}):
        data = traced(tmp_path, *lines, **criteria)
        said = ("rejected", "5.7.1", "554 5.7.1 Spam message rejected", "c.example [192.0.2.4]")
        assert told(data, "status", "dsn", "reply", "client") == [said]
        assert data["notes"] == traced(tmp_path, CAME)["notes"]
    both = traced(tmp_path, *lines)
    assert told(both, "recipient", "dsn") == [("r@d.example", "5.7.1"), ("q@d.example", "5.7.1")]


def test_a_milter_throws_a_message_away(tmp_path: Path) -> None:
    assert told(traced(tmp_path, CAME, "Milter: data, discard", "discarded")) == [("", "discarded")]
    named = "to=<r@d.example>, delay=00:00:02, pri=66124, stat=discarded"
    assert told(traced(tmp_path, CAME, "Milter: data, discard", named)) == [("r@d.example", "discarded")]


@pytest.mark.parametrize(
    ("lines", "expected"),
    [
        (["Milter: from=<s@c.example>, reject=550 5.7.1 Command rejected", NEVER], ("", "rejected", "5.7.1")),
        (["Milter: from=<s@c.example>, reject=421, errormode=4", NEVER], ("", "rejected", "")),
        (["Milter: to=<r@d.example>, reject=451 4.3.2 Please try again later", NEVER],
         ("r@d.example", "rejected", "4.3.2")),
        (["Milter: to=<r@d.example>, discard", "discarded"], ("r@d.example", "discarded", "")),
        (["Milter: cmd=data, reject=550 5.7.1 Command rejected", NEVER], ("", "rejected", "5.7.1")),
        (["Milter: data, reject=451 4.3.2 Please try again later", CAME], ("", "rejected", "4.3.2")),
        (["Milter: data, reject=421 4.7.0 mx1 closing connection"], ("", "rejected", "4.7.0")),
        (["Milter: helo=c.example, reject=Command rejected"], ("", "rejected", "")),
        (["Milter: connect: host=c.example, addr=192.0.2.4, rejecting commands"], ("", "rejected", "")),
        (["Milter: connect: host=c.example, addr=192.0.2.4, reject=550 5.7.1 listed"], ("", "rejected", "5.7.1")),
        (["rejecting commands from c.example [192.0.2.4] due to pre-greeting traffic after 2 seconds"],
         ("", "rejected", "")),
        (["tcpwrappers (c.example, 192.0.2.4) rejection"], ("", "rejected", "")),
        ([CAME, "milter=m1, quarantine=looks odd", TO + "quarantine=looks odd, stat=quarantined"],
         ("r@d.example", "held", "")),
        ([CAME, TO + "stat=queued", "quarantine=by hand"], ("r@d.example", "held", "")),
        ([CAME, TO + "stat=quarantined", "unquarantine"], ("r@d.example", "queued", "")),
        ([CAME, "Losing ./qf6ALC00aB008740: savemail panic"], ("", "held", "")),
        (["ruleset=check_rcpt, arg1=<r@d.example>, relay=c.example [192.0.2.4], reject=550 5.7.1 <r@d.example>... no"],
         ("r@d.example", "rejected", "5.7.1")),
        (["ruleset=check_rcpt, arg1=<r@d.example>, reject=550 5.7.1 no"], ("r@d.example", "rejected", "5.7.1")),
        (["ruleset=check_mail, arg1=<s@c.example>, relay=c.example [192.0.2.4], reject=553 5.1.8 no", NEVER],
         ("", "rejected", "5.1.8")),
        (["ruleset=CheckSubject, arg1=buy, now, relay=c.example [192.0.2.4], reject=553 5.0.0 Header Error",
          "to=<r@d.example>, delay=00:00:01, pri=1, stat=Header Error"], ("r@d.example", "rejected", "5.0.0")),
        (["ruleset=check_eom, arg1=99, relay=c.example [192.0.2.4], discard", "discarded"], ("", "discarded", "")),
        ([CAME, "ruleset=check_data, arg1=1, relay=c.example [192.0.2.4], quarantine=why"], ("", "held", "")),
        ([CAME, "ruleset=tls_server, arg1=SOFTWARE, relay=mx.d.example, reject=403 4.7.0 TLS handshake failed.",
          TO + "dsn=4.7.0, stat=Deferred: 403 4.7.0 TLS handshake failed."], ("r@d.example", "deferred", "4.7.0")),
        (["collect: unexpected close on connection from c.example, sender=<s@c.example>",
          "from=<s@c.example>, size=36124, class=0, nrcpts=1, proto=ESMTP, daemon=MTA, relay=c.example [192.0.2.4]"],
         ("", "rejected", "")),
        ([CAME, "SYSERR(root): putbody: write error", TO + "dsn=4.0.0, stat=I/O error"],
         ("r@d.example", "deferred", "4.0.0")),
        ([CAME, TO + "stat=Operating system error"], ("r@d.example", "deferred", "")),
        ([CAME, TO + "stat=User unknown"], ("r@d.example", "bounced", "")),
        ([CAME, "to=/dev/null, ctladdr=<r@d.example> (8/0), delay=00:00:00, mailer=*file*, dsn=2.0.0, stat=Sent"],
         ("/dev/null", "discarded", "2.0.0")),
        ([CAME, TO + "ntries=1, stage=RCPT, tls_verify=OK, cipher=x, dsn=2.0.0, stat=Sent (a, reply=b, dsn=5.0.0)"],
         ("r@d.example", "sent", "2.0.0")),
        ([CAME, TO + "dsn=5.1.1, reply=550 5.1.1 no, relay=x, dsn=2.0.0, stat=User unknown"],
         ("r@d.example", "bounced", "5.1.1")),
    ],
)  # fmt: skip
def test_everything_that_ends_or_parks_a_mail(lines: list[str], expected: tuple[str, str, str], tmp_path: Path) -> None:
    assert told(traced(tmp_path, *lines), "recipient", "status", "dsn") == [expected]


@pytest.mark.parametrize(
    "line",
    [
        "to=<r@d.example>, delay=00:00:02, pri=66124, stat=aborted by sender",
        "to=<r@d.example>, delay=00:00:02, pri=66124, stat=RSET",
        "lost input channel from c.example [192.0.2.4] to MTA after rcpt",
        "c.example [192.0.2.4]: VRFY joe [rejected]",
        "ruleset=check_vrfy, arg1=joe, relay=c.example [192.0.2.4], reject=550 5.7.1 no",
    ],
)
def test_what_came_to_no_message_is_no_row(line: str, tmp_path: Path) -> None:
    assert told(traced(tmp_path, line, NEVER)) == []


def test_a_client_that_is_refused_at_once_has_no_queue_id(tmp_path: Path) -> None:
    reject = "ruleset=check_relay, arg1=c.example, arg2=192.0.2.4, relay=c.example [192.0.2.4], reject=550 5.7.1 listed"
    data = traced(tmp_path, f"sm-mta[1]: NOQUEUE: {reject}", recipient="*")
    assert told(data, "client", "status", "reply") == [("c.example [192.0.2.4]", "rejected", "550 5.7.1 listed")]


def test_senders_that_are_refused_one_after_another_have_a_row_each(tmp_path: Path) -> None:
    refused = "ruleset=check_mail, arg1=<{}@c.example>, relay=c.example [192.0.2.4], reject=553 5.1.8 no"
    data = traced(tmp_path, refused.format("a"), refused.format("b"), NEVER.replace("<s@", "<b@"))
    assert told(data, "sender", "status") == [("a@c.example", "rejected"), ("b@c.example", "rejected")]


def test_an_alias_of_two_is_two_recipients_and_no_queued_one(tmp_path: Path) -> None:
    alias = ", ctladdr=<team@m.example> (8/0), delay=00:00:01, mailer=esmtp, pri=1, relay=x, "
    lines = (
        CAME,
        "to=<team@m.example>, delay=00:00:00, mailer=local, pri=1, stat=queued",
        f"to=joe@d.example{alias}dsn=2.0.0, stat=Sent (ok)",
        f"to=ann@d.example{alias}dsn=5.1.1, stat=User unknown",
    )
    data = traced(tmp_path, *lines, recipient="team@m.example")
    assert told(data) == [("joe@d.example", "sent"), ("ann@d.example", "bounced")]
    assert {row["orig_to"] for row in data["rows"]} == {"team@m.example"}


def test_a_user_of_this_host_who_sends_is_no_original_recipient(tmp_path: Path) -> None:
    came = "from=root, size=19, class=0, nrcpts=1, msgid=<1@mx1>, relay=root@localhost"
    sent = "to=r@d.example, ctladdr=root@mx1 (0/0), delay=00:00:01, mailer=esmtp, pri=1, relay=x, dsn=2.0.0, stat=Sent"
    assert told(traced(tmp_path, came, sent), "orig_to", "direction") == [("", "out")]


def test_the_client_queue_and_the_daemon_are_one_mail(tmp_path: Path) -> None:
    first = f"from=root, size=19, class=0, nrcpts=2, msgid=<1.{ID}@mx1>, relay=root@localhost"
    over = (
        "to=r@d.example,q@d.example, ctladdr=root (0/0), delay=00:00:01, xdelay=00:00:00, mailer=relay, pri=30019, "
        f"relay=[127.0.0.1] [127.0.0.1], dsn=2.0.0, stat=Sent ({OTHER} Message accepted for delivery)"
    )
    daemon = f"sm-mta[2]: {OTHER}: " + first.replace("relay=root@localhost", "relay=localhost [127.0.0.1]")
    sent = f"sm-mta[3]: {OTHER}: {TO.replace('<r@d.example>', '<r@d.example>,<q@d.example>')}dsn=2.0.0, stat=Sent (ok)"
    lines = (f"sendmail[1]: {ID}: {first}", daemon, f"sm-msp-queue[1]: {ID}: {over}", sent)
    data = traced(tmp_path, *lines, recipient="*")
    assert told(data, "queue_id", "status") == [(OTHER, "sent"), (OTHER, "sent")]
    assert data["totals"]["sent"] == 2
    by_first_id = traced(tmp_path, *lines, queue_id=ID)
    assert told(by_first_id, "queue_id", "status") == [(OTHER, "sent"), (OTHER, "sent")]
    alone = traced(tmp_path, f"sendmail[1]: {ID}: {first}", f"sm-msp-queue[1]: {ID}: {over}", recipient="r@*")
    assert told(alone) == [("r@d.example", "handed_over")]


def test_a_list_with_an_owner_goes_on_as_another_message(tmp_path: Path) -> None:
    lines = (
        CAME,
        f"{OTHER}: clone: owner=owner-list@m.example",
        f"sm-mta[1]: {OTHER}: {TO}dsn=2.0.0, stat=Sent",
    )
    data = traced(tmp_path, *lines, recipient="*")
    assert told(data, "sender", "client", "status")[1:] == [("owner-list@m.example", "c.example [192.0.2.4]", "sent")]
    split = traced(tmp_path, CAME, f"split: count=1, id={OTHER}", lines[2], recipient="*")
    assert told(split, "sender", "message_id")[1:] == [("s@c.example", "<m1@c.example>")]


def test_lines_that_sendmail_cut_are_joined(tmp_path: Path) -> None:
    said = TO + "dsn=5.1.1, reply=550 5.1.1 no such user, stat=User unknown"
    parts = [f"sm-mta[8740]: {ID}[1]: {said[:70]} ...", f"sm-mta[8740]: {ID}[2]: {said[70:]}"]
    assert told(traced(tmp_path, CAME, *parts)) == [("r@d.example", "bounced")]
    more = "to=<a@d.example>,<b@d.example>, [more]" + TO.removeprefix("to=<r@d.example>") + "dsn=2.0.0, stat=Sent"
    assert told(traced(tmp_path, CAME, more)) == [("a@d.example", "sent"), ("b@d.example", "sent")]


@pytest.mark.parametrize(
    "line",
    [
        TO + "dsn=5.1.1, reply=550 5.1.1 no",
        TO + "dsn=2.0.0, dsn=5.1.1, stat=Sent",
        TO + "dsn=5.1.1, stat=no, stat=Sent",
        'to=<"r@d.example>, delay=00:00:02, mailer=x, stat=Sent (forged)',
        TO.replace("00:00:02", "99999999999+00:00:02") + "stat=Sent",
    ],
)
def test_a_fate_that_was_not_understood_is_unclear_and_never_queued(line: str, tmp_path: Path) -> None:
    data = traced(tmp_path, CAME, line)
    assert told(data, "status", "reply") == [("unclear", line)]
    assert any("two ways" in note for note in data["notes"])


def test_texts_of_others_forge_no_field(tmp_path: Path) -> None:
    address = '<"x, relay=y, stat=Sent"@d.example>'
    sent = TO.replace("<r@d.example>", address) + "dsn=5.1.1, stat=User unknown"
    assert told(traced(tmp_path, CAME, sent)) == [(address[1:-1], "bounced")]
    forged = CAME.replace("<m1@c.example>", "<1>, size=1, relay=x@localhost")
    assert any("two ways" in note for note in traced(tmp_path, forged)["notes"])


def test_a_message_id_that_sendmail_cut_swallows_no_field() -> None:
    cut = "<" + "x" * 99
    assert fields_of(f", size=9, msgid={cut}, proto=ESMTP") == {"size": "9", "msgid": cut[1:], "proto": "ESMTP"}
    assert fields_of(", msgid=<a, b=>" * 5000) is None


@pytest.mark.parametrize(
    ("stat", "dsn", "status"), [("Service unavailable", "4.0.0", "deferred"), ("Sent", "", "sent")]
)
def test_what_stat_tells(stat: str, dsn: str, status: str) -> None:
    assert status_of(stat, dsn) == status


def test_a_delay_of_an_unknown_form_is_none() -> None:
    assert (seconds_of("3+00:01:02"), seconds_of("soon")) == (259_262.0, None)


DIALOGUE = [
    f"Running /q/{ID} (sequence 1 of 1)",
    "<team@m.example>... aliased to joe@d.example,ann@d.example",
    "joe@d.example... Connecting to mx.d.example. via esmtp...",
    "ann@d.example... User unknown",
    "joe@d.example... Sent (ok)",
    "s@c.example... Sent (the report)",
]


def queued(*recipients: str) -> QueueEntry:
    return QueueEntry(ID, "deferred", "queued", 1, "s@c.example", [Recipient(each) for each in recipients], 500, 1)


@pytest.mark.parametrize("lines", [DIALOGUE, [*DIALOGUE[:3], DIALOGUE[4], DIALOGUE[3]]])
def test_of_an_alias_of_two_the_worst_counts(lines: list[str]) -> None:
    data = attempt_result(queued("team@m.example"), None, "", lines).data
    assert data["outcome"] == "bounced"
    found = {(each["address"], each["orig_to"], each["outcome"]) for each in data["recipients"]}
    assert found == {
        ("joe@d.example", "team@m.example", "sent"),
        ("ann@d.example", "team@m.example", "bounced"),
    }


def test_an_expansion_that_is_not_told_whole_is_never_sent() -> None:
    lines = [DIALOGUE[0], "<joe@m.example>... including file /home/joe/.forward", "<r@d.example>... Sent (ok)"]
    assert attempt_result(queued("joe@m.example", "r@d.example"), None, "", lines).data["outcome"] == "left_queue"
    assert [each.outcome for each in attempts_of(queued("r@d.example"), ["<r@d.example>... discarded"])] == [
        "discarded"
    ]


EVENTS = {
    "sent": ("dsn=2.0.0", "Sent (ok)"),
    "deferred": ("dsn=4.7.1", "Deferred: 451 4.7.1 later"),
    "bounced": ("dsn=5.1.1", "User unknown"),
    "queued": ("", "queued"),
    "discarded": ("", "discarded"),
}
OPTIONAL = ("xdelay=00:00:01", "pri=66124", "tls_verify=OK", "ntries=2", "intvl=00:01:00", "relay=mx [192.0.2.9]")
HISTORIES = st.lists(st.tuples(st.sampled_from("abc"), st.sampled_from(sorted(EVENTS))), min_size=1, max_size=6)


@settings(max_examples=60, deadline=None)
@given(HISTORIES, st.data())
def test_a_history_gives_the_same_rows_whatever_fields_its_lines_have(
    history: list[tuple[str, str]], data: st.DataObject
) -> None:
    trace = Trace(Wanted.of(MessageTrace(sender="*"), str), Window(0, 1000))
    lines = Lines(trace)
    lines.take(1.0, f"mx1 sm-mta[1]: {ID}: {CAME}")
    for at, (user, event) in enumerate(history):
        dsn, stat = EVENTS[event]
        given_fields = data.draw(st.lists(st.sampled_from(OPTIONAL), unique=True))
        alias = ["ctladdr=<team@m.example> (8/0)"] if user == "c" else []
        fields = data.draw(
            st.permutations([*given_fields, *alias, "delay=00:00:02", "mailer=esmtp", *([dsn] if dsn else [])])
        )
        reply = ", reply=550 a, b" if data.draw(st.booleans()) else ""
        lines.take(2.0 + at, f"mx1 sm-mta[1]: {ID}: to=<{user}@d.example>, {', '.join(fields)}{reply}, stat={stat}")
    last = dict(history)
    expected = {(f"{user}@d.example", "team@m.example" if user == "c" else "", event) for user, event in last.items()}
    assert {(row["recipient"], row["orig_to"], row["status"]) for row in trace.rows()} == expected
    assert trace.unclear == 0
