"""Reading back claims nothing that the queue and the log do not prove."""

import pytest

from fleet.mta.operations import MessageDeliver, Operation, QueueBounce, QueueHold, QueueRequeue
from fleet.mta.records import Fingerprint
from tests.unit.postfix_host import FakeHost, context
from tests.unit.test_postfix_changes import HERE, POSTFIX, by, host, ids, outcomes

__all__ = ["host"]


def frozen_of(host: FakeHost, *queue_ids: str) -> tuple[Fingerprint, ...]:
    """The messages as a plan names them."""
    chosen = host.drive(POSTFIX.queue_hold(HERE, QueueHold(ids(*queue_ids)), context()), until_plan=True)
    return chosen.selected


def test_an_older_attempt_in_the_log_is_not_taken_for_the_one_that_was_cut_off(host: FakeHost) -> None:
    frozen = frozen_of(host, "AAAAAA1")
    host.log.append(
        "Nov 19 10:00:00 mx1 postfix/smtp[9]: AAAAAA1: to=<r@defer.test>, relay=10.0.0.1[10.0.0.1]:25, delay=1, "
        "delays=0/0/1/0, dsn=4.0.0, status=deferred (host 10.0.0.1[10.0.0.1] said: 451 later (in reply to RCPT TO))"
    )
    assert host.drive(POSTFIX.read_back(HERE, MessageDeliver("AAAAAA1"), context(frozen=frozen))) is None


@pytest.mark.parametrize("operation", [QueueBounce(by("from:news@*")), QueueRequeue(by("from:news@*"))])
def test_messages_that_a_cut_off_change_left_on_hold_are_told(host: FakeHost, operation: Operation) -> None:
    frozen = frozen_of(host, "AAAAAA1", "AAAAAA2")
    host.mail["AAAAAA1"].state = "hold"
    del host.mail["AAAAAA2"]
    result = host.drive(POSTFIX.read_back(HERE, operation, context(frozen=frozen)))
    assert result is not None
    assert outcomes(result) == {"AAAAAA1": "left", "AAAAAA2": "already_gone"}
    assert result.data["held"] == ["AAAAAA1"]


@pytest.mark.parametrize("operation", [QueueBounce(by("from:news@*")), QueueRequeue(by("from:news@*"))])
def test_without_a_message_on_hold_the_queue_does_not_tell_what_became_of_them(
    host: FakeHost, operation: Operation
) -> None:
    frozen = frozen_of(host, "AAAAAA1", "AAAAAA2")
    assert host.drive(POSTFIX.read_back(HERE, operation, context(frozen=frozen))) is None
