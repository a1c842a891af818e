"""How rows of messages are joined from what a log tells, whatever the MTA."""

from typing import Any

import pytest

from fleet.mta.logs.heads import once
from fleet.mta.logs.rows import Delivery, Trace
from fleet.mta.logs.source import Window
from fleet.mta.logs.wanted import Wanted
from fleet.mta.operations import MessageTrace
from fleet.mta.queue.delivery import Attempt, outcome_of

JOE, ANN = "joe@d.test", "ann@d.test"


def trace_of(**criteria: Any) -> Trace:
    return Trace(Wanted.of(MessageTrace(**criteria or {"sender": "*"}), str), Window(0, 1000))


def begun(trace: Trace, queue_id: str = "A") -> Trace:
    message = trace.message(queue_id, 1, begins=True)
    message.sender, message.client = "s@c.test", "c.test"
    return trace


def rows(trace: Trace) -> list[tuple[str, str, str]]:
    return sorted((row["recipient"], row["orig_to"], row["status"]) for row in trace.rows())


def test_two_aliases_of_one_mailbox_and_two_targets_of_one_alias_have_a_row_each() -> None:
    trace = begun(trace_of())
    trace.delivered("A", JOE, Delivery(2, "sent", orig_to="sales@c.test"))
    trace.delivered("A", JOE, Delivery(3, "sent", orig_to="info@c.test"))
    trace.delivered("A", ANN, Delivery(4, "bounced", orig_to="info@c.test"))
    assert rows(trace) == [
        (ANN, "info@c.test", "bounced"),
        (JOE, "info@c.test", "sent"),
        (JOE, "sales@c.test", "sent"),
    ]


@pytest.mark.parametrize("orig_to", [JOE, ""])
def test_an_address_that_is_its_own_original_is_one_recipient(orig_to: str) -> None:
    trace = begun(trace_of())
    trace.delivered("A", JOE, Delivery(2, "deferred"))
    trace.delivered("A", JOE, Delivery(3, "sent", orig_to=orig_to))
    assert rows(trace) == [(JOE, "", "sent")]


def test_what_was_named_before_its_alias_was_known_is_that_recipient() -> None:
    trace = begun(trace_of())
    trace.named("A", JOE, Delivery(2, "queued"))
    trace.delivered("A", JOE, Delivery(3, "sent", orig_to="sales@c.test"))
    assert rows(trace) == [(JOE, "sales@c.test", "sent")]


def test_naming_a_recipient_again_forgets_no_attempt() -> None:
    trace = begun(trace_of())
    trace.delivered("A", JOE, Delivery(2, "deferred", reply="451 later"))
    trace.named("A", JOE, Delivery(3, "queued"))
    [row] = trace.rows()
    assert (row["status"], row["reply"]) == ("deferred", "451 later")


@pytest.mark.parametrize(
    ("before", "expected"),
    [
        ([], [("", "", "unclear")]),
        ([(JOE, "deferred")], [(JOE, "", "unclear")]),
        ([(JOE, "sent")], [("", "", "unclear"), (JOE, "", "sent")]),
        ([(JOE, "sent"), (ANN, "queued")], [(ANN, "", "unclear"), (JOE, "", "sent")]),
    ],
)
def test_a_fate_that_was_not_understood_is_unclear_with_its_line(
    before: list[tuple[str, str]], expected: list[tuple[str, str, str]]
) -> None:
    trace = begun(trace_of())
    for address, status in before:
        trace.delivered("A", address, Delivery(2, status))
    trace.not_understood("A", 3, "to=? what is this")
    told = trace.rows()
    assert sorted((row["recipient"], row["orig_to"], row["status"]) for row in told) == expected
    assert {row["reply"] for row in told if row["status"] == "unclear"} == {"to=? what is this"}
    assert (trace.unclear, trace.totals["unclear"]) == (1, 1)


@pytest.mark.parametrize(("line", "count"), [("to=<JOE@d.test>, odd", 1), ("to=<ann@d.test>, odd", 0)])
def test_a_line_not_understood_is_found_by_the_recipient_that_it_names(line: str, count: int) -> None:
    trace = begun(trace_of(recipient=JOE))
    trace.not_understood("A", 3, line)
    assert len(trace.rows()) == count


def test_what_left_the_queue_without_a_word_of_its_end_is_unclear() -> None:
    trace = begun(begun(trace_of()), "B")
    trace.delivered("A", JOE, Delivery(2, "deferred"))
    trace.close("A")
    trace.close("B")
    assert rows(trace) == [("", "", "unclear"), (JOE, "", "unclear")]


def test_a_mail_that_a_filter_brings_back_is_one_mail() -> None:
    trace = begun(trace_of())
    trace.message("B", 2, begins=True).sender = "s@c.test"
    trace.handed_over("A", JOE, Delivery(3, "sent", "127.0.0.1:10024"), "B")
    trace.close("A")
    trace.delivered("B", JOE, Delivery(4, "bounced"))
    [row] = trace.rows()
    assert (row["queue_id"], row["status"], row["client"]) == ("B", "bounced", "c.test")


def test_a_mail_whose_way_on_was_read_before_is_one_mail_too() -> None:
    trace = begun(trace_of())
    trace.message("B", 2, begins=True).sender = "s@c.test"
    trace.delivered("B", JOE, Delivery(3, "sent"))
    trace.close("B")
    trace.handed_over("A", JOE, Delivery(4, "sent"), "B")
    trace.close("A")
    assert [(row["queue_id"], row["status"]) for row in trace.rows()] == [("B", "sent")]


@pytest.mark.parametrize("queue_id", ["A", "B"])
def test_by_either_queue_id_a_mail_whose_way_on_was_read_before_is_told_once(queue_id: str) -> None:
    trace = begun(trace_of(queue_id=queue_id))
    trace.message("B", 2, begins=True).sender = "s@c.test"
    for recipient in (JOE, ANN):
        trace.delivered("B", recipient, Delivery(3, "sent"))
    trace.close("B")
    for recipient in (JOE, ANN):
        trace.handed_over("A", recipient, Delivery(4, "sent"), "B")
    trace.close("A")
    assert [(row["queue_id"], row["recipient"], row["status"]) for row in trace.rows()] == [
        ("B", JOE, "sent"),
        ("B", ANN, "sent"),
    ]
    assert trace.totals["sent"] == 2


def test_a_mail_that_was_handed_over_to_what_is_not_in_the_log_says_so() -> None:
    trace = begun(trace_of())
    trace.handed_over("A", JOE, Delivery(3, "sent", "127.0.0.1:10024"), "B")
    trace.close("A")
    [row] = trace.rows()
    assert (row["status"], row["direction"], trace.totals["sent"]) == ("handed_over", "in", 0)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("mx1 postfix/smtpd[1]: NOQUEUE: x", ("mx1 postfix/smtpd[1]: NOQUEUE: x", 1)),
        ("mx1 smtpd[1]: message repeated 4 times: [ NOQUEUE: x [y]]", ("mx1 smtpd[1]: NOQUEUE: x [y]", 4)),
        ("postfix/smtpd[1]: message repeated 2 times: [ NOQUEUE: x]", ("postfix/smtpd[1]: NOQUEUE: x", 2)),
        ("mx1 a[1]: message repeated 999999999 times: [ x]", ("mx1 a[1]: x", 10_000)),
        ("mx1 a[1]: said: message repeated 9 times: [ x]", ("mx1 a[1]: said: message repeated 9 times: [ x]", 1)),
    ],
)  # fmt: skip
def test_repeated_lines_count_as_often_as_they_came(text: str, expected: tuple[str, int]) -> None:
    assert once(text) == expected


@pytest.mark.parametrize("is_queued", [True, False])
@pytest.mark.parametrize(
    ("outcomes", "gone", "queued"),
    [
        (["sent"], "sent", "deferred"),
        (["sent", "bounced"], "bounced", "bounced"),
        (["bounced", "sent"], "bounced", "bounced"),
        (["discarded", "sent"], "discarded", "discarded"),
        (["deferred", "sent"], "left_queue", "deferred"),
        (["odd", "sent"], "left_queue", "deferred"),
        ([], "left_queue", "deferred"),
    ],
)
def test_of_several_recipients_the_worst_counts(outcomes: list[str], gone: str, queued: str, is_queued: bool) -> None:
    attempts = [Attempt(f"{at}@d.test", outcome) for at, outcome in enumerate(outcomes)]
    assert outcome_of(attempts, is_queued=is_queued) == (queued if is_queued else gone)


@pytest.mark.parametrize(
    ("asked", "logged"),
    [
        ("s@müller.example", "s@xn--mller-kva.example"),
        ("s@xn--mller-kva.example", "s@müller.example"),
        ("S@Müller.Example", "s@XN--MLLER-KVA.example"),
        ('"s"@c.test', "s@c.test"),
        ("s@c.test", '"s"@c.test'),
        ("s@c.test", '"S"@C.test'),
        ("*long-name@c.test", '"a-long-name"@c.test'),
        ('"long-name"@c.test', '"long-name"@c.test'),
        ("long-name@c*", '"long-name"@c.test'),
        ("*@müller.example", "s@xn--mller-kva.example"),
    ],
)
def test_an_address_is_found_in_either_form_of_its_domain_and_by_the_host_too(asked: str, logged: str) -> None:
    trace = trace_of(sender=asked)
    trace.message("A", 1, begins=True).sender = logged
    assert len(trace.rows()) == 1
    texts = Wanted.of(MessageTrace(sender=asked), str).texts()
    assert all(texts)
    assert any(text.lower() in logged.lower() for text in texts)


@pytest.mark.parametrize("logged", ["t@müller.example", "s@mueller.example", "s@muller.example"])
def test_another_address_is_not_found(logged: str) -> None:
    trace = trace_of(sender="s@müller.example")
    trace.message("A", 1, begins=True).sender = logged
    assert trace.rows() == []
