"""message.trace and message.deliver of Postfix: shapes of lines from the field."""

from pathlib import Path
from typing import Any

import pytest

from fleet.mta.logs.rows import Trace
from fleet.mta.logs.source import Window
from fleet.mta.logs.wanted import Wanted
from fleet.mta.operations import MessageTrace
from fleet.mta.postfix import Postfix
from fleet.mta.postfix.attempt import attempts_of
from fleet.mta.postfix.logs import LOG
from fleet.mta.queue.delivery import outcome_of
from fleet.mta.records import InstanceFacts
from tests.unit.log_host import LogHost

A, B = "4A1B2C3D4E", "5B1B2C3D4E"
LONG_A, LONG_B = "4cQk2h3z0Tz9QcV", "4cQk2h3z0Tz9QcW"
VIA = "relay=mx.d.example[192.0.2.9]:25, delay=0.4, delays=0.1/0/0.2/0.1"
FILTER = "relay=127.0.0.1[127.0.0.1]:10024, delay=3.5, delays=1.2/0.01/0/2.3"
ENVELOPE = "from=<s@c.example> to=<r@d.example> proto=ESMTP helo=<c.example>"
C = "c.example[192.0.2.4]"


def log(*lines: str) -> str:
    """Lines a second apart: the program first, as `smtpd[100]: ...` or with another name of the service."""
    stamps = (f"Nov 21 12:{at // 60:02}:{at % 60:02} mx1 " for at in range(1, len(lines) + 1))
    return "".join(
        f"{stamp}{'' if line.partition('[')[0].count('/') else 'postfix/'}{line}\n"
        for stamp, line in zip(stamps, lines, strict=True)
    )


def came(queue_id: str = A, *, client: str = C, sender: str = "s@c.example", nrcpt: int = 1) -> tuple[str, ...]:
    return (
        f"smtpd[100]: {queue_id}: client={client}",
        f"cleanup[101]: {queue_id}: message-id=<m1@c.example>",
        f"qmgr[102]: {queue_id}: from=<{sender}>, size=500, nrcpt={nrcpt} (queue active)",
    )


def went(queue_id: str = A, rest: str = f"{VIA}, dsn=2.0.0, status=sent (250 ok)", to: str = "r@d.example") -> str:
    return f"smtp[103]: {queue_id}: to=<{to}>, {rest}"


def removed(queue_id: str = A) -> str:
    return f"qmgr[102]: {queue_id}: removed"


def traced(directory: Path, *lines: str, **criteria: Any) -> dict[str, Any]:
    host = LogHost("postfix", directory)
    host.put("mail.log", log(*lines).encode())
    return host.data(Postfix.message_trace, MessageTrace(**(criteria or {"sender": "s@c.example"})))


def parsed(*lines: str, **criteria: Any) -> dict[str, Any]:
    """The same without a host that leaves out lines of other mail. `options`: of the instance."""
    options = criteria.pop("options", {})
    trace = Trace(Wanted.of(MessageTrace(**(criteria or {"sender": "s@c.example"})), str), Window(0, 1000))
    take = LOG.parser(trace, InstanceFacts("mx1", "postfix", "postfix", "3", "/etc", (), options=options))
    for at, line in enumerate(log(*lines).splitlines()):
        take(at, line.partition(" mx1 ")[2])
    return {"rows": trace.rows(), "totals": trace.totals, "unclear": trace.unclear}


def told(data: dict[str, Any]) -> list[tuple[str, str]]:
    return sorted((row["recipient"], row["status"]) for row in data["rows"])


@pytest.mark.parametrize(
    "field",
    ["tls=may:encrypt", "tls=none", "tls=may?", "tls=may:none", "tls=dane:halfdane",
     "tls=dane/!requiretls:nocertmatch", "conn_use=17", "some_new=field"],
)  # fmt: skip
def test_a_field_that_is_new_hides_no_delivery(field: str) -> None:
    line = went(A, f"{VIA}, {field}, dsn=2.0.0, status=sent (250 2.0.0 Ok: queued as 99)")
    data = parsed(*came(), line, removed(), recipient="r@d.example")
    [row] = data["rows"]
    assert (row["status"], row["dsn"], row["relay"]) == ("sent", "2.0.0", "mx.d.example[192.0.2.9]:25")
    assert (row["client"], row["sender"], row["delay"], data["unclear"]) == (C, "s@c.example", 0.4, 0)
    [attempt] = attempts_of(log(line).splitlines(), A)
    assert (attempt.address, attempt.outcome, attempt.reply) == ("r@d.example", "sent", "250 2.0.0 Ok: queued as 99")


@pytest.mark.parametrize(
    ("fields", "status"),
    [
        (f"dsn=4.7.1, tls=none, {VIA}, status=deferred (later)", "deferred"),
        (f"{VIA}, orig_to=<info@c.example>, dsn=5.1.1, status=bounced (550 no)", "bounced"),
        (f"{VIA}, dsn=4.1.1, status=SOFTBOUNCE (550 5.1.1 no)", "deferred"),
        ("relay=none, delay=0.4, delays=0.1/0/0/0.3, dsn=2.0.0, status=sent (throw it away)", "discarded"),
        ("relay=local, delay=1, delays=1/0/0/0, dsn=2.0.0, status=sent (delivered to file: /dev/null)", "discarded"),
        ("relay=local, delay=1, delays=1/0/0/0, dsn=2.0.0, status=sent (delivered to mailbox)", "sent"),
        ("relay=h[private/dovecot-lmtp], delay=1, dsn=2.0.0, status=sent (250 2.0.0 <r@d.example> x Saved)", "sent"),
        (f"{FILTER}, dsn=2.7.0, status=sent (250 2.7.0 Ok, discarded, id=1-01 - spam)", "discarded"),
        (f"{FILTER}, dsn=2.5.0, status=sent (250 2.5.0 Ok, id=1-01, BOUNCE)", "bounced"),
        (f"{FILTER}, dsn=5.7.0, status=bounced (host 127.0.0.1[127.0.0.1] said: 554 5.7.0 Reject, id=1)", "bounced"),
        (f"{FILTER}, dsn=2.0.0, status=sent (250 2.0.0 Ok: 900 bytes queued as {B})", "handed_over"),
        (f"relay=::1[::1]:10024, delay=1, dsn=2.0.0, status=sent (250 2.0.0 Ok: queued as {LONG_B})", "handed_over"),
        (f"relay=local, delay=1, dsn=2.0.0, status=sent (forwarded as {B})", "handed_over"),
        (f"{VIA}, dsn=2.0.0, status=sent (250 2.7.0 Ok, discarded, id=1-01 - spam)", "sent"),
        (f"{VIA}, dsn=2.0.0, status=sent (250 2.0.0 Ok: queued as {B})", "sent"),
        (f"{VIA}, dsn=5.0.0, status=bounced (host mx.d.example[192.0.2.9] said: 550 a very long answer tha", "bounced"),
        (f"{VIA}, dsn=2.0.0, status=delayed-somehow (250 ok)", "unclear"),
        (f"{VIA}, dsn=2.0.0, stat", "unclear"),
        ("relay=x[192.0.2.9]:25, delay=99999999999999999999, dsn=2.0.0, status=sent (250 ok)", "unclear"),
    ],
)  # fmt: skip
def test_trace_and_deliver_read_a_line_alike(fields: str, status: str) -> None:
    line = went(A, fields)
    data = parsed(*came(), line)
    address = "" if status == "unclear" else "r@d.example"
    assert told(data) == [(address, status)]
    assert {name: count for name, count in data["totals"].items() if count} == {status: 1}
    [attempt] = attempts_of(log(line).splitlines(), A)
    assert (attempt.address, attempt.outcome) == (address, status)
    if "127.0.0.1" in fields or "private/" in fields or "relay=local" in fields:
        assert data["rows"][0]["direction"] == "in"


@pytest.mark.parametrize(
    ("outcomes", "expected"),
    [
        (["sent", "bounced"], "bounced"),
        (["bounced", "sent"], "bounced"),
        (["sent", "discarded"], "discarded"),
        (["handed_over"], "left_queue"),
        (["unclear", "sent"], "left_queue"),
    ],
)
def test_two_targets_of_an_alias_are_told_apart_by_deliver_and_the_worst_counts(
    outcomes: list[str], expected: str
) -> None:
    rest = {
        "sent": f"{VIA}, dsn=2.0.0, status=sent (250 ok)",
        "bounced": f"{VIA}, dsn=5.1.1, status=bounced (550 no)",
        "discarded": "relay=none, delay=1, delays=1/0/0/0, dsn=2.0.0, status=sent (gone)",
        "handed_over": f"{FILTER}, dsn=2.0.0, status=sent (250 Ok: queued as {B})",
        "unclear": f"{VIA}, dsn=2.0.0, status=odd (250 ok)",
    }
    lines = [went(A, f"orig_to=<team@c.example>, {rest[each]}", f"r{at}@d.example") for at, each in enumerate(outcomes)]
    attempts = attempts_of(log(*lines).splitlines(), A)
    assert [each.outcome for each in attempts] == outcomes
    assert {each.orig_to for each in attempts if each.address} <= {"team@c.example"}
    assert outcome_of(attempts, is_queued=False) == expected


@pytest.mark.parametrize("order", [1, -1])
def test_an_alias_to_a_program_and_a_file_is_the_worst_of_both(order: int) -> None:
    def by_local(text: str, waited: str = "0.1") -> str:
        return (
            f"local[103]: {A}: to=<team@c.example>, relay=local, delay=9, delays={waited}/0/0/0.3, dsn=0, status={text}"
        )

    lines = [by_local("bounced (Command died: no)"), by_local("sent (delivered to file: /var/mail/team)")][::order]
    assert told(parsed(*came(), *lines)) == [("team@c.example", "bounced")]
    [attempt] = attempts_of(log(*lines).splitlines(), A)
    assert attempt.outcome == "bounced"
    later = [by_local("deferred (full)"), by_local("sent (delivered to file: /var/mail/team)", "310")]
    assert told(parsed(*came(), *later)) == [("team@c.example", "sent")]


def test_two_addresses_that_lead_to_one_mailbox_are_both_found(tmp_path: Path) -> None:
    rest = f"{VIA}, dsn=2.0.0, status=sent (250 ok)"
    lines = [went(A, f"orig_to=<{name}@c.example>, {rest}", "joe@d.example") for name in ("sales", "info")]
    for name in ("sales", "info"):
        [row] = traced(tmp_path, *came(nrcpt=2), *lines, recipient=f"{name}@c.example")["rows"]
        assert (row["recipient"], row["orig_to"], row["status"]) == ("joe@d.example", f"{name}@c.example", "sent")


FILTERED = (
    *came(A),
    f"smtpd[110]: {B}: client=localhost[127.0.0.1], orig_queue_id={A}, orig_client={C}",
    f"cleanup[101]: {B}: message-id=<m1@c.example>",
    f"qmgr[102]: {B}: from=<s@c.example>, size=900, nrcpt=1 (queue active)",
)
TAKEN = f"dsn=2.0.0, status=sent (250 2.0.0 from MTA(smtp:[127.0.0.1]:10025): 250 2.0.0 Ok: queued as {B})"
BOUNCED = went(B, f"{VIA}, dsn=5.1.1, status=bounced (host mx.d.example[192.0.2.9] said: 550 5.1.1 no such user)")


@pytest.mark.parametrize(
    "criteria", [{"sender": "s@*"}, {"queue_id": A}, {"queue_id": B}, {"recipient": "r@d.example"}]
)
@pytest.mark.parametrize(
    "rest",
    [
        (went(A, f"{FILTER}, {TAKEN}"), removed(A), BOUNCED, removed(B)),
        (BOUNCED, removed(B), went(A, f"{FILTER}, {TAKEN}"), removed(A)),
        (went(A, f"relay=av[172.17.0.2]:10024, delay=1, {TAKEN}"), removed(A), BOUNCED, removed(B)),
    ],
    ids=["filter first", "target first", "filter in a container"],
)
def test_a_mail_through_a_content_filter_is_one_row(
    rest: tuple[str, ...], criteria: dict[str, str], tmp_path: Path
) -> None:
    data = traced(tmp_path, *FILTERED, *rest, **criteria)
    [row] = data["rows"]
    assert (row["queue_id"], row["status"], row["client"], row["direction"]) == (B, "bounced", C, "out")
    assert (data["totals"]["sent"], data["totals"]["bounced"]) == (0, 1)


@pytest.mark.parametrize("queue_id", [A, B])
def test_a_filter_that_says_nothing_of_the_first_queue_id_is_followed_by_its_answer(
    queue_id: str, tmp_path: Path
) -> None:
    lines = [line.replace(f", orig_queue_id={A}, orig_client={C}", "") for line in FILTERED]
    [row] = traced(tmp_path, *lines, went(A, f"{FILTER}, {TAKEN}"), removed(A), BOUNCED, queue_id=queue_id)["rows"]
    assert (row["queue_id"], row["status"], row["client"]) == (B, "bounced", C)


def test_a_login_name_cannot_tell_another_client() -> None:
    login = f"{C}, sasl_method=PLAIN, sasl_username=joe, orig_client=x.example[9.9.9.9]"
    [row] = parsed(*came(client=login), went())["rows"]
    assert (row["client"], row["direction"]) == (C, "out")
    [row] = parsed(*came(client=f"{C}:4711"), went())["rows"]
    assert row["client"] == C


def test_a_filter_program_that_gives_the_mail_back_has_not_delivered_it() -> None:
    back = (
        f"pickup[105]: {B}: uid=1001 from=<s@c.example>",
        f"cleanup[101]: {B}: message-id=<m1@c.example>",
        f"qmgr[102]: {B}: from=<s@c.example>, size=900, nrcpt=1 (queue active)",
    )
    by_pipe = f"relay=filter, delay=1, {'dsn=2.0.0, status=sent (delivered via filter service)'}"
    data = parsed(*came(), *back, went(A, by_pipe), removed(), went(B), removed(B))
    assert [(row["queue_id"], row["status"]) for row in data["rows"]] == [(A, "handed_over"), (B, "sent")]
    assert data["totals"]["sent"] == 1
    assert told(parsed(*came(), went(A, by_pipe), removed())) == [("r@d.example", "sent")]


def test_a_mail_that_is_requeued_is_one_mail(tmp_path: Path) -> None:
    lines = (
        *came(nrcpt=2),
        went(A, to="a@d.example"),
        went(A, f"{VIA}, dsn=4.0.0, status=deferred (later)"),
        f"postsuper[9]: {A}: requeued",
        f"pickup[105]: {B}: uid=105 from=<s@c.example> orig_id={A}",
        f"cleanup[101]: {B}: message-id=<m1@c.example>",
        f"qmgr[102]: {B}: from=<s@c.example>, size=510, nrcpt=2 (queue active)",
        went(B),
        removed(B),
    )
    for criteria in ({"sender": "s@c.example"}, {"queue_id": A}):
        data = traced(tmp_path, *lines, **criteria)
        assert told(data) == [("a@d.example", "sent"), ("r@d.example", "sent")]
        assert {row["client"] for row in data["rows"]} == {C}


@pytest.mark.parametrize("word", ["deliverable", "undeliverable", "undeliverable-but-not-cached"])
def test_an_address_check_is_no_mail(word: str) -> None:
    probe = (f"cleanup[101]: {A}: message-id=<p@mx1>", f"qmgr[102]: {A}: from=<double-bounce@mx1>, size=1, nrcpt=1 "
             "(queue active)")  # fmt: skip
    rest = f"{VIA}, dsn=2.1.5, status={word} (250 2.1.5 Ok)"
    for criteria in ({"recipient": "r@d.example"}, {"recipient": "*"}, {"queue_id": A}):
        assert parsed(*probe, went(A, rest), removed(), **criteria)["rows"] == []


@pytest.mark.parametrize(("word", "status"), [("expired", "expired"), ("force-expired", "expired")])
def test_a_message_that_was_given_up_is_expired_with_its_last_reply(word: str, status: str) -> None:
    lines = (
        *came(),
        went(A, f"{VIA}, dsn=4.0.0, status=deferred (451 later)"),
        f"postsuper[9]: {A}: expired",
        f"qmgr[102]: {A}: from=<s@c.example>, status={word}, returned to sender",
        f"bounce[104]: {A}: sender non-delivery notification: {B}",
        removed(),
    )
    [row] = parsed(*lines)["rows"]
    assert (row["status"], row["reply"]) == (status, "451 later")
