"""What became of a message, as one table: what the host said of it against what is there afterwards."""

import pytest

from fleet.mta.queue.outcome import Verb, Word, judge
from fleet.mta.records import MessageState, QueueEntry

DONE, GONE, BUSY, LEFT = (
    MessageState.DONE,
    MessageState.ALREADY_GONE,
    MessageState.IN_DELIVERY,
    MessageState.LEFT,
)
ALREADY = None
"""In the wanted state, and not by us."""

# What is queued of it afterwards: (said to be done, nothing said, said to be left, said to be busy).
TAKEN = {
    "hold": (LEFT, LEFT, LEFT, BUSY),
    "deferred": (LEFT, LEFT, LEFT, BUSY),
    "active": (BUSY, BUSY, LEFT, BUSY),
    "": (DONE, GONE, LEFT, BUSY),
}
BEGUN = {
    "hold": (DONE, LEFT, LEFT, BUSY),
    "deferred": (DONE, LEFT, LEFT, BUSY),
    "active": (DONE, BUSY, LEFT, BUSY),
    "": (DONE, GONE, LEFT, BUSY),
}
TABLE = {
    Verb.HOLD: {
        "hold": (DONE, ALREADY, ALREADY, BUSY),
        "deferred": (LEFT, LEFT, LEFT, BUSY),
        "active": (LEFT, BUSY, LEFT, BUSY),
        "": (GONE, GONE, LEFT, BUSY),
    },
    Verb.RELEASE: {
        "hold": (LEFT, LEFT, LEFT, BUSY),
        "deferred": (DONE, ALREADY, ALREADY, BUSY),
        "active": (DONE, ALREADY, ALREADY, BUSY),
        "": (DONE, GONE, LEFT, BUSY),
    },
    Verb.DELETE: TAKEN,
    Verb.BOUNCE: TAKEN,
    Verb.PUT_BACK: dict.fromkeys(("hold", "deferred", "active"), (DONE, DONE, DONE, BUSY)) | {"": TAKEN[""]},
    Verb.ERASE: {"": (DONE, DONE, LEFT, BUSY)},
    Verb.ATTEMPT: BEGUN,
    Verb.REQUEUE: BEGUN,
}
WORDS = (Word.DONE, None, Word.LEFT, Word.BUSY)


def queued(state: str) -> QueueEntry | None:
    return QueueEntry("A1", state, state, 1.0, "a@b.test", (), 10) if state else None


@pytest.mark.parametrize(("verb", "state"), [(verb, state) for verb, rows in TABLE.items() for state in rows])
def test_a_message_is_judged_by_what_was_said_and_by_what_is_there(verb: Verb, state: str) -> None:
    assert tuple(judge(verb, queued(state), word) for word in WORDS) == TABLE[verb][state]


@pytest.mark.parametrize("word", [Word.DONE, None, Word.LEFT])
def test_what_was_taken_out_is_done_only_when_it_lies_there_and_is_not_queued(word: Word | None) -> None:
    assert judge(Verb.TAKE_OUT, None, word, is_lying=True) is DONE
    assert judge(Verb.TAKE_OUT, None, word, is_lying=False) is not DONE
    for state in ("deferred", "hold", "active"):
        assert judge(Verb.TAKE_OUT, queued(state), word, is_lying=True) in (LEFT, BUSY)


def test_what_was_put_back_and_left_the_queue_since_is_done_and_what_cannot_come_back_is_left() -> None:
    assert judge(Verb.PUT_BACK, None, Word.DONE, is_lying=True) is DONE
    for word in (None, Word.LEFT):
        assert judge(Verb.PUT_BACK, None, word, is_lying=True) is LEFT


@pytest.mark.parametrize("word", [Word.DONE, None, Word.LEFT])
def test_what_lies_in_the_quarantine_still_is_not_erased(word: Word | None) -> None:
    assert judge(Verb.ERASE, None, word, is_lying=True) is LEFT
