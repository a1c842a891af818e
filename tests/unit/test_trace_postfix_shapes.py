"""message.trace of Postfix: mail that was refused, held, thrown away or never came, hostile lines, generated ones."""

from collections.abc import Sequence
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fleet.mta.postfix.lines import arrival_of, delivery_of, line_of, refusal_of
from fleet.mta.postfix.logs import PICKUP
from tests.unit.test_trace_postfix import ENVELOPE, VIA, A, B, C, came, log, parsed, removed, told, traced, went

SCREENED = "from=<s@c.example>, to=<r@d.example>, proto=ESMTP, helo=<c.example>"
BLOCKED = "550 5.7.1 Service unavailable; client [192.0.2.4] blocked using zen.example"
UNKNOWN = "550 5.1.1 <r@d.example>: Recipient address rejected: User unknown"


@pytest.mark.parametrize(
    ("line", "client", "reply", "dsn"),
    [
        (f"postscreen[100]: NOQUEUE: reject: RCPT from [192.0.2.4]:51234: {BLOCKED}; {SCREENED}",
         "[192.0.2.4]", BLOCKED, "5.7.1"),
        (f"postscreen[100]: NOQUEUE: reject: RCPT from [2001:db8::4]:51234: 450 4.3.2 Service currently unavailable; "
         f"{SCREENED}", "[2001:db8::4]", "450 4.3.2 Service currently unavailable", "4.3.2"),
        (f"smtpd[100]: NOQUEUE: reject: RCPT from {C}: {UNKNOWN}; {ENVELOPE}", C, UNKNOWN, "5.1.1"),
        (f"smtpd[100]: NOQUEUE: reject: RCPT from {C}:4711: {UNKNOWN}; {ENVELOPE} sasl_method=PLAIN "
         "sasl_username=joe sasl_sender=joe@x", C, UNKNOWN, "5.1.1"),
        (f"submission/smtpd[100]: NOQUEUE: reject: RCPT from {C}: {UNKNOWN}; {ENVELOPE} some_new=field",
         C, UNKNOWN, "5.1.1"),
        (f"smtpd[100]: NOQUEUE: milter-reject: RCPT from {C}: 451 4.7.1 Greylisted; {ENVELOPE} sasl_username=<joe>",
         C, "451 4.7.1 Greylisted", "4.7.1"),
        (f"smtpd[100]: proxy-reject: END-OF-MESSAGE from {C}: 554 5.7.0 Reject, id=1-01 - spam; {ENVELOPE}",
         C, "554 5.7.0 Reject, id=1-01 - spam", "5.7.0"),
        (f"smtpd[100]: NOQUEUE: hangup: RCPT from {C}: no; {ENVELOPE}", C, "no", ""),
        (f"smtpd[100]: {A}: reject: DATA content from {C}: 550 5.5.2 bare <LF> received; {ENVELOPE}",
         C, "550 5.5.2 bare <LF> received", "5.5.2"),
        (f"smtpd[100]: {A}: milter-reject: END-OF-MESSAGE from {C}: 5.7.1 spam; {ENVELOPE}", C, "5.7.1 spam", "5.7.1"),
        (f"cleanup[101]: {A}: milter-header-reject: header X-Spam: yes from {C}; {ENVELOPE}: 5.7.1 spam",
         C, "5.7.1 spam", "5.7.1"),
        (f"cleanup[101]: {A}: reject: body buy to=this proto=X now from {C}; {ENVELOPE}: 5.7.1 no", C, "5.7.1 no",
         "5.7.1"),
        (f"cleanup[101]: {A}: reject: header Subject: offer from local; from=<s@c.example> to=<r@d.example>: 5.7.1 no",
         "", "5.7.1 no", "5.7.1"),
        (f"cleanup[101]: {A}: reject: mime-error improper use of 8-bit data in message body: \\xFC from {C}; "
         "from=<s@c.example> to=<r@d.example>", C, "", ""),
    ],
)  # fmt: skip
def test_forms_of_refusals(line: str, client: str, reply: str, dsn: str) -> None:
    data = parsed(line, recipient="r@d.example")
    [row] = data["rows"]
    assert (row["status"], row["sender"], row["recipient"]) == ("rejected", "s@c.example", "r@d.example")
    assert (row["client"], row["reply"], row["dsn"], data["unclear"]) == (client, reply, dsn, 0)
    assert row["direction"] == ("in" if client else "local")


@pytest.mark.parametrize(
    "line",
    [
        "postscreen[100]: NOQUEUE: reject: CONNECT from [192.0.2.4]:51234: too many connections",
        f"smtpd[100]: NOQUEUE: reject: CONNECT from {C}: 554 5.7.1 <{C}>: Client host rejected: no; proto=SMTP",
        f"smtpd[100]: NOQUEUE: reject: DATA from {C}: 421 4.3.0 mx1 Server local data error",
    ],
)
def test_a_dialogue_that_was_refused_before_an_address_is_a_row_without_one(line: str) -> None:
    [row] = parsed(line, recipient="*")["rows"]
    assert (row["status"], row["sender"], row["recipient"]) == ("rejected", None, "")
    assert "192.0.2.4" in row["client"]
    assert parsed(line)["rows"] == []


@pytest.mark.parametrize(
    "text",
    [
        "CONNECT from [192.0.2.4]:51234 to [192.0.2.1]:25",
        "PREGREET 14 after 0.3 from [192.0.2.4]:51234: EHLO x\\r\\n",
        "DNSBL rank 5 for [192.0.2.4]:51234",
        "BARE NEWLINE from [192.0.2.4]:51234 after RCPT",
        "HANGUP after 0.3 from [192.0.2.4]:51234 in tests before SMTP handshake",
        "NON-SMTP COMMAND from [192.0.2.4]:51234 after CONNECT: GET /",
        "DENYLISTED [192.0.2.4]:51234",
        "PASS NEW [192.0.2.4]:51234",
        "NOQUEUE: lost connection after CONNECT from c.example[192.0.2.4]",
        f"NOQUEUE: filter: RCPT from {C}: <r@d.example>: Recipient address triggers FILTER x:y; {ENVELOPE}",
        f"NOQUEUE: reject_warning: RCPT from {C}: {UNKNOWN}; {ENVELOPE}",
        f"NOQUEUE: permit: RCPT from {C}: action=x for Recipient address=y; {ENVELOPE}",
        f"proxy-accept: END-OF-MESSAGE from {C}: 250 2.0.0 from MTA: 250 2.0.0 Ok: queued as {A}; {ENVELOPE}",
        "warning: hostname x does not resolve to address 192.0.2.4",
        "statistics: max connection rate 1/60s",
    ],
)
def test_what_is_no_mail_and_no_fate_is_no_row(text: str) -> None:
    for program in ("postscreen", "smtpd", "cleanup", "qmgr"):
        data = parsed(f"{program}[100]: {text}", recipient="*")
        assert (data["rows"], data["unclear"]) == ([], 0)


@pytest.mark.parametrize("text", [f"client={C}", f"filter: RCPT from {C}: <x>: triggers FILTER a:b; {ENVELOPE}"])
def test_a_dialogue_that_led_to_no_mail_is_no_row(text: str) -> None:
    data = parsed(f"smtpd[100]: {A}: {text}", recipient="*")
    assert (data["rows"], data["unclear"]) == ([], 0)


HOLD = f"cleanup[101]: {A}: hold: header Received: from c.example by mx1 from {C}; {ENVELOPE}"


@pytest.mark.parametrize(
    ("verdict", "status"),
    [
        (HOLD, "held"),
        (f"cleanup[101]: {A}: milter-hold: END-OF-MESSAGE from {C}: milter triggers HOLD action; {ENVELOPE}", "held"),
        (f"cleanup[101]: {A}: milter-hold: END-OF-MESSAGE from {C}: default_action; {ENVELOPE}", "held"),
        (f"cleanup[101]: {A}: milter-header-hold: header X: y from {C}; {ENVELOPE}", "held"),
        (f"smtpd[100]: {A}: hold: RCPT from {C}: <r@d.example>: Recipient address triggers HOLD action; {ENVELOPE}",
         "held"),
        (f"cleanup[101]: {A}: discard: header Subject: offer from {C}; {ENVELOPE}: spam", "discarded"),
        (f"cleanup[101]: {A}: discard: body offer from local; from=<s@c.example> to=<r@d.example>", "discarded"),
        (f"cleanup[101]: {A}: milter-discard: END-OF-MESSAGE from {C}: milter triggers DISCARD action; {ENVELOPE}",
         "discarded"),
        (f"cleanup[101]: {A}: milter-body-discard: body x from {C}; {ENVELOPE}", "discarded"),
    ],
)  # fmt: skip
@pytest.mark.parametrize("criteria", [{"sender": "s@c.example"}, {"queue_id": A}, {"message_id": "m1@c.example"}])
def test_mail_that_a_check_held_or_threw_away(
    verdict: str, status: str, criteria: dict[str, str], tmp_path: Path
) -> None:
    first, named, _ = came()
    end = [f"cleanup[101]: {A}: removed (discarded)"] if status == "discarded" else []
    for lines in ([first, verdict, named, *end], [first, named, verdict]):
        [row] = traced(tmp_path, *lines, **criteria)["rows"]
        assert (row["recipient"], row["status"], row["message_id"]) == ("r@d.example", status, "<m1@c.example>")
        assert (row["sender"], row["client"]) == ("s@c.example", C)


def test_held_mail_that_was_released_is_what_came_of_it_then() -> None:
    first, named, active = came()
    free = f"postsuper[9]: {A}: released from hold"
    by_alias = went(A, f"orig_to=<r@d.example>, {VIA}, dsn=2.0.0, status=sent (250 ok)", "joe@d.example")
    assert told(parsed(first, HOLD, named, free, active, went(), removed())) == [("r@d.example", "sent")]
    assert told(parsed(first, HOLD, named, active, by_alias, removed())) == [("joe@d.example", "sent")]


@pytest.mark.parametrize(("verb", "status"), [("hold", "held"), ("milter-discard", "discarded")])
@pytest.mark.parametrize("criteria", [{"sender": "s@c.example"}, {"queue_id": A}])
def test_what_was_decided_before_the_queue_id_is_found_on_the_host_with_it(
    verb: str, status: str, criteria: dict[str, str], tmp_path: Path
) -> None:
    lines = (
        *came(B, sender="x@c.example"),
        f"smtpd[100]: NOQUEUE: {verb}: RCPT from {C}: <r@d.example>: triggers it; {ENVELOPE}",
        f"smtpd[100]: {A}: client={C}",
        *([f"cleanup[101]: {A}: message-id=<m2@c.example>"] if status == "held" else []),
        f"smtpd[100]: disconnect from {C} ehlo=1 mail=1 rcpt=1 data=1 quit=1 commands=5",
    )
    [row] = traced(tmp_path, *lines, **criteria)["rows"]
    assert (row["queue_id"], row["sender"], row["recipient"]) == (A, "s@c.example", "r@d.example")
    assert (row["status"], row["client"], row["instance"]) == (status, C, "postfix")
    if status == "held":
        [row] = traced(tmp_path, *lines, f"postsuper[105]: {A}: removed", **criteria)["rows"]
        assert row["status"] == "removed"


@pytest.mark.parametrize(
    ("verb", "status"), [("discard", "discarded"), ("milter-discard", "discarded"), ("hold", "held")]
)
def test_what_was_decided_before_the_queue_id_is_told_of_the_message(verb: str, status: str, tmp_path: Path) -> None:
    decided = f"smtpd[100]: NOQUEUE: {verb}: RCPT from {C}: <r@d.example>: triggers it; {ENVELOPE}"
    first, named, active = came()
    for criteria in ({"sender": "s@c.example"}, {"recipient": "*"}):
        [row] = traced(tmp_path, decided, first, named, **criteria)["rows"]
        assert (row["status"], row["queue_id"], row["recipient"]) == (status, A, "r@d.example")
    if status == "held":
        assert told(traced(tmp_path, decided, first, named, active, went(), removed())) == [("r@d.example", "sent")]
    refused = f"smtpd[100]: NOQUEUE: reject: RCPT from {C}: {UNKNOWN}; {ENVELOPE}"
    assert told(traced(tmp_path, decided, refused)) == [("r@d.example", "rejected")]


def test_one_recipient_that_is_refused_leaves_the_others_of_the_message() -> None:
    first, *rest = came()
    refused = f"smtpd[100]: {A}: reject: RCPT from {C}: {UNKNOWN}; {ENVELOPE}"
    data = parsed(first, refused, *rest, went(to="a@d.example"), removed())
    assert told(data) == [("a@d.example", "sent"), ("r@d.example", "rejected")]
    assert {(row["client"], row["message_id"]) for row in data["rows"]} == {(C, "<m1@c.example>")}


@pytest.mark.parametrize(
    "end",
    [
        f"smtpd[100]: {A}: lost connection after DATA (1234 bytes) from {C}",
        f"smtpd[100]: {A}: timeout after BDAT (0 bytes) from {C}",
        f"smtpd[100]: {A}: too many errors after DATA from {C}",
        f"cleanup[101]: {A}: canceled",
        f"cleanup[101]: {A}: removed (canceled)",
    ],
)
def test_mail_that_never_came_to_its_end_is_no_row_but_who_was_refused_is(end: str) -> None:
    first, named, _ = came()
    refused = f"smtpd[100]: {A}: reject: RCPT from {C}: {UNKNOWN}; {ENVELOPE}"
    assert parsed(first, named, end, queue_id=A)["rows"] == []
    assert told(parsed(first, refused, named, end, queue_id=A)) == [("r@d.example", "rejected")]


def test_mail_that_the_queue_manager_never_had_is_not_said_to_be_queued() -> None:
    """Before 3.10 nothing is logged when the client goes away within its content."""
    first, named, active = came()
    assert told(parsed(first, named, queue_id=A)) == [("", "unclear")]
    assert told(parsed(first, named, active, queue_id=A)) == [("", "queued")]


def test_repeated_lines_count_as_often_as_they_came(tmp_path: Path) -> None:
    said = f"NOQUEUE: reject: RCPT from {C}: {UNKNOWN}; {ENVELOPE}"
    data = traced(tmp_path, f"smtpd[1]: {said}", f"smtpd[1]: message repeated 4 times: [ {said}]")
    assert data["totals"]["rejected"] == 5


def test_an_instance_with_names_of_its_own_services_tells_its_own_mail() -> None:
    options = {"multi_instance_name": "postfix-out", "other_syslog_names": ["postfix"]}
    first, named, active = (line.replace("[", "[", 1) for line in came())
    mine = [f"postfix-out/{line}" for line in (first, named, active, removed())]
    mine.insert(3, f"postfix-out/relay/{went()}")
    assert told(parsed(*mine, options=options)) == [("r@d.example", "sent")]
    assert parsed(first, named, active, went(), removed(), options=options)["rows"] == []


FORGED = (
    f"smtpd[1]: NOQUEUE: reject: RCPT from {C}: 550 no; from=<a@x> to=<v@x> proto=SMTP helo=<x>; {ENVELOPE}",
    f"smtpd[1]: NOQUEUE: reject: DATA from {C}: 550 no; from=<s@c.example> proto=SMTP helo=<x> to=<v@x>",
    f'smtpd[1]: NOQUEUE: reject: MAIL from {C}: 550 no; from=<"x> to=<v@x> y"@c.example> proto=SMTP helo=<x>',
    f"cleanup[1]: {A}: discard: header Subject: a from b[1.2.3.4]; from=<a@x> to=<v@x> proto=X from {C}; {ENVELOPE}",
    went(A, f"{VIA}, dsn=5.0.0, status=bounced (x>, {VIA}, dsn=2.0.0, status=sent (250 ok)"),
    went(A, f"{VIA}, dsn=2.0.0, status=sent (250 ok)", f'"v@x>, {VIA}, dsn=2.0.0, status=sent (ok)"@d.example'),
    went(A, f"{VIA}, dsn=2.0.0, status=sent (250 ok)", 'v@x>, orig_to=<"b"@d.example>, orig_to=<r@d.example'),
    went(A, f"orig_to=<r@d.example>, {VIA}, dsn=2.0.0, status=sent (250 ok)", '"v@x>, a=b'),
    went(A, f"{VIA}, delay=7, dsn=2.0.0, status=sent (250 ok)"),
)


@pytest.mark.parametrize("line", FORGED)
def test_a_strangers_text_that_looks_like_a_field_tells_nothing(line: str) -> None:
    data = parsed(*came(), line, recipient="*")
    assert not [row for row in data["rows"] if "v@x" in row["recipient"] and row["status"] != "unclear"]
    assert {row["status"] for row in data["rows"]} <= {"unclear", "queued"}
    assert data["unclear"] > 0


@pytest.mark.timeout(5)
@pytest.mark.parametrize(
    "part",
    [", a=b", ", orig_to=<x>", ">, relay=x, delay=1", ", status=sent (", '"', '\\"', "<", ">", " from=<a>", " to=<",
     " proto=x", "; from=<", " helo=<", "milter-", "a-", ": ", "queued as 4A1B2C3D4E ", " from a[1]", "[", "/",
     "[127.1/", ", a=b, c=d", "4A1B"],
)  # fmt: skip
def test_long_hostile_lines_are_given_up_at_once(part: str) -> None:
    many = part * (64_000 // len(part))
    for text in (f"to=<{many}", f"to=<a>{many}, status=sent ({many})", f"to=<a>, relay=x[/y], status=sent ({many})"):
        delivery_of(text, 1.0)
    for text in (
        f"reject: {many}",
        f"reject: RCPT from a[1]: no; from=<{many}> to=<{many}>",
        f"milter-{many}reject: ",
        f"reject: RCPT from a[1]: no; from=<x>{many}>",
        f"reject: RCPT from {many}",
        f"hold: body {many}",
    ):
        refusal_of(text)
    arrival_of(f"client={many}, orig_client={many}")
    PICKUP.fullmatch(f"uid=1 from=<{many} x")
    line_of(f"mx1 postfix/smtpd[1]: {A}: {many}")
    line_of(many)


OPTIONAL = ("conn_use=2", "tls=may:encrypt", "some_new=x", "other=1/2")
FATES = {
    "sent": "dsn=2.0.0, status=sent (250 2.0.0 Ok: queued as 99)",
    "deferred": "dsn=4.7.1, status=deferred (host mx said: 450 4.7.1 Greylisted, see <http://x.example/?a=b>)",
    "bounced": "dsn=5.1.1, status=bounced (host mx said: 550 5.1.1 <r@d.example>: no (in reply to RCPT TO command))",
    "expired": "dsn=4.7.1, status=deferred (later)",
    "discarded": "dsn=2.0.0, status=sent (gone)",
}
RECIPIENTS = st.dictionaries(
    st.sampled_from(["a@d.example", "b@d.example", '"x, y"@d.example', '"q> z"@d.example']),
    st.tuples(st.sampled_from(sorted(FATES)), st.sampled_from(["", "team@c.example", '"t> u"@c.example'])),
    min_size=1,
)


@settings(max_examples=60, deadline=None)
@given(st.data(), RECIPIENTS, st.booleans(), st.sampled_from(["client", "filter", "milter"]), st.integers(0, 2))
def test_the_same_history_with_any_optional_field_in_any_order_gives_the_same_rows(
    data: st.DataObject, recipients: dict[str, tuple[str, str]], is_named_anew: bool, way: str, retries: int
) -> None:
    service = "out/" if is_named_anew else ""

    def attempt(address: str, orig_to: str, fate: str) -> str:
        relay = "none" if fate == "discarded" else "mx.d.example[192.0.2.9]:25"
        fields = [f"relay={relay}", "delay=0.4", "delays=0.1/0/0.2/0.1"]
        fields += [f"orig_to=<{orig_to}>"] if orig_to else []
        fields += data.draw(st.lists(st.sampled_from(OPTIONAL), unique=True))
        line = went(B, f"{', '.join(data.draw(st.permutations(fields)))}, {FATES[fate]}", address)
        return f"postfix/{service}{line}"

    lines: Sequence[str] = came(B)
    if way == "filter":
        again = came(B, client=f"localhost[127.0.0.1], orig_queue_id={A}, orig_client={C}")
        lines = (*came(A), *again, went(A, f"relay=f[127.0.0.1]:10024, delay=1, status=sent (250 Ok: queued as {B})"))
    if way == "milter":
        held = f"cleanup[101]: {B}: milter-hold: END-OF-MESSAGE from {C}: wait; from=<s@c.example> proto=ESMTP"
        lines = (*lines[:2], held, f"postsuper[1]: {B}: released from hold", *lines[2:])
    told_of = [(address, orig_to, fate) for address, (fate, orig_to) in recipients.items()]
    tries = [attempt(*each[:2], "deferred") for each in told_of for _ in range(retries)]
    last = data.draw(st.permutations([attempt(*each) for each in told_of]))
    ends = [f"qmgr[102]: {B}: from=<s@c.example>, status=expired, returned to sender", removed(B)]
    if any(fate == "deferred" for *_, fate in told_of):
        ends = []
    found = parsed(*lines, *tries, *last, *ends)
    expected = [(to, orig, fate if ends or fate != "expired" else "deferred") for to, orig, fate in told_of]
    rows = {(row["recipient"], row["orig_to"], row["status"]) for row in found["rows"] if row["recipient"]}
    assert rows == set(expected)
    assert {(row["client"], row["queue_id"]) for row in found["rows"]} == {(C, B)}
    assert found["unclear"] == 0


def test_the_parts_of_a_line() -> None:
    [line] = log(f"relay/smtp[7]: {A}: to=<r@d.example>, x").splitlines()
    for text in (line, line.partition(" 12:")[2][6:], line.partition(" mx1 ")[2]):
        parts = line_of(text.replace("relay/", "postfix/relay/") if "postfix" not in text else text)
        assert parts is not None
        assert (parts.program, parts.queue_id, parts.text) == ("smtp", A, "to=<r@d.example>, x")
        assert parts.name in ("postfix/relay", "relay")
