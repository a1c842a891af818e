"""What a chat or a ticket is told: words, plurals, lengths, and never more than is proven."""

from typing import Any

import pytest

from fleet.mta.params.catalogue import CATALOGUE
from jobs import words

COUNTS = dict.fromkeys(
    (
        "planned",
        "bytes",
        "already",
        "asked",
        "done",
        "already_gone",
        "left_queue",
        "in_delivery",
        "left",
        "open",
        "unknown",
    ),
    0,
)


def job(operation: str, result: Any = None, **fields: Any) -> dict[str, Any]:
    """A summary as the API has it."""
    known = {
        "operation": operation, "state": "succeeded", "dry_run": False, "kept": True, "runs": {"succeeded": 1},
        "awaits": None, "result": result, "drift": None, "not_done": [], "notes": [], "more_notes": 0,
    }  # fmt: skip
    return {**known, **fields}


def changes(**numbers: Any) -> dict[str, Any]:
    return {"instances": 1, **COUNTS, "unreported": 0, "customers": [], "largest_share": None, **numbers}


def not_done(state: str, *names: str, code: str | None = None) -> dict[str, Any]:
    return {"state": state, "code": code, "hint": "", "count": len(names), "instances": list(names)}


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("plain", "plain"),
        ("a\x1b[31m\nb\u202ec\u200bd", r"a\u001b[31m\u000ab\u202ec\u200bd"),
        ("x" * 75, "x" * 75),
        ("a" * 60 + "b" * 60, "a" * 50 + "…" + "b" * 24),
        ("bob\u3164\uffa0\u2800@x\u034f\u17b4", r"bob\u3164\uffa0\u2800@x\u034f\u17b4"),
        ("a\ud800b\U0001d173", r"a\ud800b\u1d173"),
    ],
)
def test_a_text_of_others_is_one_visible_line_of_75_characters(text: str, told: str) -> None:
    assert words.cell(text) == told


@pytest.mark.parametrize(
    ("told", "expected"),
    [
        (words.count(1, "message"), "1 message"),
        (words.count(0, "message"), "0 messages"),
        (words.count(4812, "message"), "4,812 messages"),
        (words.count(2, "reply", "replies"), "2 replies"),
        (words.size(1), "1 byte"),
        (words.size(1023), "1,023 bytes"),
        (words.size(1536), "1.5 KiB"),
        (words.size((34 << 20) + 999_999), "34 MiB"),
        (words.age(59.9), "59 s"),
        (words.age(-3), "0 s"),
        (words.age(6 * 3600 + 3599), "6 h"),
        (words.age(86_400 * 3), "3 d"),
        (words.share(999, 1000), "99 %"),
        (words.share(1, 1000), "under 1 %"),
        (words.share(0, 1000), "0 %"),
        (words.share(5, 5), "100 %"),
        (words.named(["a", "b", "c"]), "a, b, c"),
        (words.named(["a", "b", "c", "d", "e"]), "a, b, c and 2 more"),
        (words.named(["a"], 9), "a and 8 more"),
    ],
)
def test_numbers_are_rounded_so_that_they_never_say_more(told: str, expected: str) -> None:
    assert told == expected


@pytest.mark.parametrize("name", CATALOGUE)
def test_every_operation_has_words_for_before_and_after(name: str) -> None:
    asked, done = words.operation(name, {}), words.operation(name, {}, is_done=True)
    assert "" not in (asked, done)
    assert "{" not in asked + done


def test_words_say_what_is_done_with_mail() -> None:
    assert words.operation("queue.purge", {}, "3 messages") == "purge 3 messages to quarantine"
    assert words.operation("queue.purge", {"mode": "delete"}, "1 message", is_done=True) == "deleted 1 message for good"
    assert words.operation("queue.flush", {}) == "try delivery of messages now"
    assert words.operation("sender.block", {"pattern": "a\u202e@b.c"}) == r"block a\u202e@b.c"


def test_what_nobody_knows_is_said_first() -> None:
    entries = [not_done("unknown", "mx9/exim", code="timeout"), not_done("failed", "mx7/exim", code="conflict")]
    running = job("queue.hold", changes(planned=9, unknown=9), state="running", not_done=entries, runs={"unknown": 1})
    first, *others = words.lines_of(running, {})
    assert first == (
        "? unknown what was done on 1 instance: mx9/exim. It is looked at again; nothing is repeated meanwhile."
    )
    assert others[-1] == "✗ failed: mx7/exim (conflict)"
    over = words.lines_of({**running, "state": "partly_failed"}, {})
    assert over[0].endswith("Look there before you repeat anything.")


@pytest.mark.parametrize(
    ("fields", "numbers", "line"),
    [
        ({}, {"planned": 3, "asked": 3, "done": 3}, "Held 3 messages on 1 instance"),
        (
            {"runs": {"succeeded": 1, "failed": 1, "unreachable": 1}},
            {"instances": 2, "planned": 9, "asked": 8, "done": 4, "already_gone": 2, "in_delivery": 1, "left": 1,
             "unreported": 1},
            "Held 4 of 8 messages on 2 of 3 instances · 2 gone by themselves · 1 in delivery, left alone · 1 as it was"
            " · 1 not accounted for",
        ),
        (
            {"dry_run": True, "state": "planned"},
            {"instances": 0, "planned": 999, "bytes": 34 << 20,
             "largest_share": {"instance": "mx1/postfix", "planned": 999, "queue_total": 1000}},
            "Would hold 999 messages (34 MiB) · 99 % of the queue of mx1/postfix",
        ),
        ({"state": "queued"}, {"instances": 0, "planned": 1, "bytes": 9}, "Is to hold 1 message (9 bytes)"),
        ({"state": "rejected"}, {"instances": 0, "planned": 1, "bytes": 9}, "Was to hold 1 message (9 bytes)"),
        ({"awaits": "approval", "state": "awaiting_approval", "runs": {"planned": 1, "unchanged": 1}},
         {"instances": 1, "planned": 5, "bytes": 9, "open": 5}, "Is to hold 5 messages (9 bytes)"),
        ({"dry_run": True, "state": "planned", "runs": {"planned": 1, "unchanged": 1}},
         {"instances": 1, "planned": 5, "bytes": 9, "open": 5}, "Would hold 5 messages (9 bytes)"),
    ],
)  # fmt: skip
def test_changes_are_told_by_what_became_of_each(fields: dict, numbers: dict, line: str) -> None:
    assert line in words.lines_of(job("queue.hold", changes(**numbers), **fields), {})


@pytest.mark.parametrize(
    ("fields", "line"),
    [
        ({"state": "running", "runs": {"succeeded": 12, "pending": 287, "running": 1}},
         "Running: 12 of 300 instances so far"),
        ({"awaits": "approval", "state": "awaiting_approval", "runs": {"pending": 2}},
         "Nothing is done yet: the plan for 2 instances waits for approval"),
        ({"awaits": "confirmation", "state": "awaiting_approval", "runs": {"pending": 1}},
         "Nothing is done yet: the plan for 1 instance waits for confirmation"),
        ({"state": "expired", "runs": {"cancelled": 2}}, "Expired: nothing was done"),
        ({"kept": False}, "Hold messages: succeeded; the results are kept no longer"),
    ],
)  # fmt: skip
def test_how_far_a_job_is_stands_before_what_it_came_to(fields: dict, line: str) -> None:
    assert words.lines_of(job("queue.hold", changes(instances=0), **fields), {}) == [line]


WAITS = {"awaits": "approval", "state": "awaiting_approval"}


@pytest.mark.parametrize(
    ("fields", "told"),
    [
        ({**WAITS, "runs": {"pending": 3, "unchanged": 2}},
         ["Nothing is done yet: the plan for 5 instances waits for approval",
          "Is to purge 150 messages (2.0 MiB) to quarantine"]),
        ({"state": "queued", "runs": {"pending": 3, "unchanged": 2}},
         ["Queued: 2 of 5 instances so far", "Is to purge 150 messages (2.0 MiB) to quarantine"]),
        ({"state": "rejected", "runs": {"cancelled": 3, "unchanged": 2}},
         ["Rejected: nothing was done", "Was to purge 150 messages (2.0 MiB) to quarantine"]),
    ],
)  # fmt: skip
def test_where_some_instances_have_nothing_to_do_a_plan_is_no_deed(fields: dict, told: list[str]) -> None:
    result = changes(instances=2, planned=150, bytes=2 << 20)
    assert words.lines_of(job("queue.purge", result, **fields), {}) == told


def test_only_instances_that_had_something_to_do_are_counted_as_done() -> None:
    result = changes(instances=5, planned=150, asked=150, done=150)
    told = words.lines_of(job("queue.purge", result, runs={"succeeded": 3, "unchanged": 2}), {})
    assert told == ["Purged 150 messages to quarantine on 3 of 5 instances · nothing to do on 2"]
    none = words.lines_of(job("queue.purge", changes(instances=2), runs={"unchanged": 2}), {})
    assert none == ["Purged 0 messages to quarantine · nothing to do on 2"]


def test_a_block_that_waits_is_told_as_what_is_to_be_done() -> None:
    result = {"instances": [], "states": {}}
    waiting = job("sender.block", result, **WAITS, runs={"pending": 2, "unchanged": 1})
    assert words.lines_of(waiting, {"pattern": "a@b.c"})[1] == "Is to block a@b.c on 2 of 3 instances"
    expired = job("sender.block", result, state="expired", runs={"cancelled": 2})
    assert words.lines_of(expired, {"pattern": "a@b.c"}) == [
        "Expired: nothing was done", "Was to block a@b.c on 2 instances",
    ]  # fmt: skip


def test_what_nobody_serves_is_said_while_it_waits() -> None:
    waiting = {**not_done("pending", "mx9/exim"), "hint": "No worker serves mx9 now."}
    told = words.lines_of(job("queue.list", state="running", runs={"pending": 1}, not_done=[waiting]), {})
    assert told == ["Running: 0 of 1 instance so far", "No worker serves mx9 now."]


def test_what_is_done_on_hosts_counts_hosts() -> None:
    result = {"instances": 2, "outcomes": [{"value": "ok", "count": 2, "instances": ["a", "b"]}], "more": 0}
    checked = job("host.check", result, runs={"succeeded": 2, "unreachable": 1})
    assert words.lines_of(checked, {}) == ["Answered by 2 of 3 hosts", "Ok: a, b"]


def test_a_comparison_tells_what_differs() -> None:
    found = {"instances": 2, "planned": 9, "gone": 3, "new": 0, "changed": 1, "files_changed": 1}
    told = words.lines_of(job("queue.purge", drift=found, runs={"succeeded": 2}), {})
    assert told == ["The plan of 9 messages, compared on 2 instances: 3 gone, 1 changed, other files on 1 instance"]
    same = {**found, "gone": 0, "changed": 0, "files_changed": 0}
    [line] = words.lines_of(job("sender.block", drift=same, runs={"succeeded": 2}), {})
    assert line.endswith("no difference")


def test_a_group_that_may_be_larger_is_at_least() -> None:
    groups = [
        {"value": "silly\u202eplace.example", "count": 4812, "more_at_most": 0},
        {"value": "x.org", "count": 61, "more_at_most": 3},
        {"value": "y.org", "count": 1, "more_at_most": 0},
        {"value": "z.org", "count": 1, "more_at_most": 0},
    ]
    result = {
        "instances": 298, "total": {"count": 4927, "bytes": 1 << 30, "oldest_at": "2026-11-30T08:00:00Z"},
        "groups": {"from-domain": groups}, "taken_to": "2026-11-30T14:03:22.5Z",
    }  # fmt: skip
    assert words.lines_of(job("queue.summary", result, runs={"succeeded": 298, "unreachable": 2}), {}) == [
        "4,927 messages, 1.0 GiB on 298 of 300 instances · oldest 6 h · taken 2026-11-30 14:03:22 UTC",
        r"Largest by from-domain: silly\u202eplace.example 4,812 · x.org at least 61 · y.org 1",
    ]


def test_a_listing_tells_how_much_of_it_is_there() -> None:
    result = {"instances": 2, "entries": [{}] * 500, "matched": 12_431, "taken_to": "2026-11-30T14:03:22Z"}
    told = words.lines_of(job("queue.list", result, runs={"succeeded": 2}), {})
    assert told == ["500 of 12,431 messages on 2 instances · taken 2026-11-30 14:03:22 UTC"]


def test_a_trace_tells_what_became_of_mail() -> None:
    result = {
        "instances": 1, "rows": [{}] * 3, "matched": 3, "totals": {"sent": 2, "deferred": 1, "bounced": 0},
        "since": "2026-11-30T00:00:00Z",
    }  # fmt: skip
    told = words.lines_of(job("message.trace", result), {})
    assert told == ["3 rows on 1 instance · 2 sent · 1 deferred · since 2026-11-30 00:00:00 UTC"]


def test_what_several_may_have_counted_is_at_most_so_much() -> None:
    result = {"instances": 2, "rows": [{}], "matched": 4, "totals": {"sent": 4}, "since": "2026-11-30T00:00:00Z"}
    [told] = words.lines_of(job("message.trace", result, runs={"succeeded": 2}), {})
    assert told.startswith("1 of at most 4 rows on 2 instances · at most 4 sent · since")


def test_a_block_is_told_by_what_is_proven() -> None:
    result = {"instances": [], "states": {"applied": 3, "pending": 1}}
    runs = {"succeeded": 2, "unchanged": 1, "unreachable": 1}
    blocked = job("sender.block", result, runs=runs, not_done=[not_done("unreachable", "mx4/exim", code="unreachable")])
    assert words.lines_of(blocked, {"pattern": "a@b.c"}) == [
        "Blocked a@b.c on 3 of 4 instances · 1 already so · 1 pending",
        "✗ unreachable: mx4/exim",
    ]


def test_instances_with_the_same_outcome_are_named_together() -> None:
    outcomes = [{"value": "accepted", "count": 280, "instances": ["a", "b", "c", "d"]},
                {"value": "refused", "count": 1, "instances": ["z"]}]  # fmt: skip
    result = {"instances": 281, "outcomes": outcomes, "more": 0}
    assert words.lines_of(job("smtp.probe", result, runs={"succeeded": 281}), {}) == [
        "Answered by 281 instances", "Accepted: a, b, c and 277 more · refused: z",
    ]  # fmt: skip


def test_the_first_notes_are_told_and_the_others_counted() -> None:
    notes = [{"text": f"note {at}", "count": 5 - at, "instances": ["a"]} for at in range(5)]
    lines = words.lines_of(job("message.show", notes=notes, more_notes=7), {})
    assert lines[1] == "Note of a and 4 more: note 0"
    assert lines[-1] == "… and 9 more notes"


def test_a_note_is_told_whole() -> None:
    text = "qmail-send is stopped for this, usually for a few seconds, and started again: " + "x" * 200
    lines = words.lines_of(job("message.show", notes=[{"text": text, "count": 1, "instances": ["a"]}]), {})
    assert lines[1] == f"Note of a: {text}"


def test_the_whole_fits_where_it_is_shown() -> None:
    names = [f"{at}" + "x" * 70 for at in range(3)]
    many = [not_done("failed", *names, code=f"code-{at}") for at in range(30)]
    text = words.text_of(job("queue.hold", changes(), not_done=many), {})
    assert len(text) == words.LONGEST
    assert text.endswith("…")
